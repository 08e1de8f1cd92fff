//! Byte-level BPE: ranked merges, and a regular expression that cuts text into pieces first.
//!
//! GGUF names that expression instead of storing it, so it must be one we know; another one would silently give
//! other tokens.

use serde_json::Value;

use super::{Document, FormatError, Plan, Strings, parts, steps};

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

/// Puts the keys of this kind of vocabulary.
pub(super) fn put(tokenizer: &Document, plan: &mut Plan) -> Result<(), FormatError> {
    plan.put("tokenizer.ggml.model", "gpt2");
    plan.put("tokenizer.ggml.pre", pre_tokenizer(tokenizer)?);
    plan.put("tokenizer.ggml.merges", merges(tokenizer)?);
    Ok(())
}

/// The name of the split expression.
fn pre_tokenizer(tokenizer: &Document) -> Result<&'static str, FormatError> {
    let steps = steps(tokenizer, "pre_tokenizer", "pretokenizers")?;
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
