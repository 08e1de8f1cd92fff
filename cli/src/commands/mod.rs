//! The commands, one file each: its arguments, its help, and what it does.

mod bench;
mod chat;
mod completions;
mod convert;
mod inspect;
mod logits;
mod pack;
mod perplexity;
mod prefix;
mod quantize;
mod run;
mod synth;
mod tokenize;

use clap::Subcommand;

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Continue a text.
    Run(run::Args),
    /// Talk to a model.
    Chat(chat::Args),
    /// Measure speed and memory on this machine.
    Bench(bench::Args),
    /// Print the logits after each of some tokens.
    Logits(logits::Args),
    /// Turn text into token ids.
    Tokenize(tokenize::Args),
    /// Measure how well a model predicts a text.
    Perplexity(perplexity::Args),
    /// Show what is in a model file.
    Inspect(inspect::Args),
    /// Write a model with random weights, for tests and measurements.
    Synth(synth::Args),
    /// Write a model in another number format.
    Quantize(quantize::Args),
    /// Write a model laid out as it is computed with.
    Pack(pack::Args),
    /// Keep what a model has made of a prompt in a file.
    Prefix(prefix::Args),
    /// Turn a Hugging Face directory into a GGUF file.
    Convert(convert::Args),
    /// Print a completion script for a shell.
    Completions(completions::Args),
}

/// Does it.
pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run(args) => run::run(args),
        Command::Chat(args) => chat::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Logits(args) => logits::run(args),
        Command::Tokenize(args) => tokenize::run(args),
        Command::Perplexity(args) => perplexity::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Synth(args) => synth::run(args),
        Command::Quantize(args) => quantize::run(args),
        Command::Pack(args) => pack::run(args),
        Command::Prefix(args) => prefix::run(args),
        Command::Convert(args) => convert::run(args),
        Command::Completions(args) => completions::run(args),
    }
}
