//! `halfbyte perplexity`: how well a model predicts a text.
//!
//! The text is cut into windows of `ctx` tokens that overlap by half. The first window scores every token but its
//! first, each later one those tokens the window before did not reach: so every token but the first of the text is
//! scored exactly once, with at least `ctx / 2` tokens before it once there are as many.
//!
//! nll = −Σ ln p(token | tokens before it in its window), ppl = exp(nll / scored), bits per byte = nll / (ln 2 ·
//! bytes). The last does not depend on the vocabulary, so it compares models.

use std::{
    fmt,
    io::{self, Write},
    path::PathBuf,
};

use anyhow::Context;
use halfbyte::{RuntimeError, Session, text::Special};
use serde::Serialize;

use crate::{
    args::{self, ComputeArgs, KvArg, ModelArg},
    console,
};

/// Context when none is asked for, unless the model's own is shorter.
const DEFAULT_CONTEXT: usize = 512;
/// One token to predict, and one to predict it from.
const MIN_CONTEXT: usize = 2;

const EXAMPLES: &str = "Examples:
  halfbyte perplexity model.gguf --file valid.txt
  halfbyte perplexity tiny-mimo --file valid.txt --ctx 256 --json

--json prints {\"tokens\", \"bytes\", \"nll\", \"ppl\", \"bits_per_byte\"}: tokens scored,
bytes of the file, the sum of their negative log-likelihoods in nats,
exp(nll / tokens), and nll / (ln 2 * bytes).";

/// Which text, and how it is cut.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArg,
    /// The text, UTF-8; - is stdin
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Tokens of a window [default: 512, or the model's limit if that is less]
    #[arg(long, value_name = "N", value_parser = args::context(MIN_CONTEXT as u64))]
    ctx: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    kv: KvArg,
    #[command(flatten)]
    compute: ComputeArgs,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let text = args::read_text(&args.file)?;
    let model = args.model.model.open(&args.compute.load_options())?;
    let tokenizer = model
        .tokenizer()
        .ok_or(RuntimeError::NoVocabulary)
        .with_context(|| format!("cannot use {}", args.model.model))?;
    let bos = tokenizer.bos().filter(|_| tokenizer.add_bos());
    let mut tokens: Vec<u32> = bos.into_iter().collect();
    tokens.extend(tokenizer.encode(&text, Special::AsText));
    anyhow::ensure!(tokens.len() >= 2, "{} has fewer than two tokens", args::text_name(&args.file));

    let limit = model.config().context;
    anyhow::ensure!(limit >= MIN_CONTEXT, "a context of {limit} tokens has nothing to predict from");
    let context = args.ctx.unwrap_or(DEFAULT_CONTEXT.min(limit));
    let mut options = args.kv.session_options();
    options.context = Some(context);
    let mut session = args::session(&model, &options)?;

    let bar = console::progress(tokens.len() as u64 - 1, "tokens");
    let (mut nll, mut scored) = (0.0, 1);
    for start in (0..).step_by(context / 2) {
        let end = tokens.len().min(start + context);
        nll += score(&mut session, &tokens[start..end], scored - start)?;
        scored = end;
        bar.set_position(scored as u64 - 1);
        if scored == tokens.len() {
            break;
        }
    }
    bar.finish_and_clear();

    let report = Report::new(nll, scored - 1, text.len());
    let line = if args.json { serde_json::to_string(&report)? } else { report.to_string() };
    Ok(writeln!(io::stdout(), "{line}")?)
}

/// Negative log-likelihood, in nats, of `window[from..]`, each token given all before it in the window; `from > 0`.
fn score(session: &mut Session, window: &[u32], from: usize) -> anyhow::Result<f64> {
    // The logits of one position score the next: those before `from - 1` and those of the last are of no use.
    let (given, scoring) = (&window[..from - 1], &window[from - 1..window.len() - 1]);
    session.truncate(0);
    session.push_tokens(given)?;
    let mut nll = 0.0;
    session.push_tokens_with(scoring, |index, logits| nll += surprise(logits, window[from + index]))?;
    anyhow::ensure!(nll.is_finite(), "the logits are not finite: the weights are damaged");
    Ok(nll)
}

/// −ln of the probability that a softmax of `logits` gives `token`.
fn surprise(logits: &[f32], token: u32) -> f64 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - max).exp()).sum();
    let logit = logits.get(token as usize).map_or(f64::NAN, |&logit| f64::from(logit));
    max + sum.ln() - logit
}

#[derive(Serialize)]
struct Report {
    tokens: usize,
    bytes: usize,
    nll: f64,
    ppl: f64,
    bits_per_byte: f64,
}

impl Report {
    fn new(nll: f64, tokens: usize, bytes: usize) -> Self {
        let ppl = (nll / tokens as f64).exp();
        Self { tokens, bytes, nll, ppl, bits_per_byte: nll / std::f64::consts::LN_2 / bytes as f64 }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tokens, bytes, nll, ppl, bits_per_byte } = self;
        write!(f, "perplexity {ppl:.4} | {bits_per_byte:.4} bits/byte | ")?;
        write!(f, "{tokens} tokens scored, {bytes} bytes, nll {nll:.2} nats")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surprise_is_the_negative_log_of_the_softmax() {
        let logits = [1.0, 3.0, 2.0, -1.0];
        let total: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
        for (token, &logit) in logits.iter().enumerate() {
            let expected = -(f64::from(logit).exp() / total).ln();
            assert!((surprise(&logits, token as u32) - expected).abs() < 1e-12);
        }
        // Where a naive exponential would overflow.
        assert!((surprise(&[1e4, 1e4], 0) - std::f64::consts::LN_2).abs() < 1e-12);
        assert!(surprise(&[f32::NAN, 0.0], 1).is_nan());
    }
}
