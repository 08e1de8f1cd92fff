//! `halfbyte pack`: a GGUF file with its weights laid out as they are multiplied.
//!
//! Values stay what they are; rows of a matrix are put side by side, sixteen at a time. Which tensors, and how, is the
//! library's business ([`PackPlan`]). Memory does not depend on the size of the model.

use anyhow::{Context, bail};
use halfbyte::PackPlan;

use crate::{
    console,
    output::{self, OutputArgs, Rows, Written},
    source::Source,
};

const EXAMPLES: &str =
    "A packed model is faster: its file is used as it is, nothing is rearranged while it runs. What it computes is
the same to the bit, but on scalar and portable. It has the same size but for up to 64 KiB a matrix, and only
halfbyte reads it: keep the original.

Packed are matrices in q4_0, q5_0, q8_0, q4_k, q5_k and q6_k; others stay as they are. A file with a
multi-token-prediction layer is packed like its model.

Examples:
  halfbyte pack model-q4_0.gguf model-packed.gguf
  halfbyte pack mtp-model-q4_0.gguf mtp-model-packed.gguf
  halfbyte run model-packed.gguf -p \"Once upon a time\"";

/// Arguments of `pack`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The model to read: a GGUF file, or the name of a bundled model
    #[arg(value_name = "IN")]
    input: Source,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs `pack`.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let Args { input, output } = args;
    if let Source::File(path) = &input {
        output.check_not(path)?;
    }
    output.check(None)?;
    let file = input.gguf()?;
    let plan = PackPlan::new(&file).with_context(|| format!("cannot pack {input}"))?;
    let packed = plan.steps().iter().filter(|step| step.panels().is_some()).count();
    if packed == 0 {
        bail!("nothing in {input} can be packed: quantize it first");
    }
    let rows = |step: &halfbyte::PackStep<'_>| Rows { count: step.count(), row_bytes: step.len_bytes() };
    let mut written = Written::new(plan.steps().iter().map(|step| rows(step).bytes()).sum());
    let (out, _) = output.begin(None)?;
    let mut target = plan.head()?.create(&out)?;
    for step in plan.steps() {
        output::write_rows(&mut target, step.name(), rows(step), &mut written, |piece, bytes| step.fill(piece, bytes))?;
    }
    target.finish()?;
    written.finish(&out)?;
    let left = file.tensors().iter().filter(|tensor| tensor.dims.len() > 1).count() - packed;
    if left > 0 {
        console::note(&format!("({packed} matrices are packed, {left} stay as they were)"));
    }
    Ok(())
}
