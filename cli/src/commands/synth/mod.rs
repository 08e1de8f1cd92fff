//! `halfbyte synth`: a model of real size with random weights, to test and measure with where no real one is.
//!
//! The file is what a converter would have written, but for the numbers: full blocks everywhere, no two the same, no
//! hole in the file. Numbers are scaled so that activations stay finite through all layers.

mod layout;
mod preset;
mod vocab;
mod weights;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use halfbyte_formats::{gguf::GgufWriter, gguf::Value, quant::Mix};

use self::{
    layout::Planned,
    preset::{Family, Part, Preset},
    weights::{Random, Weights},
};
use crate::{
    args,
    output::{self, OutputArgs, Rows, Written},
    source::Source,
};

const EXAMPLES: &str = "Presets:
  mimo-7b       36 layers of 4096, 151680 tokens: 4.4 GB as q4_0
  qwen2-0.5b    24 layers of 896, 151936 tokens: 0.4 GB as q4_0
  phi-4         40 layers of 5120, 100352 tokens: 8.4 GB as q4_0
  phi-4-mini    32 layers of 3072, 200064 tokens: 2.3 GB as q4_0
  phi-mini-moe  32 layers of 4096, 16 experts, 32064 tokens: 4.3 GB as q4_0
  qwen2-tiny, phi3-tiny, phimoe-tiny
                2 layers of 256, 1024 tokens: 1 MB as q4_0, for tests

Examples:
  halfbyte synth mimo-7b mimo.gguf
  halfbyte synth mimo-7b mimo.gguf --type q4_k_m --vocab qwen2.gguf
  halfbyte synth mimo-7b mimo.gguf --mtp mtp-mimo.gguf";

/// Arguments of `synth`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The shape of the model, see below
    #[arg(value_name = "PRESET", value_parser = Preset::find)]
    preset: &'static Preset,
    #[command(flatten)]
    output: OutputArgs,
    /// Number format
    #[arg(long = "type", value_name = "TYPE", default_value = "q4_0", value_parser = output::mix(), ignore_case = true)]
    mix: Mix,
    /// Take the vocabulary of this model, padded or cut to the size the preset has
    #[arg(long, value_name = "MODEL")]
    vocab: Option<Source>,
    /// Also write a multi-token-prediction layer to this file
    #[arg(long, value_name = "FILE")]
    mtp: Option<PathBuf>,
    /// The same seed gives the same file
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = |text: &str| args::whole(text, 0, u64::MAX))]
    seed: u64,
}

/// Runs `synth`.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let Args { preset, output, mix, vocab, mtp, seed } = args;
    output.check(mtp.as_deref())?;
    if mtp.is_some() && !matches!(preset.family, Family::Qwen2) {
        bail!("--mtp: {} has no multi-token-prediction layer", preset.name);
    }
    let vocabulary = match &vocab {
        Some(source) => {
            let file = source.gguf()?;
            vocab::fit(file.metadata(), preset.vocab)
                .with_context(|| format!("cannot take the vocabulary of {source}"))?
        }
        None => Vec::new(),
    };
    let (out, mtp) = output.begin(mtp)?;
    let recipe = Recipe { preset, mix, seed };
    recipe.write(Part::Trunk, &out, vocabulary)?;
    if let Some(path) = &mtp {
        recipe.write(Part::Mtp, path, Vec::new())?;
    }
    Ok(())
}

/// What decides every byte of a file but its vocabulary.
struct Recipe {
    preset: &'static Preset,
    mix: Mix,
    seed: u64,
}

impl Recipe {
    fn write(&self, part: Part, path: &Path, vocabulary: Vec<(String, Value)>) -> anyhow::Result<()> {
        let &Self { preset, mix, seed } = self;
        let mut writer = GgufWriter::new();
        let file_type = mix.file_type().unwrap_or_default();
        for (key, value) in preset.metadata(part, file_type).into_iter().chain(vocabulary) {
            writer.put(&key, value)?;
        }
        let ty = |tensor: &Planned| mix.tensor_type(&tensor.name, &tensor.dims, preset.traits());
        let tensors = preset.tensors(part);
        let mut total = 0;
        for tensor in &tensors {
            writer.declare(&tensor.name, &tensor.dims, ty(tensor))?;
            total += Rows::new(&tensor.dims, ty(tensor))?.bytes();
        }
        let mut file = writer.create(path)?;
        let mut written = Written::new(total);
        // Tensors of the second file are numbered on from those of the first, so that no two have the same numbers.
        let first = if part == Part::Mtp { preset.tensors(Part::Trunk).len() } else { 0 };
        for (number, tensor) in (first..).zip(&tensors) {
            let rows = Rows::new(&tensor.dims, ty(tensor))?;
            let weights = Weights::new(ty(tensor), tensor.init, tensor.dims.first().copied().unwrap_or(1))?;
            output::write_rows(&mut file, &tensor.name, rows, &mut written, |row, bytes| {
                weights.fill(&mut Random::new(seed, number, row), bytes)
            })?;
        }
        file.finish()?;
        written.finish(path)?;
        Ok(())
    }
}
