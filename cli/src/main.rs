//! `halfbyte`: run, measure, inspect and convert language models from the command line.
//!
//! This crate is the only place where arguments are parsed and terminals are written to; the libraries take options
//! and return values. Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 misused, 130
//! stopped by Ctrl-C, and as shells have them 143 and 129, ended by SIGTERM and SIGHUP.

mod args;
mod bundled;
mod commands;
mod console;
mod output;
mod prefixes;
mod signals;
mod source;
mod typed;

use std::{
    io::{self, ErrorKind},
    process::ExitCode,
};

use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches, Parser};

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

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C, 143 ended by
SIGTERM, 129 by SIGHUP. Errors go to stderr.";

fn main() -> ExitCode {
    let cli = Cli::from_arg_matches(&numbers(Cli::command()).get_matches()).unwrap_or_else(|error| error.exit());
    console::trace(cli.verbose);
    let done = commands::run(cli.command).map_err(|error| match error.downcast::<clap::Error>() {
        // Misused, as only all options together show.
        Ok(misused) => misused.exit(),
        Err(error) => error,
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match of_stdout(&error) {
            // Whoever read our output has seen enough: `halfbyte … | head`.
            Some(ErrorKind::BrokenPipe) => ExitCode::SUCCESS,
            kind => {
                console::report(&if kind.is_some() { error.context("cannot write to stdout") } else { error });
                ExitCode::FAILURE
            }
        },
    }
}

/// The same with options that may be given a negative number: those that have no use for it say so, each by its name.
fn numbers(command: Command) -> Command {
    let each = |arg: Arg| {
        let is_option = !arg.is_positional() && arg.get_action().takes_values();
        arg.allow_negative_numbers(is_option)
    };
    command.mut_args(each).mut_subcommands(numbers)
}

/// What the system said, without more, which only output does: whatever else is read or written says what it is.
fn of_stdout(error: &anyhow::Error) -> Option<ErrorKind> {
    error.chain().next()?.downcast_ref().map(io::Error::kind)
}
