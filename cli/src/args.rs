//! Arguments that several commands share, and how their values are read.
//!
//! A value that no model could accept is refused here, so that it is a usage error (exit code 2) and not a failure.

use std::{fs, ops::RangeInclusive, path::Path, str::FromStr};

use anyhow::Context;
use clap::builder::RangedU64ValueParser;
use halfbyte::{
    Compat, DEFAULT_SEED, Isa, KvType, LoadOptions, Model, RopeFactors, Sampling, SessionOptions,
    chat::{ChatTemplate, Message},
};

use crate::{bundled, source::Source};

/// Most threads the runtime takes.
const MAX_THREADS: u64 = 256;
/// Longest context the runtime takes, in tokens; a model's own limit is less.
const MAX_CONTEXT: u64 = 1 << 24;

/// The model, which has to be named.
#[derive(clap::Args)]
pub(crate) struct ModelArg {
    #[arg(value_name = "MODEL", help = format!("A GGUF file, or the name of a bundled model ({})", bundled::names()))]
    pub(crate) model: Source,
}

/// The model, or the bundled one.
#[derive(clap::Args)]
pub(crate) struct OptionalModelArg {
    #[arg(value_name = "MODEL",
          help = format!("A GGUF file, or the name of a bundled model ({}) [default: {}]", bundled::names(), Source::default()))]
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
    /// Threads that compute [default: one per fast core]
    #[arg(long, value_name = "N", value_parser = count(1, MAX_THREADS))]
    pub(crate) threads: Option<usize>,
    /// Use this instruction set instead of the best one this machine has
    #[arg(long, value_name = "NAME", value_parser = isa)]
    pub(crate) isa: Option<Isa>,
    /// Compute as the model's authors do (reference) or, to compare logits with it, as llama.cpp does
    #[arg(long, value_name = "ENGINE", default_value = "reference", value_parser = compat)]
    compat: Compat,
    /// Rotation factors of a LongRoPE model: auto (by the length of the text), short or long
    #[arg(long, value_name = "SET", default_value = "auto", value_parser = rope_factors)]
    rope_factors: RopeFactors,
}

impl ComputeArgs {
    /// As options for loading a model.
    pub(crate) fn load_options(&self) -> LoadOptions {
        let mut options = LoadOptions::default();
        options.threads = self.threads;
        options.isa = self.isa;
        options.compat = self.compat;
        options.rope_factors = self.rope_factors;
        options
    }
}

/// What a session remembers.
#[derive(clap::Args)]
pub(crate) struct ContextArgs {
    /// Tokens the context holds [default: 4096, or the model's limit if that is less]
    #[arg(long, value_name = "N", value_parser = context(1))]
    pub(crate) ctx: Option<usize>,
    #[command(flatten)]
    pub(crate) kv: KvArg,
}

impl ContextArgs {
    /// As options for a session.
    pub(crate) fn session_options(&self) -> SessionOptions {
        let mut options = self.kv.session_options();
        options.context = self.ctx;
        options
    }
}

/// How keys and values are stored.
#[derive(clap::Args)]
pub(crate) struct KvArg {
    /// Store keys and values as f16, as int8 at half the size, or exactly, as f32
    #[arg(long, value_name = "TYPE", default_value = "f16", value_parser = kv)]
    pub(crate) kv: KvType,
}

impl KvArg {
    /// As options for a session.
    pub(crate) fn session_options(&self) -> SessionOptions {
        let mut options = SessionOptions::default();
        options.kv = self.kv;
        options
    }
}

/// How a conversation becomes a prompt.
#[derive(clap::Args)]
pub(crate) struct ChatArgs {
    /// What the model is told before the conversation
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    system: Option<String>,
    #[arg(long, value_name = "NAME|FILE", help = format!(
        "Chat template: a file in Jinja, or a built-in one ({}) [default: the model's own]", template_names()))]
    template: Option<String>,
}

impl ChatArgs {
    /// The messages a conversation begins with.
    pub(crate) fn messages(&self) -> Vec<Message> {
        self.system.iter().map(Message::system).collect()
    }

    /// The template for conversations with `model`.
    pub(crate) fn template(&self, model: &Model) -> anyhow::Result<ChatTemplate> {
        match &self.template {
            None => {
                ChatTemplate::for_model(model).context("this model cannot chat as it is (--template gives it a format)")
            }
            // A file of that name goes before a built-in template, as with models.
            Some(name) if Path::new(name).exists() => {
                let source = fs::read_to_string(name).with_context(|| format!("cannot read {name}"))?;
                ChatTemplate::from_source(&source).with_context(|| format!("cannot use {name}"))
            }
            Some(name) => ChatTemplate::builtin(name).ok().with_context(|| {
                format!("no file {name} and no chat template of that name (built-in: {})", template_names())
            }),
        }
    }
}

fn template_names() -> String {
    ChatTemplate::builtin_names().collect::<Vec<_>>().join(", ")
}

/// How the next token is chosen.
#[derive(clap::Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// 0 always takes the most likely token, more makes the text more surprising
    #[arg(long, value_name = "T", default_value_t = Sampling::default().temperature,
          value_parser = |text: &str| number(text, 0.0..=100.0))]
    temp: f32,
    /// Choose among the K most likely tokens; 0 means all
    #[arg(long, value_name = "K", default_value_t = Sampling::default().top_k)]
    top_k: usize,
    /// Choose among the most likely tokens that together reach probability P; 1 means all
    #[arg(long, value_name = "P", default_value_t = Sampling::default().top_p,
          value_parser = |text: &str| number(text, 1e-6..=1.0))]
    top_p: f32,
    /// Choose among tokens at least P times as likely as the most likely one; 0 means all
    #[arg(long, value_name = "P", default_value_t = Sampling::default().min_p,
          value_parser = |text: &str| number(text, 0.0..=1.0))]
    min_p: f32,
    /// Make tokens that occurred lately less likely by this factor; 1 leaves them alone
    #[arg(long, value_name = "R", default_value_t = Sampling::default().repeat_penalty,
          value_parser = |text: &str| number(text, 1e-6..=100.0))]
    repeat_penalty: f32,
    /// Seed of the random choices: the same seed gives the same text
    #[arg(long, value_name = "S", default_value_t = DEFAULT_SEED)]
    seed: u64,
}

impl SamplingArgs {
    /// As options for a session.
    pub(crate) fn sampling(&self) -> Sampling {
        let mut sampling = Sampling::default();
        sampling.temperature = self.temp;
        sampling.top_k = self.top_k;
        sampling.top_p = self.top_p;
        sampling.min_p = self.min_p;
        sampling.repeat_penalty = self.repeat_penalty;
        sampling.seed = self.seed;
        sampling
    }
}

/// Reads a number from `min` to `max`.
pub(crate) fn count(min: u64, max: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(min..=max)
}

/// Reads the length of a context, at least `min`.
pub(crate) fn context(min: u64) -> RangedU64ValueParser<usize> {
    count(min, MAX_CONTEXT)
}

/// Reads the name of an instruction set this machine has.
fn isa(name: &str) -> Result<Isa, String> {
    Isa::from_name(name).filter(|isa| isa.is_available()).ok_or_else(|| {
        let names: Vec<&str> = Isa::available().map(|isa| isa.name()).collect();
        format!("this machine has: {}", names.join(", "))
    })
}

fn compat(name: &str) -> Result<Compat, String> {
    Compat::from_name(name).ok_or_else(|| "expected reference or llama.cpp".to_owned())
}

fn rope_factors(name: &str) -> Result<RopeFactors, String> {
    RopeFactors::from_name(name).ok_or_else(|| "expected auto, short or long".to_owned())
}

fn kv(name: &str) -> Result<KvType, String> {
    match name {
        "f16" => Ok(KvType::F16),
        "f32" => Ok(KvType::F32),
        "int8" => Ok(KvType::Int8),
        _ => Err("expected f16, int8 or f32".to_owned()),
    }
}

/// Reads a number in `range`; NaN is in none.
fn number(text: &str, range: RangeInclusive<f32>) -> Result<f32, String> {
    let value = f32::from_str(text).map_err(|error| error.to_string())?;
    if range.contains(&value) {
        return Ok(value);
    }
    Err(format!("expected {:?} to {:?}", range.start(), range.end()))
}
