//! `tokenizer.json` and its companions to the `tokenizer.*` keys of GGUF.
//!
//! Byte-level BPE only: a vocabulary, ranked merges, and a regular expression that cuts text into pieces first.
//! GGUF names that expression instead of storing it, so it must be one we know; another one would silently give
//! other tokens. Embeddings often have more rows than there are tokens: the rest becomes `[PADn]`, never to be
//! emitted or matched.

use std::path::Path;

use serde_json::Value;

use super::document::{Document, excerpt};
use super::plan::Plan;
use crate::FormatError;
use crate::gguf::Strings;

/// Kinds of token, `enum llama_token_type` in llama.cpp.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// Split expressions as they stand in `tokenizer.json` files, and the names llama.cpp gives them.
const PRE_TOKENIZERS: [(&str, &str); 5] = [
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "qwen2",
    ),
    (
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "qwen2",
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        CL100K,
    ),
    (
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        CL100K,
    ),
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "gpt-4o",
    ),
];

/// One expression, two names: with `ignore_merges` (a piece that is a token stays whole) it is `llama-bpe`.
const CL100K: &str = "dbrx";

/// Largest vocabulary accepted.
pub(super) const MAX_VOCAB: usize = 1 << 22;

/// Reads the tokenizer of the checkpoint in `dir` into `plan`.
pub(super) fn read(dir: &Path, config: &Document, plan: &mut Plan) -> Result<(), FormatError> {
    let rows = config.count("vocab_size", 1..=MAX_VOCAB)?;
    let tokenizer = Document::open(&dir.join("tokenizer.json"))?;
    let settings = Document::open_if_present(&dir.join("tokenizer_config.json"))?;
    let pre = pre_tokenizer(&tokenizer)?;
    let vocabulary = Vocabulary::read(&tokenizer, rows)?;
    let merges = merges(&tokenizer)?;

    plan.put("tokenizer.ggml.model", "gpt2");
    plan.put("tokenizer.ggml.pre", pre);
    for (key, kind) in [
        ("tokenizer.ggml.bos_token_id", "bos"),
        ("tokenizer.ggml.eos_token_id", "eos"),
        ("tokenizer.ggml.padding_token_id", "pad"),
    ] {
        if let Some(id) = special(kind, settings.as_ref(), config, &vocabulary)? {
            plan.put(key, id);
        }
    }
    let add_bos = settings.as_ref().map_or(Ok(false), |settings| settings.flag_or("add_bos_token", false))?;
    plan.put("tokenizer.ggml.add_bos_token", add_bos);
    if let Some(template) = chat_template(dir, settings.as_ref())? {
        plan.put("tokenizer.chat_template", template);
    }
    plan.put("tokenizer.ggml.tokens", vocabulary.texts());
    plan.put("tokenizer.ggml.token_type", vocabulary.types());
    plan.put("tokenizer.ggml.merges", merges);
    Ok(())
}

/// Tokens by id; holes are padding.
struct Vocabulary {
    tokens: Vec<Option<(String, i32)>>,
}

impl Vocabulary {
    fn read(tokenizer: &Document, rows: usize) -> Result<Self, FormatError> {
        let mut tokens = vec![None; rows];
        let expected = || format!("an id of its own below {rows}, the number of embedding rows");
        let slot = |id: &Value| id.as_u64().and_then(|id| usize::try_from(id).ok());
        for (text, id) in tokenizer.map("model.vocab")? {
            match slot(id).and_then(|id| tokens.get_mut(id)) {
                Some(token @ None) => *token = Some((text.clone(), NORMAL)),
                _ => return Err(tokenizer.wrong_at(format!("model.vocab[{text:?}]"), excerpt(id), expected())),
            }
        }
        if tokenizer.value("added_tokens").is_none() {
            return Ok(Self { tokens });
        }
        for index in 0..tokenizer.list("added_tokens")?.len() {
            let field = |name: &str| format!("added_tokens.{index}.{name}");
            let text = tokenizer.text(&field("content"))?;
            let kind = if tokenizer.flag_or(&field("special"), false)? { CONTROL } else { USER_DEFINED };
            let id = tokenizer.count(&field("id"), 0..=rows.saturating_sub(1))?;
            // An added token may repeat one of the vocabulary, but not take the place of another.
            match tokens.get_mut(id) {
                Some(token) if token.as_ref().is_none_or(|(old, _)| old == text) => {
                    *token = Some((text.to_owned(), kind));
                }
                _ => return Err(tokenizer.wrong(&field("id"), expected())),
            }
        }
        Ok(Self { tokens })
    }

    fn id(&self, text: &str) -> Option<usize> {
        self.tokens.iter().position(|token| token.as_ref().is_some_and(|(known, _)| known == text))
    }

    fn texts(&self) -> Strings {
        let pad = |id| format!("[PAD{id}]");
        let text = |(id, token): (usize, &Option<(String, i32)>)| match token {
            Some((text, _)) => text.clone(),
            None => pad(id),
        };
        self.tokens.iter().enumerate().map(text).collect()
    }

    fn types(&self) -> Vec<i32> {
        self.tokens.iter().map(|token| token.as_ref().map_or(UNUSED, |(_, kind)| *kind)).collect()
    }
}

/// The name of the split expression.
fn pre_tokenizer(tokenizer: &Document) -> Result<&'static str, FormatError> {
    if tokenizer.value("model.type").is_some_and(|kind| kind != "BPE") {
        return Err(tokenizer.wrong("model.type", "BPE"));
    }
    if tokenizer.flag_or("model.byte_fallback", false)? {
        return Err(tokenizer.wrong("model.byte_fallback", "false (only byte-level BPE is supported)"));
    }
    // Either one step or a sequence of steps.
    let steps = match tokenizer.value("pre_tokenizer.pretokenizers") {
        Some(_) => tokenizer.list("pre_tokenizer.pretokenizers")?,
        None => tokenizer.value("pre_tokenizer").map_or(&[][..], std::slice::from_ref),
    };
    let is = |step: &&Value, kind: &str| step.get("type").is_some_and(|found| found == kind);
    let expressions: Vec<_> = steps.iter().filter(|step| is(step, "Split")).collect();
    let byte_level = steps.iter().any(|step| is(&step, "ByteLevel"));
    let unknown = |found: String| FormatError::PreTokenizer { found };
    let &[split] = expressions.as_slice() else {
        return Err(unknown(format!("{} split steps", expressions.len())));
    };
    if !byte_level {
        return Err(unknown("no ByteLevel step".to_owned()));
    }
    let expression = split.pointer("/pattern/Regex").and_then(Value::as_str);
    let expression = expression.ok_or_else(|| unknown("a split without a regular expression".to_owned()))?;
    let known = PRE_TOKENIZERS.iter().find(|(known, _)| *known == expression);
    let &(_, name) = known.ok_or_else(|| unknown(expression.to_owned()))?;
    let whole = tokenizer.flag_or("model.ignore_merges", false)?;
    match name {
        CL100K if whole => Ok("llama-bpe"),
        _ if whole => Err(tokenizer.wrong("model.ignore_merges", format!("false, as {name} implies"))),
        _ => Ok(name),
    }
}

/// The merges in rank order, as "left right".
fn merges(tokenizer: &Document) -> Result<Strings, FormatError> {
    let vocabulary = tokenizer.map("model.vocab")?;
    // No token of a byte-level vocabulary holds a space.
    let usable = |left: &str, right: &str| {
        let union = format!("{left}{right}");
        [left, right, &union].iter().all(|text| vocabulary.contains_key(*text)) && !union.contains(' ')
    };
    let merge = |(rank, merge): (usize, &Value)| match parts(merge).filter(|(left, right)| usable(left, right)) {
        Some((left, right)) => Ok(format!("{left} {right}")),
        None => {
            let expected = "two tokens whose union is a token, without spaces";
            Err(tokenizer.wrong_at(format!("model.merges.{rank}"), merge.to_string(), expected))
        }
    };
    tokenizer.list("model.merges")?.iter().enumerate().map(merge).collect()
}

/// The halves of a merge: until tokenizers 0.20 one string, since then a pair.
fn parts(merge: &Value) -> Option<(&str, &str)> {
    match merge {
        Value::String(text) => text.split_once(' '),
        Value::Array(pair) => match pair.as_slice() {
            [Value::String(left), Value::String(right)] => Some((left, right)),
            _ => None,
        },
        _ => None,
    }
}

/// The id of the `bos`, `eos` or `pad` token: by its text in `tokenizer_config.json`, else by number in `config.json`.
fn special(
    kind: &str,
    settings: Option<&Document>,
    config: &Document,
    vocabulary: &Vocabulary,
) -> Result<Option<u32>, FormatError> {
    let by_text = settings.and_then(|settings| {
        let field = format!("{kind}_token");
        let value = settings.value(&field)?;
        // The token itself, or a map that describes it.
        let text = value.as_str().or_else(|| value.get("content")?.as_str());
        let id = text.and_then(|text| vocabulary.id(text));
        Some(id.ok_or_else(|| settings.wrong(&field, "a token of the vocabulary")))
    });
    let id = match by_text {
        Some(id) => id?,
        None => {
            // A list names several; the first one is the one generation ends with by default.
            let field = format!("{kind}_token_id");
            let first = format!("{field}.0");
            let field = if config.value(&first).is_some() { first } else { field };
            if config.value(&field).is_none() {
                return Ok(None);
            }
            config.count(&field, 0..=vocabulary.tokens.len().saturating_sub(1))?
        }
    };
    Ok(u32::try_from(id).ok())
}

/// The chat template: a file of its own in newer checkpoints, else text in `tokenizer_config.json`.
fn chat_template(dir: &Path, settings: Option<&Document>) -> Result<Option<String>, FormatError> {
    let path = dir.join("chat_template.jinja");
    match std::fs::read_to_string(&path) {
        Ok(template) => return Ok(Some(template)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => return Err(FormatError::Io { action: "read", path, source }),
    }
    let Some(settings) = settings.filter(|settings| settings.value("chat_template").is_some()) else {
        return Ok(None);
    };
    settings.text("chat_template").map(|template| Some(template.to_owned()))
}
