//! Hugging Face directories to GGUF files, tensor by tensor.
//!
//! A checkpoint is a directory: `config.json` (hyperparameters), `tokenizer.json`, and weights in one
//! `model.safetensors` or in shards that `model.safetensors.index.json` lists. [`Checkpoint::open`] reads and checks
//! everything but the weights' values; the architecture's module (`mimo`, `phi3`, `phimoe`) turns it into plans, one
//! per GGUF file. Writing streams: weights are mapped, decoded, quantised and written a few rows at a time, so memory
//! does not grow with the model.
//!
//! ```no_run
//! use halfbyte_formats::{FormatError, import::Checkpoint, quant::Mix};
//!
//! # fn main() -> Result<(), FormatError> {
//! let checkpoint = Checkpoint::open("MiMo-7B-RL")?;
//! checkpoint.write("mimo.gguf", Mix::Q4KM, |step| println!("{}/{} {}", step.done, step.total, step.tensor))?;
//! if checkpoint.has_mtp() {
//!     checkpoint.write_mtp("mtp-mimo.gguf", Mix::Q4KM, |_| {})?;
//! }
//! # Ok(())
//! # }
//! ```

mod config;
mod document;
mod mimo;
mod phi3;
mod phimoe;
mod plan;
mod rope;
mod tokenizer;
mod weights;

use std::path::Path;

use crate::{FormatError, quant::Mix};
use document::Document;
use plan::Plan;
use weights::Weights;

/// What a checkpoint may be, for a message.
const ARCHITECTURES: &str = "Qwen2ForCausalLM, MiMoForCausalLM, Phi3ForCausalLM or PhiMoEForCausalLM";

/// A checkpoint whose every field, token and tensor shape has been checked.
#[derive(Debug)]
pub struct Checkpoint {
    trunk: Plan,
    mtp: Option<Plan>,
}

/// How far the writing of a file has come.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// The tensor just written.
    pub tensor: &'a str,
    /// Tensors written so far, this one included.
    pub done: usize,
    /// Tensors in the file.
    pub total: usize,
}

impl Checkpoint {
    /// Reads the directory `dir`. The weights are mapped, not read.
    ///
    /// # Errors
    /// [`FormatError::Io`] if a file that must be there cannot be opened, [`FormatError::Json`] and
    /// [`FormatError::Safetensors`] if one is malformed, [`FormatError::CheckpointField`] for a value that is missing,
    /// out of range or not supported, [`FormatError::PreTokenizer`] for an unknown way to split text,
    /// [`FormatError::MissingTensor`], [`FormatError::TensorShape`], [`FormatError::TensorElement`],
    /// [`FormatError::DuplicateTensor`] and [`FormatError::UnusedTensors`] if the weights are not those of the
    /// architecture.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, FormatError> {
        let dir = dir.as_ref();
        let config = Document::open(&dir.join("config.json"))?;
        let architecture = config.text("architectures.0")?;
        // Decided first: weights are a long download.
        let plan: fn(&Document, &mut Weights) -> Result<_, FormatError> = match architecture {
            "Qwen2ForCausalLM" | "MiMoForCausalLM" => mimo::plan,
            "Phi3ForCausalLM" => |config, weights| Ok((phi3::plan(config, weights)?, None)),
            "PhiMoEForCausalLM" | "PhimoeForCausalLM" => |config, weights| Ok((phimoe::plan(config, weights)?, None)),
            _ => return Err(config.wrong("architectures.0", ARCHITECTURES)),
        };
        let mut weights = Weights::open(dir)?;
        let (mut trunk, mtp) = plan(&config, &mut weights)?;
        weights.finish()?;
        // Models have no name inside the directory; the directory's own is the best there is.
        let name = dir.canonicalize().ok().and_then(|dir| Some(dir.file_name()?.to_str()?.to_owned()));
        let name = name.unwrap_or_else(|| architecture.to_owned());
        trunk.put("general.name", name.clone());
        let mtp = mtp.map(|mut mtp| {
            mtp.put("general.name", name);
            mtp
        });
        tokenizer::read(dir, &config, &mut trunk)?;
        Ok(Self { trunk, mtp })
    }

    /// Whether the checkpoint has a multi-token-prediction layer.
    pub fn has_mtp(&self) -> bool {
        self.mtp.is_some()
    }

    /// Writes the model without its multi-token-prediction layer, which other readers of GGUF do not know.
    ///
    /// `progress` is called after each tensor. Whatever is at `path` stays until the new file is complete.
    ///
    /// # Errors
    /// [`FormatError::InTensor`] around [`FormatError::Unencodable`] if a weight is not a number or too large for its
    /// format, around [`FormatError::NoEncoder`] if `mix` asks for a format that is only read; [`FormatError::Io`] if
    /// the file cannot be written.
    pub fn write(
        &self,
        path: impl AsRef<Path>,
        mix: Mix,
        progress: impl FnMut(Progress<'_>),
    ) -> Result<(), FormatError> {
        self.trunk.write(path.as_ref(), mix, progress)
    }

    /// Writes the multi-token-prediction layer to a file of its own, by custom called `mtp-` and the model's name.
    ///
    /// # Errors
    /// As [`write`](Self::write), and [`FormatError::NoMtpLayer`] if [`has_mtp`](Self::has_mtp) is false.
    pub fn write_mtp(
        &self,
        path: impl AsRef<Path>,
        mix: Mix,
        progress: impl FnMut(Progress<'_>),
    ) -> Result<(), FormatError> {
        self.mtp.as_ref().ok_or(FormatError::NoMtpLayer)?.write(path.as_ref(), mix, progress)
    }
}
