//! `halfbyte logits`: what the model thinks after each of some tokens, for comparison with other programs.

use std::{
    ffi::{OsStr, OsString},
    io::{self, Write},
    path::Path,
};

use anyhow::{Context, ensure};
use clap::builder::{OsStringValueParser, TypedValueParser};
use halfbyte::RuntimeError;

use crate::args::{self, ComputeArgs, KvArg, ModelArg};

const EXAMPLES: &str = "Examples:
  halfbyte logits model.gguf --tokens 9707,11,1879
  halfbyte tokenize model.gguf --text \"Hello\" > ids
  halfbyte logits model.gguf --tokens @ids --kv f32

Prints one JSON array a line, one line a token; numbers are written so that
reading them as f32 gives the same bits. With --mtp the lines belong to the
tokens from the second on.";

/// Which tokens.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArg,
    /// Token ids with commas or blanks between them, or @FILE to read them from a file
    #[arg(long, value_name = "IDS", value_parser = OsStringValueParser::new().try_map(Tokens::read))]
    tokens: Tokens,
    /// Print what the multi-token-prediction layer says instead (found inside MODEL, or beside it as mtp-MODEL)
    #[arg(long)]
    mtp: bool,
    #[command(flatten)]
    kv: KvArg,
    #[command(flatten)]
    compute: ComputeArgs,
}

/// At least one token id.
#[derive(Clone)]
struct Tokens(Vec<u32>);

impl Tokens {
    /// The message says all: clap shows no causes.
    fn read(text: OsString) -> Result<Self, String> {
        let tokens = match after_at(&text) {
            None => Self::parse(&text.to_string_lossy()),
            Some(path) => args::read_text(path).and_then(|text| Self::parse(&text)),
        };
        tokens.map_err(|error| format!("{error:#}"))
    }

    /// Also takes what `tokenize` prints.
    fn parse(text: &str) -> anyhow::Result<Self> {
        let separator = |c: char| c == ',' || c.is_whitespace() || c == '[' || c == ']';
        let ids = text.split(separator).filter(|part| !part.is_empty());
        let ids: Vec<u32> = ids
            .map(|part| part.parse().with_context(|| format!("{part:?} is not a token id")))
            .collect::<Result<_, _>>()?;
        ensure!(!ids.is_empty(), "no token ids");
        Ok(Self(ids))
    }
}

/// The path in `@PATH`, which need not be text.
fn after_at(text: &OsStr) -> Option<&Path> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        text.as_bytes().strip_prefix(b"@").map(|path| Path::new(OsStr::from_bytes(path)))
    }
    #[cfg(not(unix))]
    text.to_str().and_then(|text| text.strip_prefix('@')).map(Path::new)
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let (source, load) = (args.model.model, args.compute.load_options());
    let model = if args.mtp { source.open_with_mtp(&load)? } else { source.open(&load)? };
    let Tokens(tokens) = args.tokens;
    let (count, limit) = (tokens.len(), model.config().context);
    ensure!(count <= limit, "{count} tokens are too many: this model has a context of at most {limit}");
    let mut options = args.kv.session_options();
    options.context = Some(tokens.len());
    let mut session = model.session(&options)?;

    let mut stdout = io::BufWriter::new(io::stdout().lock());
    let mut written = Ok(());
    let cancel = session.cancel_token();
    let each = |position: usize, logits: &[f32]| {
        if written.is_ok() {
            written = line(&mut stdout, position, logits);
            if written.is_err() {
                cancel.cancel();
            }
        }
    };
    let done = if args.mtp { session.mtp_logits(&tokens, each) } else { session.push_tokens_with(&tokens, each) };
    // If writing failed, that is why the session was cancelled.
    written?;
    done?;
    Ok(stdout.flush()?)
}

/// Writes one row. JSON cannot say NaN, and a row that holds one is worthless.
fn line(out: &mut impl Write, position: usize, logits: &[f32]) -> anyhow::Result<()> {
    if !logits.iter().all(|logit| logit.is_finite()) {
        return Err(RuntimeError::NonFiniteLogits { position }.into());
    }
    let mut text = serde_json::to_vec(logits)?;
    text.push(b'\n');
    Ok(out.write_all(&text)?)
}
