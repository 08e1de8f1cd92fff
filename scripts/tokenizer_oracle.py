"""Compares our tokenizer with Hugging Face `tokenizers`, and makes the vocabularies and golden files of its tests.

    tokenizer_oracle.py ranks cl100k_base.tiktoken dbrx /tmp/dbrx.gguf    vocabulary from OpenAI's rank file
    tokenizer_oracle.py compare /tmp/dbrx.gguf --count 1000000            0 differences, or the first few and exit 1
    tokenizer_oracle.py compare model.gguf --json DIR/tokenizer.json      the same for an imported file and what it was
    tokenizer_oracle.py cut /tmp/dbrx.gguf runtime/tests/data/text/dbrx   small vocabulary and expected ids

Rank files: the assets of the `tiktoken-rs` crate. `compare` needs `cargo build --release --example tokenizer_stream`.
The Hugging Face object is built from the GGUF itself, with the pattern of the models' own tokenizer.json, without
normaliser (so no NFC, which Qwen2's asks for), and with special tokens only where they are to be matched: user-defined
ones always, control tokens under `--parse`. With `--json` it is that file, which always matches them all.
"""

import argparse
import base64
import os
import re
import struct
import subprocess
import sys
import time

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

import tokenizer_gguf as gguf
from tokenizer_texts import Texts

STREAM = os.path.join(os.path.dirname(__file__), "../target/release/examples/tokenizer_stream")

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
CL100K = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + SPACES
PATTERNS = {
    "qwen2": CL100K.replace("{1,3}", ""),
    "dbrx": CL100K,
    "llama-bpe": CL100K,
    "gpt-4o": rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTIONS}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTIONS}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + SPACES,
}
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
NOT_STRIPPING = {"<unk>", "<s>", "<|endoftext|>"}


def byte_table():
    """GPT-2's way to write bytes as printable characters."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + n) for n, b in enumerate(others)}


def is_padding(token, number):
    return token == f"[PAD{number}]"


def hugging_face(pairs, parse):
    """The reference tokenizer for a GGUF's metadata."""
    tokens, types = pairs["tokenizer.ggml.tokens"], pairs["tokenizer.ggml.token_type"]
    vocab = {token: n for n, token in enumerate(tokens)}
    if pairs["tokenizer.ggml.model"] == "gpt2":
        pre = pairs["tokenizer.ggml.pre"]
        merges = []
        for merge in pairs["tokenizer.ggml.merges"]:
            cut = merge.index(" ", 1)
            merges.append((merge[:cut], merge[cut + 1 :]))
        model = models.BPE(vocab=vocab, merges=merges, ignore_merges=pre == "llama-bpe")
        made = Tokenizer(model)
        split = pre_tokenizers.Split(Regex(PATTERNS[pre]), "isolated")
        made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    else:
        # As transformers' converter for slow Llama tokenizers: every cut of a piece into two pieces is a merge, by score.
        score = dict(zip(tokens, pairs["tokenizer.ggml.scores"]))
        normal = {token for token, kind in zip(tokens, types) if kind == NORMAL}
        merges = []
        for token in normal:
            cuts = [(token[:at], token[at:]) for at in range(1, len(token))]
            cuts = [cut for cut in cuts if cut[0] in normal and cut[1] in normal]
            merges.extend((left, right, score[token]) for left, right in sorted(cuts, key=lambda cut: (vocab[cut[0]], vocab[cut[1]])))
        merges.sort(key=lambda merge: (merge[2], len(merge[0]), len(merge[1])), reverse=True)
        merges = [(left, right) for left, right, _ in merges]
        made = Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    wanted = {USER_DEFINED, CONTROL, UNKNOWN} if parse else {USER_DEFINED}
    strips = pairs["tokenizer.ggml.model"] == "llama"
    made.add_tokens([
        AddedToken(token, rstrip=strips and token not in NOT_STRIPPING, normalized=False, special=kind != USER_DEFINED)
        for n, (token, kind) in enumerate(zip(tokens, types)) if kind in wanted and not is_padding(token, n)
    ])
    return made


def ours(path, texts, parse):
    packed = b"".join(struct.pack("<I", len(raw)) + raw for raw in (text.encode() for text in texts))
    command = [STREAM, path] + (["parse"] if parse else [])
    out = memoryview(subprocess.run(command, input=packed, stdout=subprocess.PIPE, check=True).stdout).cast("I")
    at = 0
    for _ in texts:
        yield out[at + 1 : at + 1 + out[at]].tolist()
        at += 1 + out[at]


def compare(options):
    pairs = gguf.read(options.vocabulary)
    if options.json:
        options.parse = True
        reference = Tokenizer.from_file(options.json)
    else:
        reference = hugging_face(pairs, options.parse)
    texts, start = Texts(options.seed), time.time()
    done = characters = ids = differences = 0
    while done < options.count:
        chunk = [texts.text() for _ in range(min(50_000, options.count - done))]
        expected = reference.encode_batch_fast(chunk, add_special_tokens=False)
        for text, theirs, our in zip(chunk, expected, ours(options.vocabulary, chunk, options.parse)):
            characters, ids = characters + len(text), ids + len(our)
            if theirs.ids != our:
                differences += 1
                if differences <= options.show:
                    print(f"  {text!r}\n    hugging face {theirs.ids}\n    ours         {our}")
        done += len(chunk)
    mode = "special tokens parsed" if options.parse else "special tokens as text"
    print(f"{os.path.basename(options.vocabulary)}, {mode}, seed {options.seed}: {done} texts, {characters} characters, {ids} ids: "
          f"{differences} differences ({time.time() - start:.0f} s)", flush=True)
    return 1 if differences else 0


def recover_merges(ranks):
    """Each token's last merge: its bytes merged by all lower ranks, which leaves two parts."""
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) == 1:
            continue
        parts = [token[n : n + 1] for n in range(len(token))]
        while len(parts) > 2:
            best = min(range(len(parts) - 1), key=lambda n: ranks.get(parts[n] + parts[n + 1], rank))
            if ranks.get(parts[best] + parts[best + 1], rank) >= rank:
                break
            parts[best : best + 2] = [parts[best] + parts[best + 1]]
        assert len(parts) == 2, (token, parts)
        merges.append(parts)
    return merges


def from_ranks(options):
    ranks = {}
    for line in open(options.ranks, "rb"):
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    table = byte_table()
    written = lambda token: "".join(table[b] for b in token)
    specials = {"dbrx": ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>"], "gpt-4o": ["<|endoftext|>", "<|assistant|>", "<|end|>", "<|user|>", "<|system|>"]}
    by_rank = {rank: written(token) for token, rank in ranks.items()}
    tokens = [by_rank.get(n) or f"[PAD{n}]" for n in range(max(by_rank) + 1)]
    types = [NORMAL if n in by_rank else UNUSED for n in range(len(tokens))]
    for special in specials[options.pre]:
        tokens.append(special)
        types.append(CONTROL)
    gguf.write(options.output, {
        "general.architecture": "phi3",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": options.pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [f"{written(left)} {written(right)}" for left, right in recover_merges(ranks)],
        "tokenizer.ggml.eos_token_id": tokens.index("<|endoftext|>"),
    })
    print(f"{options.output}: {len(tokens)} tokens")
    return 0


def cut_byte_level(pairs, count):
    """The first `count` tokens, the merges among them, and the special tokens at new ids."""
    tokens, types = pairs["tokenizer.ggml.tokens"], pairs["tokenizer.ggml.token_type"]
    kept = tokens[:count]
    known = set(kept)
    merges = []
    for merge in pairs["tokenizer.ggml.merges"]:
        at = merge.index(" ", 1)
        left, right = merge[:at], merge[at + 1 :]
        if left in known and right in known and left + right in known:
            merges.append(merge)
    special = [token for token, kind in zip(tokens, types) if kind == CONTROL][:12]
    return kept, [NORMAL] * count, special, {"tokenizer.ggml.merges": merges}


def cut_sentence_piece(pairs, count):
    """Unknown and byte tokens, the best `count` tokens and every single character, and the special tokens at new ids."""
    tokens, types, scores = (pairs["tokenizer.ggml." + key] for key in ("tokens", "token_type", "scores"))
    normal = [n for n, kind in enumerate(types) if kind == NORMAL]
    chosen = set(normal[:count]) | {n for n in normal if len(tokens[n]) == 1}
    special = [n for n, kind in enumerate(types) if kind == CONTROL and n > 2]
    numbers = [n for n in range(len(tokens)) if n in chosen or types[n] == BYTE or n <= 2]
    kept = [tokens[n] for n in numbers]
    kept_scores = [scores[n] for n in numbers] + [0.0] * (len(special) + 4)
    return kept, [types[n] for n in numbers], [tokens[n] for n in special], {"tokenizer.ggml.scores": kept_scores}


def cut(options):
    pairs = gguf.read(options.vocabulary)
    sentence_piece = pairs["tokenizer.ggml.model"] == "llama"
    kept, types, special, more = (cut_sentence_piece if sentence_piece else cut_byte_level)(pairs, options.tokens)
    kept, types = kept + special, types + [CONTROL] * len(special)
    # A token that is always matched, and rows that never are, typed as different converters do.
    kept.append("<tool>")
    types.append(USER_DEFINED)
    for kind in (UNUSED, USER_DEFINED, UNKNOWN):
        kept.append(f"[PAD{len(kept)}]")
        types.append(kind)
    head = {key: pairs[key] for key in ("general.architecture", "tokenizer.ggml.model", "tokenizer.ggml.pre")}
    small = head | {"tokenizer.ggml.tokens": kept, "tokenizer.ggml.token_type": types} | more
    gguf.write(options.output + ".gguf", small)

    texts = Texts(options.seed)
    names = special + ["<tool>", kept[-1], "</s>", "<unk>"]
    plain = ["", " ", "  ", "\n", "Hello, world!", " Hello", "ſ'ſabc 'ſ"] + [texts.text()[:80] for _ in range(150)]
    marked = [texts.piece()[:20] + texts.random.choice(names) + texts.piece()[:20] + texts.random.choice(names) for _ in range(60)]
    # Everything that is not plainly visible is escaped, a space at the end of the line, too.
    shown = lambda c: c if c.isprintable() and c != "\\" else f"\\u{{{ord(c):x}}}"
    escape = lambda text: re.sub(" $", r"\\u{20}", "".join(map(shown, text)))
    with open(options.output + ".golden", "w", encoding="utf-8", newline="\n") as golden:
        for mode, cases in (("text", plain + marked), ("parse", marked)):
            reference = hugging_face(small, mode == "parse")
            for case in cases:
                ids = reference.encode(case, add_special_tokens=False).ids
                golden.write(f"{mode}\t{' '.join(map(str, ids))}\t{escape(case)}\n")
    print(f"{options.output}: {len(kept)} tokens, {os.path.getsize(options.output + '.gguf')} bytes, {len(plain) + 2 * len(marked)} cases")
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("ranks")
    command.add_argument("ranks")
    command.add_argument("pre")
    command.add_argument("output")
    command.set_defaults(run=from_ranks)
    command = commands.add_parser("compare")
    command.add_argument("vocabulary")
    command.add_argument("--count", type=int, default=1_000_000)
    command.add_argument("--seed", type=int, default=1)
    command.add_argument("--show", type=int, default=5)
    command.add_argument("--parse", action="store_true")
    command.add_argument("--json")
    command.set_defaults(run=compare)
    command = commands.add_parser("cut")
    command.add_argument("vocabulary")
    command.add_argument("output")
    command.add_argument("--tokens", type=int, default=3000)
    command.add_argument("--seed", type=int, default=1)
    command.set_defaults(run=cut)
    options = parser.parse_args()
    sys.exit(options.run(options))


if __name__ == "__main__":
    main()
