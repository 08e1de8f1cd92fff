//! SentencePiece BPE with byte fallback: characters merge, best union first; a character that is no token becomes
//! bytes.
//!
//! `tokenizer.json` lists merges in order. GGUF has a score for each token instead, and there every way of cutting a
//! token in two is a merge into it, the leftmost first among equals. Both say the same only if the list is complete
//! and goes union by union, which is checked here: anything else would silently give other tokens. Scores count
//! unions, best first: 0, -1, -2 and so on, then those that nothing makes, as SentencePiece's trainer numbers pieces.
//! Sources: `bpe_model.cc` of SentencePiece, `llm_tokenizer_spm` in llama.cpp, `bpe/word.rs` of Hugging Face
//! tokenizers.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde_json::Value;

use super::{Document, FormatError, Kind, Plan, Vocabulary, excerpt, parts, steps};

/// How these vocabularies write a space.
const SPACE: &str = "\u{2581}";
/// Longest token, in bytes: the check below takes time in proportion to tokens times the square of their length.
const MAX_TOKEN_BYTES: usize = 1024;

/// GGUF has no flag for special tokens that swallow the white space after them. In SentencePiece models of these
/// architectures all but three do, in those of all others none: that is the rule by which the runtime reads files.
const STRIPPING_ARCHITECTURES: [&str; 2] = ["phimoe", "phi3"];
const NOT_STRIPPING: [&str; 3] = ["<unk>", "<s>", "<|endoftext|>"];

/// Whether `tokenizer` is of this kind rather than byte-level.
pub(super) fn is_meant(tokenizer: &Document) -> Result<bool, FormatError> {
    tokenizer.flag_or("model.byte_fallback", false)
}

/// Puts the keys of this kind of vocabulary, and gives its tokens their kinds.
pub(super) fn put(tokenizer: &Document, vocabulary: &mut Vocabulary, plan: &mut Plan) -> Result<(), FormatError> {
    if tokenizer.flag_or("model.ignore_merges", false)? {
        return Err(tokenizer.wrong("model.ignore_merges", "false"));
    }
    mark_bytes(tokenizer, vocabulary)?;
    if tokenizer.value("model.unk_token").is_some() {
        let text = tokenizer.text("model.unk_token")?;
        let id = vocabulary.set_kind(text, Kind::Unknown);
        let id = id.ok_or_else(|| tokenizer.wrong("model.unk_token", "a token of the vocabulary"))?;
        plan.put("tokenizer.ggml.unknown_token_id", id);
    }
    check_added(tokenizer, plan.architecture())?;
    plan.put("tokenizer.ggml.model", "llama");
    plan.put("tokenizer.ggml.pre", "default");
    plan.put("tokenizer.ggml.add_space_prefix", space_prefix(tokenizer)?);
    plan.put("tokenizer.ggml.scores", scores(tokenizer, vocabulary)?);
    Ok(())
}

/// Finds the tokens that stand for single bytes.
fn mark_bytes(tokenizer: &Document, vocabulary: &mut Vocabulary) -> Result<(), FormatError> {
    for byte in 0..=u8::MAX {
        let text = format!("<0x{byte:02X}>");
        if vocabulary.set_kind(&text, Kind::Byte).is_none() {
            let field = format!("model.vocab[{text:?}]");
            return Err(tokenizer.wrong_at(field, "missing".to_owned(), "a token for each byte"));
        }
    }
    Ok(())
}

/// Whether text between special tokens gets a space before it.
fn space_prefix(tokenizer: &Document) -> Result<bool, FormatError> {
    let has = |step: &Value, pairs: &[(&str, &str)]| {
        pairs.iter().all(|(field, text)| step.pointer(field).is_some_and(|found| found == text))
    };
    let prepend = |step| has(step, &[("/type", "Prepend"), ("/prepend", SPACE)]);
    let replace = |step| has(step, &[("/type", "Replace"), ("/pattern/String", " "), ("/content", SPACE)]);
    // Metaspace puts no space before text that begins with one, nor, if asked for the first text only, after special
    // tokens. No key of GGUF says so.
    let metaspace = |step: &Value| {
        has(step, &[("/type", "Metaspace"), ("/replacement", SPACE), ("/prepend_scheme", "never")])
            && step.get("split").is_some_and(|split| split == false)
    };
    match (steps(tokenizer, "normalizer", "normalizers")?, steps(tokenizer, "pre_tokenizer", "pretokenizers")?) {
        ([first, second], []) if prepend(first) && replace(second) => Ok(true),
        ([only], []) if replace(only) => Ok(false),
        ([], [only]) if metaspace(only) => Ok(false),
        (_, []) => {
            let expected = "Replace of \" \" by \"\u{2581}\", perhaps with Prepend of \"\u{2581}\" before it";
            Err(tokenizer.wrong("normalizer", expected))
        }
        _ => Err(tokenizer.wrong("pre_tokenizer", "none, or a Metaspace that never prepends nor splits")),
    }
}

/// Checks that added tokens are matched in the way a GGUF of `architecture` implies.
fn check_added(tokenizer: &Document, architecture: &str) -> Result<(), FormatError> {
    if tokenizer.value("added_tokens").is_none() {
        return Ok(());
    }
    for index in 0..tokenizer.list("added_tokens")?.len() {
        let field = |name: &str| format!("added_tokens.{index}.{name}");
        let text = tokenizer.text(&field("content"))?;
        let strips = STRIPPING_ARCHITECTURES.contains(&architecture) && !NOT_STRIPPING.contains(&text);
        for (name, expected) in [("rstrip", strips), ("lstrip", false), ("single_word", false), ("normalized", false)] {
            if tokenizer.flag_or(&field(name), false)? != expected {
                let expected = format!("{expected}, as files of architecture {architecture} imply for {text:?}");
                return Err(tokenizer.wrong(&field(name), expected));
            }
        }
    }
    Ok(())
}

/// The scores of all tokens, by id.
fn scores(tokenizer: &Document, vocabulary: &Vocabulary) -> Result<Vec<f32>, FormatError> {
    let merges = Merges::read(tokenizer, vocabulary)?;
    merges.check_complete(tokenizer, vocabulary)?;
    let ranks = merges.ranks(tokenizer, vocabulary)?;

    // What text cannot become comes last, so that readers who do not look at kinds merge into it last.
    let last = 0.0 - vocabulary.len() as f32;
    let mut next = ranks.values().max().map_or(0, |rank| rank + 1);
    let score = |(text, kind): (&str, Kind)| match kind {
        Kind::Normal => {
            let rank = ranks.get(text).copied().unwrap_or_else(|| {
                next += 1;
                next - 1
            });
            0.0 - rank as f32
        }
        Kind::Byte => 0.0,
        _ => last,
    };
    Ok(vocabulary.iter().map(score).collect())
}

/// The list of merges between normal tokens, in order.
struct Merges<'a> {
    list: Vec<(&'a str, &'a str)>,
}

impl<'a> Merges<'a> {
    fn read(tokenizer: &'a Document, vocabulary: &Vocabulary) -> Result<Self, FormatError> {
        let mut list = Vec::new();
        let mut union = String::new();
        for (rank, merge) in tokenizer.list("model.merges")?.iter().enumerate() {
            let wrong = || {
                let expected = "two tokens whose union is a token, none of them a byte";
                tokenizer.wrong_at(format!("model.merges.{rank}"), merge.to_string(), expected)
            };
            let (left, right) = parts(merge).ok_or_else(wrong)?;
            union.clear();
            union.extend([left, right]);
            let kinds = [left, right, &union].map(|text| vocabulary.kind(text));
            if kinds.iter().any(|kind| matches!(kind, None | Some(Kind::Byte))) {
                return Err(wrong());
            }
            // Special tokens are matched before anything merges, so merges of them never happen.
            if kinds.iter().all(|kind| *kind == Some(Kind::Normal)) {
                list.push((left, right));
            }
        }
        Ok(Self { list })
    }

    /// Checks that every way to cut a token into symbols is listed: into tokens, or characters that are none.
    fn check_complete(&self, tokenizer: &Document, vocabulary: &Vocabulary) -> Result<(), FormatError> {
        let listed: HashSet<_> = self.list.iter().copied().collect();
        let is_symbol = |text: &str| vocabulary.kind(text) == Some(Kind::Normal) || text.chars().nth(1).is_none();
        for (text, _) in vocabulary.iter().filter(|(_, kind)| *kind == Kind::Normal) {
            if text.len() > MAX_TOKEN_BYTES {
                let expected = format!("a token of at most {MAX_TOKEN_BYTES} bytes");
                return Err(tokenizer.wrong_at("model.vocab".to_owned(), excerpt(&text.into()), expected));
            }
            let cuts = text.char_indices().skip(1).filter_map(|(at, _)| text.split_at_checked(at));
            let mut missing = cuts.filter(|&(left, right)| is_symbol(left) && is_symbol(right));
            if let Some((left, right)) = missing.find(|cut| !listed.contains(cut)) {
                let found = format!("a list without {left:?} {right:?}");
                return Err(tokenizer.wrong_at("model.merges".to_owned(), found, "every cut of a token in two"));
            }
        }
        Ok(())
    }

    /// The place of each union, counted in unions.
    fn ranks(&self, tokenizer: &Document, vocabulary: &Vocabulary) -> Result<HashMap<String, usize>, FormatError> {
        let unions: Vec<String> = self.list.iter().map(|(left, right)| [*left, *right].concat()).collect();
        let ends: HashMap<&str, usize> = unions.iter().map(String::as_str).zip(0..).collect();
        let mut ranks = HashMap::with_capacity(vocabulary.len());
        let mut start = 0;
        while let Some(first) = unions.get(start) {
            // The shortest run of merges that has all merges of every union in it.
            let mut end = start;
            let mut at = start;
            while let Some(last) = unions.get(at).filter(|_| at <= end).and_then(|union| ends.get(union.as_str())) {
                end = end.max(*last);
                at += 1;
            }
            let group = unions.get(start..at).unwrap_or_default();
            if group.iter().any(|union| union != first) && !self.is_run_of_spaces(start, group) {
                let found = format!("those of {first:?} among others");
                let expected = "the merges into one token side by side";
                return Err(tokenizer.wrong_at(format!("model.merges.{start}"), found, expected));
            }
            let rank = ranks.len();
            ranks.extend(group.iter().map(|union| (union.clone(), rank)));
            start = at;
        }
        Ok(ranks)
    }

    /// Whether `group`, which begins at `start`, merges spaces into runs of 3 up to the longest, and the merge of two
    /// single spaces comes after it. Llama's vocabulary gives all these one score, so transformers sorts them by
    /// length. As there is at most one run that is not the longest beside single spaces, it grows from the left until
    /// it is, in whatever order the merges are listed; the rule for equal scores gives the same.
    fn is_run_of_spaces(&self, start: usize, group: &[String]) -> bool {
        let lengths: BTreeSet<_> = group.iter().map(|union| union.chars().count()).collect();
        group.iter().all(|union| union.chars().all(|c| SPACE.contains(c)))
            && lengths.iter().copied().eq(3..lengths.len() + 3)
            && self.list.get(start + group.len()) == Some(&(SPACE, SPACE))
    }
}
