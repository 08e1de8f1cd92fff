//! Shared pieces of the cross-crate tests: golden models, GGUF files taken apart, comparison of logits.

mod experts;
mod files;
mod golden;
mod parts;
mod requests;

pub use experts::{EXPERTS, experts_model};
pub use files::bundled;
#[cfg(target_os = "android")]
pub use files::written;
pub use golden::{Case, Golden, Truth};
pub use parts::{Part, Parts};
pub use requests::{Random, alone, random_request, read, tiny_mimo};

use std::fs;

use std::env;

use halfbyte::{Isa, KvType, LoadOptions, Model, RuntimeError, Session, SessionOptions};
use halfbyte_formats::gguf::Gguf;

/// The instruction sets this machine has, best first. With `BEST_TIER_ONLY` in the environment it is the best alone:
/// where every instruction is emulated, and other jobs run the others.
pub fn isas() -> impl Iterator<Item = Isa> {
    let count = if env::var_os("BEST_TIER_ONLY").is_some() { 1 } else { usize::MAX };
    Isa::available().take(count)
}

/// A model of `file` that computes with `threads` threads of `isa`.
///
/// # Errors
/// As [`Model::from_gguf`].
pub fn model_on(file: &Gguf, threads: usize, isa: Option<Isa>) -> Result<Model, RuntimeError> {
    Model::from_gguf(file, None, &options_on(threads, isa))
}

/// How to load a model that computes with `threads` threads of `isa`.
#[must_use]
pub fn options_on(threads: usize, isa: Option<Isa>) -> LoadOptions {
    let mut options = LoadOptions::default();
    options.threads = Some(threads);
    options.isa = isa;
    options
}

/// A session with keys and values of `kv`, whose prompts run `batch` tokens at a time.
///
/// # Errors
/// As [`Model::session`].
pub fn session_on(model: &Model, kv: KvType, batch: usize, context: usize) -> Result<Session, RuntimeError> {
    let mut options = SessionOptions::default();
    options.kv = kv;
    options.batch = batch;
    options.context = Some(context);
    model.session(&options)
}

/// The logits of every one of `tokens`, `(tokens, vocab)`, from an empty session.
///
/// # Errors
/// As [`Model::session`] and [`Session::push_tokens_with`].
pub fn logits_of(model: &Model, kv: KvType, batch: usize, tokens: &[u32]) -> Result<Vec<f32>, RuntimeError> {
    let mut session = session_on(model, kv, batch, tokens.len())?;
    let mut rows = Vec::with_capacity(tokens.len() * model.vocab());
    session.push_tokens_with(tokens, |index, logits| {
        assert_eq!(rows.len(), index * logits.len(), "rows come in order");
        rows.extend_from_slice(logits);
    })?;
    Ok(rows)
}

/// `|found - truth|² / |truth|²`, the normalised mean square error.
#[must_use]
pub fn nmse(found: &[f32], truth: &[f32]) -> f64 {
    assert_eq!(found.len(), truth.len(), "the same number of logits");
    let square = |value: f64| value * value;
    let error: f64 = found.iter().zip(truth).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    error / truth.iter().map(|&b| square(f64::from(b))).sum::<f64>()
}

/// The index of the largest element.
#[must_use]
pub fn argmax(logits: &[f32]) -> u32 {
    let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
    best.and_then(|index| u32::try_from(index).ok()).expect("logits")
}

/// The bits of `values`: for comparisons in which every one counts.
#[must_use]
pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// How often a test goes round that gets better by it: `default` times, or what `HALFBYTE_TEST_ROUNDS` says.
#[must_use]
pub fn rounds(default: usize) -> usize {
    match std::env::var("HALFBYTE_TEST_ROUNDS") {
        Ok(rounds) => rounds.parse().expect("HALFBYTE_TEST_ROUNDS is a number"),
        Err(_) => default,
    }
}

/// Whether an emulator runs this, many times slower than a machine would, and in memory of its own.
#[must_use]
pub fn is_emulated() -> bool {
    std::env::var_os("HALFBYTE_TEST_RUNNER").is_some()
}

/// A line of `/proc/self/smaps_rollup`, in bytes: `Rss`, `Anonymous` and others. What `/proc/self/status` says instead
/// may be late by 64 pages a thread. Nothing where there is no such file, or where it tells of an emulator's memory.
#[must_use]
pub fn memory(line: &str) -> Option<usize> {
    if is_emulated() {
        return None;
    }
    let text = fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    let found = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(':'))?;
    Some(found.trim().strip_suffix(" kB")?.parse::<usize>().ok()? << 10)
}
