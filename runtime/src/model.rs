//! A loaded model: immutable, shared by any number of sessions and threads.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use halfbyte_formats::gguf::{Gguf, Load};
use halfbyte_kernels::{Isa, Kernels};

use crate::{
    Compat, RopeFactors, RuntimeError, Session, SessionOptions,
    compat::Semantics,
    config::ModelConfig,
    exec::{Cores, Team},
    models::{self, Graph, Input},
    text::{Tokenizer, TokenizerOptions},
};

/// Most threads a model may be given.
const MAX_THREADS: usize = 256;

/// How a model is loaded.
///
/// ```no_run
/// # fn main() -> Result<(), halfbyte::RuntimeError> {
/// use halfbyte::{LoadOptions, Model};
///
/// let mut options = LoadOptions::default();
/// options.threads = Some(4);
/// options.mtp = Some("mtp-model.gguf".into());
/// let model = Model::open_with("model.gguf", &options)?;
/// println!("{} layers, {} kernels", model.config().layers, model.isa().name());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LoadOptions {
    /// Threads that compute, the caller included; by default one per fast core that this process may use: slow cores,
    /// and second threads of a core, do not count. If there are slow cores, all threads but the caller's are then kept
    /// off them.
    pub threads: Option<usize>,
    /// Forces an instruction set; by default the best one this machine has.
    pub isa: Option<Isa>,
    /// A file with the multi-token-prediction layer, if it is not inside the model's own.
    pub mtp: Option<PathBuf>,
    /// Map the file (default), or copy it into memory to be immune against later changes to it.
    pub load: Load,
    /// Whose arithmetic is used where engines differ: by default that of the model's authors.
    pub compat: Compat,
    /// Which rotation factors a LongRoPE model uses: by default those for the length of the sequence.
    pub rope_factors: RopeFactors,
    /// How the vocabulary is read.
    pub tokenizer: TokenizerOptions,
}

/// A model and its vocabulary. Cloning is cheap; clones share everything.
#[derive(Clone)]
pub struct Model {
    inner: Arc<Inner>,
}

struct Inner {
    config: ModelConfig,
    graph: Box<dyn Graph>,
    tokenizer: Option<Tokenizer>,
    kernels: Kernels,
    team: Team,
    load: Duration,
}

impl Model {
    /// Opens the model at `path` with default options.
    ///
    /// # Errors
    /// See [`Model::open_with`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RuntimeError> {
        Self::open_with(path, &LoadOptions::default())
    }

    /// Opens the model at `path`. Weights stay in the mapped file; nothing is copied but norms, biases and rope factors.
    ///
    /// # Errors
    /// A [`RuntimeError`] that names the key, tensor or byte offset at fault.
    pub fn open_with(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Self, RuntimeError> {
        let start = Instant::now();
        let file = Gguf::open_with(path, options.load)?;
        let mtp = options.mtp.as_ref().map(|path| Gguf::open_with(path, options.load)).transpose()?;
        Self::load(start, &file, mtp.as_ref(), options)
    }

    /// Loads a model from opened files: its own and, if it is not in there, that of its multi-token-prediction
    /// layer (`options.mtp` is not looked at).
    ///
    /// # Errors
    /// As [`Model::open_with`].
    pub fn from_gguf(file: &Gguf, mtp: Option<&Gguf>, options: &LoadOptions) -> Result<Self, RuntimeError> {
        Self::load(Instant::now(), file, mtp, options)
    }

    fn load(start: Instant, file: &Gguf, mtp: Option<&Gguf>, options: &LoadOptions) -> Result<Self, RuntimeError> {
        let span = tracing::info_span!("load", architecture = tracing::field::Empty);
        let _entered = span.enter();
        let Cores { count: threads, bound } = match options.threads {
            Some(count) => Cores { count, bound: None },
            None => Cores::fast(MAX_THREADS),
        };
        if !(1..=MAX_THREADS).contains(&threads) {
            return Err(RuntimeError::InvalidOption {
                option: "threads",
                found: threads.to_string(),
                expected: format!("1 to {MAX_THREADS}"),
            });
        }
        let kernels = match options.isa {
            Some(isa) => Kernels::with_isa(isa)?,
            None => Kernels::detect(),
        };
        let mut config = ModelConfig::from_metadata(file.metadata())?;
        span.record("architecture", config.architecture.as_str());
        let semantics = Semantics { compat: options.compat, factors: options.rope_factors };
        let graph = models::load(&Input { file, sidecar: mtp, kernels, semantics }, &mut config)?;
        let tokenizer = match file.metadata().value("tokenizer.ggml.model") {
            Some(_) => Some(Tokenizer::from_metadata_with(file.metadata(), &options.tokenizer)?),
            None => None,
        };
        let team = Team::new(threads, bound.as_ref())?;
        let load = start.elapsed();
        let processors = team.processors();
        tracing::debug!(isa = kernels.isa().name(), threads, ?processors, ?load, "model loaded");
        Ok(Self { inner: Arc::new(Inner { config, graph, tokenizer, kernels, team, load }) })
    }

    /// A new, empty session.
    ///
    /// # Errors
    /// [`RuntimeError::InvalidOption`] or [`RuntimeError::OutOfMemory`].
    pub fn session(&self, options: &SessionOptions) -> Result<Session, RuntimeError> {
        Session::new(self.clone(), options)
    }

    /// The hyperparameters.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.inner.config
    }

    /// The vocabulary, if the file has one.
    #[must_use]
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.inner.tokenizer.as_ref()
    }

    /// Token ids run from 0 to this, exclusive.
    #[must_use]
    pub fn vocab(&self) -> usize {
        self.inner.graph.vocab()
    }

    /// The instruction set in use.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.inner.kernels.isa()
    }

    /// Threads that compute.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.inner.team.threads()
    }

    /// Processors that the threads may run on, ascending, as the system said when they had been bound to the fast
    /// cores; without slow cores, or if [`LoadOptions::threads`] was given, those that this process may use. Empty
    /// where the system does not say. A caller's thread is never bound.
    pub fn processors(&self) -> impl Iterator<Item = usize> {
        self.inner.team.processors().iter().copied()
    }

    /// Time it took to load.
    #[must_use]
    pub fn load_time(&self) -> Duration {
        self.inner.load
    }

    /// Bytes of weights, scales included, that one decoded token reads.
    #[must_use]
    pub fn decode_bytes(&self) -> usize {
        self.inner.graph.decode_bytes()
    }

    pub(crate) fn graph(&self) -> &dyn Graph {
        &*self.inner.graph
    }

    pub(crate) fn kernels(&self) -> &Kernels {
        &self.inner.kernels
    }

    pub(crate) fn team(&self) -> &Team {
        &self.inner.team
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("config", self.config()).finish_non_exhaustive()
    }
}
