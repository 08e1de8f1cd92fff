//! Arguments that several commands share, and how their values are read.
//!
//! A value that no model could accept is refused here, so that it is a usage error (exit code 2) and not a failure.

use std::{
    fmt::Display,
    fs::File,
    hash::{BuildHasher, RandomState},
    io::{self, Read},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    str::FromStr,
    string::FromUtf8Error,
};

use anyhow::{Context, anyhow, ensure};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use halfbyte::{
    Compat, DEFAULT_SEED, Isa, KvType, LoadOptions, Model, RopeFactors, Sampling, Session, SessionOptions,
    chat::{ChatTemplate, Message},
    text::TokenizerOptions,
};
use halfbyte_formats::open_regular;

use crate::{bundled, source::Source};

/// Most threads the runtime takes.
const MAX_THREADS: u64 = 256;
/// Longest context the runtime takes, in tokens; a model's own limit is less.
const MAX_CONTEXT: u64 = 1 << 24;
/// Most bytes of a text that are read: no context holds as many, and a device has no end.
const MAX_TEXT: u64 = 1 << 30;
/// Most bytes of a chat template that are read, as of `chat_template.jinja` when a model is converted.
const MAX_TEMPLATE: u64 = 1 << 20;

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
    #[arg(long, value_name = "NAME", value_parser = named(Isa::available().map(Isa::name), Isa::from_name))]
    pub(crate) isa: Option<Isa>,
    /// Compute as the model's authors do, or, to compare logits with it, as llama.cpp does
    #[arg(long, value_name = "ENGINE", default_value = "reference",
          value_parser = named(["reference", "llama.cpp"], Compat::from_name))]
    compat: Compat,
    /// Rotation factors of a LongRoPE model: auto goes by the length of the text
    #[arg(long, value_name = "SET", default_value = "auto",
          value_parser = named(["auto", "short", "long"], RopeFactors::from_name))]
    rope_factors: RopeFactors,
    #[command(flatten)]
    vocabulary: VocabularyArgs,
}

/// How text becomes tokens.
#[derive(clap::Args)]
pub(crate) struct VocabularyArgs {
    /// Cut text into words as this pre-tokenizer does, not as the one that the file names, if it names one
    #[arg(long, value_name = "NAME", value_parser = ["qwen2", "dbrx", "gpt-4o", "llama-bpe"])]
    pre: Option<String>,
}

impl VocabularyArgs {
    /// As options for a vocabulary.
    pub(crate) fn options(&self) -> TokenizerOptions {
        let mut options = TokenizerOptions::default();
        options.pre.clone_from(&self.pre);
        options
    }
}

impl ComputeArgs {
    /// As options for loading a model.
    pub(crate) fn load_options(&self) -> LoadOptions {
        let mut options = LoadOptions::default();
        options.threads = self.threads;
        options.isa = self.isa;
        options.compat = self.compat;
        options.rope_factors = self.rope_factors;
        options.tokenizer = self.vocabulary.options();
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
    /// A session with `model`.
    pub(crate) fn session(&self, model: &Model) -> anyhow::Result<Session> {
        let mut options = self.kv.session_options();
        options.context = self.ctx;
        session(model, &options)
    }
}

/// A session with `model`, whose context is what `--ctx` says.
pub(crate) fn session(model: &Model, options: &SessionOptions) -> anyhow::Result<Session> {
    let session = model.session(options);
    match options.context {
        Some(asked) if asked > model.config().context => session.context("--ctx is too much for this model"),
        _ => Ok(session?),
    }
}

/// How keys and values are stored.
#[derive(clap::Args)]
pub(crate) struct KvArg {
    /// How keys and values are stored: int8 takes half of what f16 does, f32 is exact
    #[arg(long, value_name = "TYPE", default_value = "f16", value_parser = named(KV_TYPES.map(|(name, _)| name), kv))]
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
    template: Option<PathBuf>,
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
            Some(path) if path.exists() => {
                let source = template_source(path).with_context(|| format!("cannot read {}", path.display()))?;
                ChatTemplate::from_source(&source).with_context(|| format!("cannot use {}", path.display()))
            }
            Some(name) => name.to_str().and_then(|name| ChatTemplate::builtin(name).ok()).with_context(|| {
                format!("no file {} and no chat template of that name (built-in: {})", name.display(), template_names())
            }),
        }
    }
}

/// The text of a file, which is no pipe: it would be waited for, and nothing can be typed into it here.
fn template_source(path: &Path) -> anyhow::Result<String> {
    let (file, metadata) = open_regular(path)?;
    ensure!(metadata.len() <= MAX_TEMPLATE, "it has {} bytes: expected at most {MAX_TEMPLATE}", metadata.len());
    let mut source = String::new();
    file.take(MAX_TEMPLATE).read_to_string(&mut source)?;
    Ok(source)
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
    #[arg(long, value_name = "K", default_value_t = Sampling::default().top_k, value_parser = count(0, u64::MAX))]
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
    /// Seed of the random choices: the same seed gives the same text, "random" another one each time
    #[arg(long, value_name = "S", default_value_t = DEFAULT_SEED, value_parser = seed)]
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
pub(crate) fn count(min: u64, max: u64) -> impl TypedValueParser<Value = usize> {
    let max = max.min(usize::MAX as u64);
    move |text: &str| whole(text, min, max).map(|value| usize::try_from(value).unwrap_or(usize::MAX))
}

/// Reads the length of a context, at least `min`.
pub(crate) fn context(min: u64) -> impl TypedValueParser<Value = usize> {
    count(min, MAX_CONTEXT)
}

/// Reads a whole number from `min` to `max`.
pub(crate) fn whole(text: &str, min: u64, max: u64) -> Result<u64, String> {
    let value = text.parse().ok().filter(|value| (min..=max).contains(value));
    value.ok_or_else(|| format!("expected a whole number from {min} to {max}"))
}

/// What `--kv` knows.
const KV_TYPES: [(&str, KvType); 3] = [("f16", KvType::F16), ("int8", KvType::Int8), ("f32", KvType::F32)];

fn kv(name: &str) -> Option<KvType> {
    KV_TYPES.into_iter().find(|(known, _)| *known == name).map(|(_, ty)| ty)
}

/// Reads one of `names`, which `find` knows; help and completions list them.
pub(crate) fn named<T: Clone + Send + Sync + 'static>(
    names: impl IntoIterator<Item = &'static str>,
    find: impl Fn(&str) -> Option<T> + Clone + Send + Sync + 'static,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(names).try_map(move |name| find(&name).ok_or("not known here"))
}

/// Reads a seed.
fn seed(text: &str) -> Result<u64, String> {
    // Hashers begin at random.
    if text == "random" {
        Ok(RandomState::new().hash_one(0))
    } else {
        text.parse().map_err(|_| "expected a number from 0 on, or random".to_owned())
    }
}

/// The text to begin with; a newline at its very end is not part of it.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Prompt {
    /// The prompt; - reads it from stdin
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// Read the prompt from a file; - is stdin
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Prompt {
    /// The text.
    pub(crate) fn read(self) -> anyhow::Result<String> {
        let mut text = match (self.prompt, self.file) {
            (Some(text), _) if text != "-" => return Ok(text),
            (_, file) => read_text(&file.unwrap_or_else(|| "-".into()))?,
        };
        // Editors and `echo` add it; a model would take it for the end of a line.
        if text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        Ok(text)
    }
}

/// The text of a file or a pipe, or of stdin if `path` is `-`.
pub(crate) fn read_text(path: &Path) -> anyhow::Result<String> {
    let read = || {
        if path == Path::new("-") {
            return bounded(io::stdin().lock());
        }
        let file = File::open(path)?;
        // A file can be refused before it is read; what else there is does not know its length.
        check_length(file.metadata()?.len())?;
        bounded(file)
    };
    read().with_context(|| format!("cannot read {}", text_name(path)))
}

/// What the text at `path` is called.
pub(crate) fn text_name(path: &Path) -> impl Display {
    if path == Path::new("-") { Path::new("stdin").display() } else { path.display() }
}

fn bounded(source: impl Read) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    source.take(MAX_TEXT + 1).read_to_end(&mut bytes)?;
    check_length(bytes.len() as u64)?;
    let no_text = |error: FromUtf8Error| anyhow!("it is not UTF-8 from byte {} on", error.utf8_error().valid_up_to());
    String::from_utf8(bytes).map_err(no_text)
}

fn check_length(bytes: u64) -> anyhow::Result<()> {
    ensure!(bytes <= MAX_TEXT, "it is longer than {MAX_TEXT} bytes");
    Ok(())
}

/// Reads a number in `range`; NaN is in none.
fn number(text: &str, range: RangeInclusive<f32>) -> Result<f32, String> {
    let value = f32::from_str(text).map_err(|error| error.to_string())?;
    if range.contains(&value) {
        return Ok(value);
    }
    Err(format!("expected {:?} to {:?}", range.start(), range.end()))
}
