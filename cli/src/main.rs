//! `halfbyte`: run, measure, inspect and convert language models from the command line.
//!
//! This crate is the only place where arguments are parsed and terminals are written to; the libraries take options
//! and return values. Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 misused.

mod args;
mod bundled;
mod commands;
mod console;
mod output;
mod source;

use std::{io, process::ExitCode};

use clap::{ArgAction, Parser};

/// Run language models on phones and small CPUs.
#[derive(Parser)]
#[command(name = "halfbyte", version, propagate_version = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: commands::Command,
    /// Print what is going on and how long it took to stderr; twice for every step.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

const EXAMPLES: &str = "Examples:
  halfbyte run -p \"Once upon a time\"            continue a text with a bundled model
  halfbyte run model.gguf -f story.txt -n 200   continue a file
  halfbyte chat model.gguf                      talk to a model
  halfbyte inspect model.gguf                   see what is in a file
  halfbyte bench model.gguf                     measure it on this machine

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C. Errors go
to stderr.";

fn main() -> ExitCode {
    let cli = Cli::parse();
    console::trace(cli.verbose);
    match commands::run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough: `halfbyte … | head`.
        Err(error) if stdout_closed(&error) => ExitCode::SUCCESS,
        Err(error) => {
            console::report(&error);
            ExitCode::FAILURE
        }
    }
}

fn stdout_closed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
