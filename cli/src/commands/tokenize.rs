//! `halfbyte tokenize`: text to token ids, as the vocabulary of a model file has them.
//!
//! Only the vocabulary is looked at, so files that hold nothing else do as well.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use anyhow::Context;
use halfbyte::text::{Special, Tokenizer};

use crate::args::{self, ModelArg, VocabularyArgs};

const EXAMPLES: &str = "Examples:
  halfbyte tokenize model.gguf --text \"Once upon a time\"
  halfbyte tokenize vocab.gguf --file story.txt
  date | halfbyte tokenize vocab.gguf --file -

Prints a JSON array. No begin-of-sequence token is added.";

/// Which text.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    input: Input,
    /// Let the names of special tokens in the text stand for these tokens
    #[arg(long)]
    special: bool,
    #[command(flatten)]
    vocabulary: VocabularyArgs,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Input {
    /// The text
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    text: Option<String>,
    /// Read the text from a file; - is stdin
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let text = match (args.input.text, args.input.file) {
        (_, Some(path)) => args::read_text(&path)?,
        (text, None) => text.unwrap_or_default(),
    };
    let file = args.model.model.gguf()?;
    let tokenizer = Tokenizer::from_metadata_with(file.metadata(), &args.vocabulary.options())
        .with_context(|| format!("cannot use the vocabulary of {}", args.model.model))?;
    let special = if args.special { Special::Parse } else { Special::AsText };
    let ids = tokenizer.encode(&text, special);
    Ok(writeln!(io::stdout(), "{}", serde_json::to_string(&ids)?)?)
}
