//! `tokenizer.json` and its companions to the `tokenizer.*` keys of GGUF.
//!
//! BPE of two kinds: `byte_level` (Qwen2, Phi-4) and `sentence_piece` (Phi-MoE). What GGUF cannot say is an error if
//! it would change tokens, with one exception: the white space that special tokens of byte-level vocabularies may
//! swallow is kept, as in llama.cpp. Embeddings often have more rows than there are tokens: the rest becomes `[PADn]`,
//! never to be emitted or matched.

mod byte_level;
mod sentence_piece;
mod vocabulary;

use std::io::ErrorKind;
use std::path::Path;

use serde_json::Value;

use super::document::{Document, excerpt};
use super::plan::Plan;
use crate::gguf::{Load, Strings};
use crate::{FormatError, map};
use vocabulary::{Kind, Vocabulary};

/// Largest vocabulary accepted.
pub(super) const MAX_VOCAB: usize = 1 << 22;
/// Where newer checkpoints have their chat template.
const TEMPLATE: &str = "chat_template.jinja";
/// Bytes of such a file. Published ones have some thousands.
const MAX_TEMPLATE: u64 = 1 << 20;

/// Reads the tokenizer of the checkpoint in `dir` into `plan`.
pub(super) fn read(dir: &Path, config: &Document, plan: &mut Plan) -> Result<(), FormatError> {
    let rows = config.count("vocab_size", 1..=MAX_VOCAB)?;
    let tokenizer = Document::open(&dir.join("tokenizer.json"))?;
    let settings = Document::open_if_present(&dir.join("tokenizer_config.json"))?;
    if tokenizer.value("model.type").is_some_and(|kind| kind != "BPE") {
        return Err(tokenizer.wrong("model.type", "BPE"));
    }
    for affix in ["model.continuing_subword_prefix", "model.end_of_word_suffix"] {
        if tokenizer.value(affix).is_some_and(|affix| affix != "") {
            return Err(tokenizer.wrong(affix, "none"));
        }
    }
    let mut vocabulary = Vocabulary::read(&tokenizer, rows)?;
    if sentence_piece::is_meant(&tokenizer)? {
        sentence_piece::put(&tokenizer, &mut vocabulary, plan)?;
    } else {
        byte_level::put(&tokenizer, plan)?;
    }
    for (key, kind) in [
        ("tokenizer.ggml.bos_token_id", "bos"),
        ("tokenizer.ggml.eos_token_id", "eos"),
        ("tokenizer.ggml.padding_token_id", "pad"),
    ] {
        if let Some(id) = special(kind, settings.as_ref(), config, &vocabulary)? {
            plan.put(key, id);
        }
    }
    // Without a flag the template that builds sequences tells: it begins with a special token or with the text.
    let template = tokenizer.value("post_processor.single.0.SpecialToken").is_some();
    let add_bos = settings.as_ref().map_or(Ok(template), |settings| settings.flag_or("add_bos_token", template))?;
    plan.put("tokenizer.ggml.add_bos_token", add_bos);
    if let Some(template) = chat_template(dir, settings.as_ref())? {
        plan.put("tokenizer.chat_template", template);
    }
    plan.put("tokenizer.ggml.tokens", vocabulary.texts());
    plan.put("tokenizer.ggml.token_type", vocabulary.types());
    Ok(())
}

/// The steps of a pipeline: `field` is one, or a sequence that keeps them in its field `inner`.
fn steps<'a>(tokenizer: &'a Document, field: &str, inner: &str) -> Result<&'a [Value], FormatError> {
    let list = format!("{field}.{inner}");
    match tokenizer.value(&list) {
        Some(_) => tokenizer.list(&list),
        None => Ok(tokenizer.value(field).map_or(&[][..], std::slice::from_ref)),
    }
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
            config.count(&field, 0..=vocabulary.len().saturating_sub(1))?
        }
    };
    Ok(u32::try_from(id).ok())
}

/// The chat template: a file of its own in newer checkpoints, else text in `tokenizer_config.json`.
fn chat_template(dir: &Path, settings: Option<&Document>) -> Result<Option<String>, FormatError> {
    // Mapped, so that nothing is read of a file that is too long; the copy is what is checked.
    match map::load(&dir.join(TEMPLATE), Load::Map) {
        Ok(bytes) => {
            let (what, found) = ("length of chat_template.jinja", bytes.len() as u64);
            if found > MAX_TEMPLATE {
                return Err(FormatError::OutOfRange { what, offset: 0, found, min: 0, max: MAX_TEMPLATE });
            }
            let text = String::from_utf8(bytes.to_vec());
            return text.map(Some).map_err(|_| FormatError::NotUtf8 { what: TEMPLATE, offset: 0 });
        }
        Err(FormatError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let Some(settings) = settings.filter(|settings| settings.value("chat_template").is_some()) else {
        return Ok(None);
    };
    settings.text("chat_template").map(|template| Some(template.to_owned()))
}
