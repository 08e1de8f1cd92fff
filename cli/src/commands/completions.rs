//! `halfbyte completions`: a script that teaches a shell to complete our arguments.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;

const EXAMPLES: &str = "Examples:
  halfbyte completions bash > ~/.local/share/bash-completion/completions/halfbyte
  halfbyte completions fish > ~/.config/fish/completions/halfbyte.fish";

/// Which shell.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The shell the script is for.
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    // Into memory first: `generate` panics when its sink is closed.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::Cli::command(), "halfbyte", &mut script);
    Ok(io::stdout().write_all(&script)?)
}
