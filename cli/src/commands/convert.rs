//! `halfbyte convert`: a Hugging Face directory as a GGUF file, and a second one for its multi-token-prediction layer.

use std::{path::PathBuf, time::Instant};

use anyhow::{Context, bail};
use halfbyte_formats::{
    import::{Checkpoint, Progress},
    quant::Mix,
};

use crate::{
    console,
    output::{self, OutputArgs},
    source,
};

const EXAMPLES: &str =
    "A directory holds config.json, tokenizer.json and *.safetensors, as Qwen2, MiMo, Phi-3, Phi-4 and Phi-MoE models
have them.

Examples:
  halfbyte convert MiMo-7B-RL mimo.gguf                writes mimo.gguf and mtp-mimo.gguf
  halfbyte convert Qwen2-0.5B qwen2.gguf --type q8_0
  halfbyte convert Phi-mini-MoE-instruct phi-moe.gguf --type q4_k_m";

/// Arguments of `convert`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The directory of the model
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
    /// Number format; quantize --help tells them apart
    #[arg(long = "type", value_name = "TYPE", default_value = "bf16", value_parser = output::mix(), ignore_case = true)]
    mix: Mix,
    /// Where the multi-token-prediction layer goes, if the model has one [default: mtp-OUT, beside OUT]
    #[arg(long, value_name = "FILE")]
    mtp: Option<PathBuf>,
}

/// Runs `convert`.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let Args { dir, output, mix, mtp } = args;
    output.check(mtp.as_deref())?;
    let checkpoint = Checkpoint::open(&dir).with_context(|| format!("cannot read the model in {}", dir.display()))?;
    let mtp = match mtp {
        Some(path) if !checkpoint.has_mtp() => {
            bail!("nothing to write to {}: the model has no multi-token-prediction layer", path.display())
        }
        Some(path) => Some(path),
        None if checkpoint.has_mtp() => source::sidecar(&output.out),
        None => None,
    };
    output.check(mtp.as_deref())?;
    let (out, mtp) = output.begin(mtp)?;
    let start = Instant::now();
    checkpoint.write(&out, mix, tensors())?;
    output::wrote(&out, start)?;
    if let Some(path) = mtp {
        let start = Instant::now();
        checkpoint.write_mtp(&path, mix, tensors())?;
        output::wrote(&path, start)?;
    }
    Ok(())
}

/// Shows tensors on a bar as they are written.
fn tensors() -> impl FnMut(Progress<'_>) {
    let mut shown = console::steps("tensors");
    move |step| shown(step.done, step.total)
}
