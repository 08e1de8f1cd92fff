//! Arguments that several commands share, and how their values are read.
//!
//! A value that no model could accept is refused here, so that it is a usage error (exit code 2) and not a failure.

use std::str::FromStr;

use clap::builder::RangedU64ValueParser;
use halfbyte::{Isa, KvType, LoadOptions};

use crate::source::Source;

/// The model, which has to be named.
#[derive(clap::Args)]
pub(crate) struct ModelArg {
    /// A GGUF file, or the name of a bundled model (tiny-mimo).
    #[arg(value_name = "MODEL")]
    pub(crate) model: Source,
}

/// The model, or the bundled one.
#[derive(clap::Args)]
pub(crate) struct OptionalModelArg {
    /// A GGUF file, or the name of a bundled model [default: tiny-mimo]
    #[arg(value_name = "MODEL")]
    model: Option<Source>,
}

impl OptionalModelArg {
    /// Where the model comes from.
    pub(crate) fn source(self) -> Source {
        self.model.unwrap_or_default()
    }
}

/// What computes.
#[derive(clap::Args)]
pub(crate) struct ComputeArgs {
    /// Threads that compute [default: as many as there are processors].
    #[arg(long, value_name = "N", value_parser = count(256))]
    pub(crate) threads: Option<usize>,
    /// Use this instruction set instead of the best one this machine has.
    #[arg(long, value_name = "NAME", value_parser = isa)]
    pub(crate) isa: Option<Isa>,
}

impl ComputeArgs {
    /// As options for loading a model.
    pub(crate) fn load_options(&self) -> LoadOptions {
        let mut options = LoadOptions::default();
        options.threads = self.threads;
        options.isa = self.isa;
        options
    }
}

/// How keys and values are stored.
#[derive(clap::Args)]
pub(crate) struct KvArg {
    /// Store keys and values as f16 or, twice as large and exact, as f32.
    #[arg(long, value_name = "TYPE", default_value = "f16", value_parser = kv)]
    pub(crate) kv: KvType,
}

/// A number from 1 to `max`.
pub(crate) fn count(max: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=max)
}

/// An instruction set this machine has.
pub(crate) fn isa(name: &str) -> Result<Isa, String> {
    Isa::from_name(name).filter(|isa| Isa::available().contains(isa)).ok_or_else(|| {
        let names: Vec<&str> = Isa::available().iter().map(|isa| isa.name()).collect();
        format!("this machine has: {}", names.join(", "))
    })
}

fn kv(name: &str) -> Result<KvType, String> {
    match name {
        "f16" => Ok(KvType::F16),
        "f32" => Ok(KvType::F32),
        _ => Err("expected f16 or f32".to_owned()),
    }
}

/// The name that [`KvArg`] takes.
pub(crate) fn kv_name(kv: KvType) -> &'static str {
    if kv == KvType::F32 { "f32" } else { "f16" }
}

/// A number in `range`; NaN is in none.
pub(crate) fn number(text: &str, range: std::ops::RangeInclusive<f32>) -> Result<f32, String> {
    let value = f32::from_str(text).map_err(|error| error.to_string())?;
    if range.contains(&value) {
        return Ok(value);
    }
    Err(format!("expected {} to {}", range.start(), range.end()))
}
