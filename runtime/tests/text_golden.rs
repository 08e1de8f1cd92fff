//! All five kinds of tokenizer against Hugging Face's ids for small vocabularies of this repository, and what must hold
//! for any text and any ids.
//!
//! `tests/data/text/README.md` says where the vocabularies and expected ids come from.

use halfbyte::{
    Gguf,
    text::{Special, Tokenizer},
};
use proptest::prelude::*;

macro_rules! data {
    ($name:literal) => {
        (
            $name,
            include_bytes!(concat!("data/text/", $name, ".gguf")).as_slice(),
            include_str!(concat!("data/text/", $name, ".golden")),
        )
    };
}

const BYTE_LEVEL: [(&str, &[u8], &str); 4] = [data!("qwen2"), data!("dbrx"), data!("gpt-4o"), data!("llama-bpe")];
const SENTENCE_PIECE: (&str, &[u8], &str) = data!("phi-3");

fn tokenizer(bytes: &'static [u8]) -> Tokenizer {
    Tokenizer::from_metadata(Gguf::from_bytes(bytes).unwrap().metadata()).unwrap()
}

/// Undoes `\u{hex}`.
fn unescape(text: &str) -> String {
    let mut parts = text.split("\\u{");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_once('}').unwrap();
        out.push(char::from_u32(u32::from_str_radix(code, 16).unwrap()).unwrap());
        out.push_str(rest);
    }
    out
}

fn check((name, bytes, golden): (&str, &'static [u8], &str)) {
    let tokenizer = tokenizer(bytes);
    let mut cases = 0;
    for line in golden.lines() {
        let (mode, rest) = line.split_once('\t').unwrap();
        let (ids, text) = rest.split_once('\t').unwrap();
        let special = if mode == "parse" { Special::Parse } else { Special::AsText };
        let expected: Vec<u32> = ids.split_whitespace().map(|id| id.parse().unwrap()).collect();
        let text = unescape(text);
        assert_eq!(tokenizer.encode(&text, special), expected, "{name}, {mode}: {text:?}");
        cases += 1;
    }
    assert_eq!(cases, 277, "{name}");
}

#[test]
fn qwen2_as_hugging_face() {
    check(BYTE_LEVEL[0]);
}

#[test]
fn dbrx_as_hugging_face() {
    check(BYTE_LEVEL[1]);
}

#[test]
fn gpt_4o_as_hugging_face() {
    check(BYTE_LEVEL[2]);
}

#[test]
fn llama_bpe_as_hugging_face() {
    check(BYTE_LEVEL[3]);
}

#[test]
fn phi_3_as_hugging_face() {
    check(SENTENCE_PIECE);
}

/// Ids through the streaming decoder; every piece it gives is whole text by its type.
fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let (mut decoder, mut out) = (tokenizer.decoder(), String::new());
    for &id in ids {
        decoder.push(id, &mut out);
    }
    decoder.finish(&mut out);
    out
}

/// Text of all kinds: any characters, and fragments that matter to the split rules and special tokens.
fn texts() -> impl Strategy<Value = String> {
    let fragments = prop::sample::select(vec![
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "'s",
        "'LL",
        "'ſ",
        "Hello",
        "WORLD",
        "ǅ",
        "É",
        "é",
        "e\u{301}",
        "12345",
        "½",
        "語",
        "हिन्दी",
        "ก็",
        "🦙",
        "👨‍👩‍👧",
        "<tool>",
        "<|endoftext|>",
        "</s>",
        "<|",
        "[PAD3006]",
        "▁",
        "/",
        "//\n",
        "...",
        "\u{0}",
        "\u{85}",
        "\u{3000}",
        "fn main() {",
    ]);
    let part = prop_oneof![fragments.prop_map(str::to_owned), any::<char>().prop_map(String::from), "\\PC{0,4}"];
    prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

fn byte_level() -> Vec<(&'static str, Tokenizer)> {
    BYTE_LEVEL.iter().map(|(name, bytes, _)| (*name, tokenizer(bytes))).collect()
}

fn all() -> Vec<(&'static str, Tokenizer)> {
    byte_level().into_iter().chain([(SENTENCE_PIECE.0, tokenizer(SENTENCE_PIECE.1))]).collect()
}

const CASES: u32 = 400;

#[test]
fn byte_level_decode_undoes_encode() {
    let tokenizers = byte_level();
    proptest!(ProptestConfig::with_cases(CASES), |(text in texts())| {
        for (name, tokenizer) in &tokenizers {
            let ids = tokenizer.encode(&text, Special::AsText);
            prop_assert_eq!(&tokenizer.decode(&ids), text.as_bytes(), "{}", name);
            prop_assert_eq!(&streamed(tokenizer, &ids), &text, "{}", name);
            prop_assert!(ids.iter().all(|&id| !tokenizer.is_control(id)), "{}: text became a control token", name);
        }
    });
}

#[test]
fn sentence_piece_decode_undoes_encode() {
    let tokenizer = tokenizer(SENTENCE_PIECE.1);
    proptest!(ProptestConfig::with_cases(CASES), |(text in texts())| {
        // A user-defined token splits the text and each part gets a space; U+2581 is a space.
        let text = text.replace("</s>", "").replace("<tool>", "").replace('▁', " ");
        prop_assume!(!text.contains("</s>") && !text.contains("<tool>"));
        let ids = tokenizer.encode(&text, Special::AsText);
        prop_assert_eq!(&tokenizer.decode(&ids), text.as_bytes());
        prop_assert_eq!(&streamed(&tokenizer, &ids), &text);
        prop_assert!(ids.iter().all(|&id| !tokenizer.is_control(id)));
    });
}

#[test]
fn streaming_any_ids_is_decoding_them_at_once() {
    let tokenizers = all();
    let id = prop_oneof![0..260u32, 0..6000u32, Just(u32::MAX)];
    proptest!(ProptestConfig::with_cases(CASES), |(ids in prop::collection::vec(id, 0..60))| {
        for (name, tokenizer) in &tokenizers {
            prop_assert_eq!(streamed(tokenizer, &ids), tokenizer.decode_lossy(&ids), "{}", name);
        }
    });
}

#[test]
fn padding_is_never_made() {
    let tokenizers = all();
    proptest!(ProptestConfig::with_cases(CASES), |(text in texts())| {
        for (name, tokenizer) in &tokenizers {
            let padding = tokenizer.vocab_size() as u32 - 3;
            let text = format!("[PAD{padding}]{text}[PAD{}]", padding + 1);
            for special in [Special::AsText, Special::Parse] {
                prop_assert!(tokenizer.encode(&text, special).iter().all(|&id| id < padding), "{}", name);
            }
        }
    });
}

#[test]
fn a_character_over_several_tokens_comes_out_whole() {
    for (name, bytes, _) in BYTE_LEVEL.into_iter().chain([SENTENCE_PIECE]) {
        let tokenizer = tokenizer(bytes);
        let ids = tokenizer.encode("🦙", Special::AsText);
        assert!(ids.len() >= 3, "{name}: the small vocabulary has no such token");
        let (mut decoder, mut out) = (tokenizer.decoder(), String::new());
        for (n, &id) in ids.iter().enumerate() {
            decoder.push(id, &mut out);
            assert_eq!(out, if n + 1 < ids.len() { "" } else { "🦙" }, "{name}");
        }
        // The first bytes alone: a replacement character, as soon as another character shows that they stay alone.
        out.clear();
        let start = ids.len() - 4.min(ids.len());
        decoder.push(ids[start], &mut out);
        assert_eq!(out, "", "{name}");
        decoder.push(tokenizer.token_id("a").unwrap(), &mut out);
        assert_eq!(out, "\u{fffd}a", "{name}");
        decoder.push(ids[start], &mut out);
        decoder.finish(&mut out);
        assert_eq!(out, "\u{fffd}a\u{fffd}", "{name}");
        decoder.finish(&mut out);
        assert_eq!(out, "\u{fffd}a\u{fffd}", "{name}: finishing twice adds nothing");
    }
}
