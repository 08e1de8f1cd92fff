//! Making the vocabulary of one file fit a model with another number of rows.
//!
//! All `tokenizer.*` keys are copied. Rows that are missing become unused tokens called `[PADn]`, as converters write
//! them; tokens that are too many go, and with them everything that speaks of them.

use std::{borrow::Cow, collections::HashSet};

use anyhow::Context;
use halfbyte_formats::gguf::{Array, Metadata, Strings, Value};

const TOKENS: &str = "tokenizer.ggml.tokens";
const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";
/// The type of a token that no text contains.
const UNUSED: i32 = 5;
/// The score of such a token.
const UNUSED_SCORE: f32 = -1000.0;

/// The `tokenizer.*` entries of `metadata`, for exactly `rows` tokens.
pub(super) fn fit(metadata: &Metadata, rows: usize) -> anyhow::Result<Vec<(String, Value)>> {
    let tokens = metadata.strings(TOKENS)?.with_context(|| format!("there is no vocabulary: no {TOKENS}"))?;
    let kept: HashSet<&str> = tokens.iter().take(rows).collect();
    let cut = tokens.len() > rows;
    let mut entries = Vec::new();
    for (key, value) in metadata.iter().filter(|(key, _)| key.starts_with("tokenizer.")) {
        let fitted = match key {
            TOKENS => {
                let padding = (tokens.len()..rows).map(|id| Cow::Owned(format!("[PAD{id}]")));
                tokens.iter().take(rows).map(Cow::Borrowed).chain(padding).collect::<Strings>().into()
            }
            TOKEN_TYPE => {
                let types = metadata.usizes(key)?.unwrap_or_default();
                let types = types.iter().take(rows).map(|&ty| i32::try_from(ty));
                let mut types = types.collect::<Result<Vec<_>, _>>().with_context(|| format!("cannot read {key}"))?;
                types.resize(rows, UNUSED);
                types.into()
            }
            SCORES => {
                let mut scores = metadata.f32s(key)?.unwrap_or_default().into_owned();
                scores.resize(rows, UNUSED_SCORE);
                scores.into()
            }
            MERGES if cut => {
                let merges = metadata.strings(key)?.into_iter().flat_map(Strings::iter);
                merges.filter(|merge| is_kept(merge, &kept)).collect::<Strings>().into()
            }
            _ if key.ends_with("_token_id") && value.integer().is_some_and(|id| id < 0 || id >= rows as i128) => {
                continue;
            }
            _ => value.clone(),
        };
        entries.push((key.to_owned(), fitted));
    }
    // Without types every token would count as a normal one, the padding too.
    if metadata.value(TOKEN_TYPE).is_none() {
        let mut types = vec![1; rows.min(tokens.len())];
        types.resize(rows, UNUSED);
        entries.push((TOKEN_TYPE.to_owned(), Value::Array(Array::I32(types))));
    }
    Ok(entries)
}

/// Whether both parts of a merge, "left right", and what it makes are among the tokens `kept`.
fn is_kept(merge: &str, kept: &HashSet<&str>) -> bool {
    // The separator is the first space after byte 0: a part may begin with one.
    let space = merge.bytes().skip(1).position(|byte| byte == b' ').map(|at| at + 1);
    let Some((left, right)) = space.and_then(|at| Some((merge.get(..at)?, merge.get(at + 1..)?))) else {
        return false;
    };
    kept.contains(left) && kept.contains(right) && kept.contains(format!("{left}{right}").as_str())
}
