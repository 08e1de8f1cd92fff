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
    Budget, Compat, RopeFactors, RuntimeError, Session, SessionOptions,
    budget::Lease,
    compat::Semantics,
    config::ModelConfig,
    exec::{Cores, Team},
    models::{self, Graph, Input},
    prefix::Fingerprint,
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
    /// Threads that compute, the caller included, 1 to 256; by default one per fast core that this process may use:
    /// slow cores, and second threads of a core, do not count. If there are slow cores, all threads but the caller's
    /// are then kept off them.
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
    /// What the model, and all sessions with it, may take of the memory; by default they are counted only. A copy of
    /// the file ([`Load::Copy`]) counts while the model is there, a map does not.
    pub budget: Budget,
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
    budget: Budget,
    fingerprint: Fingerprint,
    /// For the file, if it was copied.
    _lease: Option<Lease>,
}

impl Model {
    /// Opens the model at `path` with default options.
    ///
    /// # Errors
    /// See [`Model::open_with`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RuntimeError> {
        Self::open_with(path, &LoadOptions::default())
    }

    /// Opens the model at `path`. Weights stay in the mapped file; nothing is copied but norms, biases and rope
    /// factors.
    ///
    /// # Errors
    /// A [`RuntimeError`] that names the key, tensor or byte offset at fault.
    pub fn open_with(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Self, RuntimeError> {
        let start = Instant::now();
        let path = path.as_ref();
        // Before the copy is made.
        let copies = options.load == Load::Copy;
        let lease = copies.then(|| options.budget.ask(options.file_bytes(path)?)).transpose()?;
        let file = Gguf::open_with(path, options.load)?;
        let mtp = options.mtp.as_ref().map(|path| Gguf::open_with(path, options.load)).transpose()?;
        Self::load(start, &file, mtp.as_ref(), options, lease)
    }

    /// Loads a model from opened files: its own and, if it is not in there, that of its multi-token-prediction
    /// layer (`options.mtp` is not looked at).
    ///
    /// # Errors
    /// As [`Model::open_with`].
    pub fn from_gguf(file: &Gguf, mtp: Option<&Gguf>, options: &LoadOptions) -> Result<Self, RuntimeError> {
        Self::load(Instant::now(), file, mtp, options, None)
    }

    fn load(
        start: Instant,
        file: &Gguf,
        mtp: Option<&Gguf>,
        options: &LoadOptions,
        lease: Option<Lease>,
    ) -> Result<Self, RuntimeError> {
        let span = tracing::info_span!("load", architecture = tracing::field::Empty);
        let _entered = span.enter();
        let Parts { config, graph, tokenizer, kernels, cores } = Parts::new(file, mtp, options)?;
        span.record("architecture", config.architecture.as_str());
        let team = Team::new(cores.count, cores.bound)?;
        let load = start.elapsed();
        let (threads, processors) = (team.threads(), team.processors());
        tracing::debug!(isa = kernels.isa().name(), threads, ?processors, ?load, "model loaded");
        let (isa, budget) = (kernels.isa().name(), options.budget.clone());
        // Another version may order sums otherwise.
        let version = env!("CARGO_PKG_VERSION");
        let arithmetic = format!("{version} {isa} {:?} {:?}", options.compat, options.rope_factors);
        let fingerprint = Fingerprint::new(file, &config, &arithmetic)?;
        let inner = Inner { config, graph, tokenizer, kernels, team, load, budget, fingerprint, _lease: lease };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A new, empty session.
    ///
    /// # Errors
    /// [`RuntimeError::InvalidOption`], [`RuntimeError::OutOfMemory`] or [`RuntimeError::BudgetExceeded`].
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
    /// where the system does not say. Chosen once, when the model is loaded.
    ///
    /// A caller takes part in every step, on its own thread, which is bound only by [`Model::bind_current_thread`].
    pub fn processors(&self) -> impl Iterator<Item = usize> {
        self.inner.team.processors().iter().copied()
    }

    /// Keeps the calling thread on the fast cores too, for good, with the threads it starts from then on: for one whose
    /// work is to run sessions of this model. The threads of a [`Scheduler`](crate::Scheduler) are. Does nothing where
    /// there are no slow cores, if [`LoadOptions::threads`] was given, or where the system does not let it.
    pub fn bind_current_thread(&self) {
        self.inner.team.bind_caller();
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

    /// What the model and its sessions may take of the memory, and what they take now.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.inner.budget
    }

    /// Whether `other` is a clone of this one.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    pub(crate) fn fingerprint(&self) -> &Fingerprint {
        &self.inner.fingerprint
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

impl LoadOptions {
    /// Bytes of the model's files, all parts of each.
    ///
    /// # Errors
    /// What is wrong with a path, as [`Gguf::open`] tells it.
    pub(crate) fn file_bytes(&self, path: &Path) -> Result<usize, RuntimeError> {
        [Some(path), self.mtp.as_deref()].into_iter().flatten().try_fold(0_usize, |sum, path| {
            let bytes = usize::try_from(Gguf::file_bytes(path)?).unwrap_or(usize::MAX);
            Ok(sum.saturating_add(bytes))
        })
    }
}

/// What files are made into.
pub(crate) struct Parts {
    pub(crate) config: ModelConfig,
    pub(crate) graph: Box<dyn Graph>,
    pub(crate) tokenizer: Option<Tokenizer>,
    pub(crate) kernels: Kernels,
    pub(crate) cores: Cores,
}

impl Parts {
    /// Of the model in `file` and, if it is not in there, its multi-token-prediction layer.
    pub(crate) fn new(file: &Gguf, mtp: Option<&Gguf>, options: &LoadOptions) -> Result<Self, RuntimeError> {
        let cores = match options.threads {
            Some(count) => Cores { count, bound: None },
            None => Cores::fast(MAX_THREADS),
        };
        if !(1..=MAX_THREADS).contains(&cores.count) {
            return Err(RuntimeError::InvalidOption {
                option: "threads",
                found: cores.count.to_string(),
                expected: format!("1 to {MAX_THREADS}"),
            });
        }
        let kernels = match options.isa {
            Some(isa) => Kernels::with_isa(isa)?,
            None => Kernels::detect(),
        };
        let mut config = ModelConfig::from_metadata(file.metadata())?;
        let semantics = Semantics { compat: options.compat, factors: options.rope_factors };
        let graph = models::load(&Input { file, sidecar: mtp, kernels, semantics }, &mut config)?;
        let tokenizer = match file.metadata().value("tokenizer.ggml.model") {
            Some(_) => Some(Tokenizer::from_metadata_with(file.metadata(), &options.tokenizer)?),
            None => None,
        };
        Ok(Self { config, graph, tokenizer, kernels, cores })
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("config", self.config()).finish_non_exhaustive()
    }
}
