//! The one error type of the runtime: every variant names the key, tensor, option or limit that is wrong.

use std::time::Duration;

use halfbyte_formats::{FormatError, QuantType};
use halfbyte_kernels::KernelError;

use crate::text::TokenizerError;

/// Why a model was refused or a request could not be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The file is not a usable container.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The vocabulary in the file cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A conversation could not be made into a prompt.
    #[cfg(feature = "chat")]
    #[error(transparent)]
    Chat(#[from] crate::chat::ChatError),
    /// A kernel refused its arguments: a bug of this crate, reported instead of a panic.
    #[error("kernel refused its arguments")]
    Kernel(#[from] KernelError),
    /// No graph here runs this kind of model.
    #[error("architecture {found:?} is not supported (supported: {supported})")]
    UnsupportedArchitecture {
        /// `general.architecture` of the file.
        found: String,
        /// Every supported one.
        supported: String,
    },
    /// A required metadata key is absent.
    #[error("metadata key {key:?} is missing")]
    MissingKey {
        /// The full key.
        key: String,
    },
    /// A hyperparameter makes no sense.
    #[error("metadata key {key:?} is {found}: expected {expected}")]
    InvalidKey {
        /// The full key.
        key: String,
        /// The stored value.
        found: String,
        /// What would be accepted.
        expected: String,
    },
    /// The graph needs a tensor that the file lacks.
    #[error("tensor {name:?} is missing")]
    MissingTensor {
        /// Its name.
        name: String,
    },
    /// The file holds tensors that the graph does not know.
    #[error("{count} tensors are not part of this model: {names}")]
    UnexpectedTensors {
        /// How many.
        count: usize,
        /// The first few names.
        names: String,
    },
    /// A tensor has the wrong extents.
    #[error("tensor {name:?} has dimensions {found:?}, expected {expected:?}")]
    TensorShape {
        /// Its name.
        name: String,
        /// Extents by the hyperparameters, contiguous one first.
        expected: Vec<usize>,
        /// Extents in the file.
        found: Vec<usize>,
    },
    /// A tensor is stored in a format its role does not allow.
    #[error("tensor {name:?} is stored as {}, expected {expected}", found.name())]
    TensorType {
        /// Its name.
        name: String,
        /// What would be accepted.
        expected: &'static str,
        /// The stored format.
        found: QuantType,
    },
    /// A packed tensor would have to be cut inside a panel of 16 rows.
    #[error("packed tensor {name:?} cannot be cut at row {row}: a panel has 16 rows")]
    PackedCut {
        /// Its name.
        name: String,
        /// The row.
        row: usize,
    },
    /// A file to be packed is packed.
    #[error("the file is packed already")]
    AlreadyPacked,
    /// A tensor holds a number that cannot be computed with.
    #[error("tensor {name:?} has {found} at index {index}: expected {expected}")]
    TensorValue {
        /// Its name.
        name: String,
        /// Which element.
        index: usize,
        /// The stored number.
        found: f32,
        /// What would be accepted.
        expected: &'static str,
    },
    /// A value given through the API is out of range.
    #[error("{option} is {found}: expected {expected}")]
    InvalidOption {
        /// The option or argument.
        option: &'static str,
        /// The value given.
        found: String,
        /// What would be accepted.
        expected: String,
    },
    /// A token id is not in the vocabulary.
    #[error("token {id} is outside the vocabulary of {vocab} tokens")]
    TokenOutOfRange {
        /// The id.
        id: u32,
        /// Rows of the embedding.
        vocab: usize,
    },
    /// The tokens do not fit into the session's context.
    #[error("{need} tokens do not fit: the context holds {context}, {used} are used")]
    ContextFull {
        /// Tokens to be added.
        need: usize,
        /// Size of the context.
        context: usize,
        /// Tokens already in it.
        used: usize,
    },
    /// Memory could not be had.
    #[error("cannot allocate {bytes} bytes for {what}")]
    OutOfMemory {
        /// What it was for.
        what: &'static str,
        /// How much.
        bytes: usize,
    },
    /// The memory budget does not have so much, after all that could go has gone.
    #[error("memory budget exceeded: {need} bytes are needed, {have} are left")]
    BudgetExceeded {
        /// Bytes asked for.
        need: usize,
        /// Bytes left.
        have: usize,
    },
    /// The scheduler's queue has no place left.
    #[error("the queue is full: it holds {limit} requests")]
    QueueFull {
        /// Its length.
        limit: usize,
    },
    /// A request waited too long for its turn.
    #[error("the request waited {waited:?} in the queue: the limit is {limit:?}")]
    QueueTimeout {
        /// How long.
        waited: Duration,
        /// How long it may wait.
        limit: Duration,
    },
    /// The scheduler was dropped before the request was done.
    #[error("the scheduler was closed")]
    SchedulerClosed,
    /// A file of prefixes cannot be used.
    #[error("prefix file: {what} at offset {offset}")]
    PrefixFile {
        /// What is wrong with it.
        what: &'static str,
        /// Where, in bytes.
        offset: u64,
    },
    /// A worker thread could not be started.
    #[error("cannot start worker thread")]
    Thread(#[source] std::io::Error),
    /// A worker thread panicked; the step it served has no result.
    #[error("a worker thread panicked")]
    WorkerPanicked,
    /// The model has no vocabulary, so text cannot be used with it.
    #[error("the model has no vocabulary, so it has no use for text")]
    NoVocabulary,
    /// The model has no multi-token-prediction layer.
    #[error("the model has no multi-token-prediction layer (is its mtp- file beside it?)")]
    NoMtp,
    /// There is nothing to continue from: no token was pushed yet.
    #[error("the session is empty: push at least one token first")]
    EmptySession,
    /// The weights produced NaN or infinity.
    #[error("logits at position {position} are not finite: the weights are damaged")]
    NonFiniteLogits {
        /// Position in the sequence.
        position: usize,
    },
    /// The caller cancelled the operation.
    #[error("cancelled")]
    Cancelled,
}
