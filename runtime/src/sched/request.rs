//! What is asked of a scheduler, and what it tells.

use std::fmt;

use super::queue::Priority;
use crate::{Event, Finish, Model, Overflow, RuntimeError, Sampling, StopRules, text::Special};

/// A prompt to be continued.
///
/// ```no_run
/// # fn ask(model: &halfbyte::Model) -> Result<(), halfbyte::RuntimeError> {
/// use halfbyte::{Priority, Request};
///
/// let mut request = Request::text(model, "Once upon a time")?;
/// request.priority = Priority::Realtime;
/// request.stop.max_tokens = Some(100);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Request {
    /// The prompt, one token at least.
    pub tokens: Vec<u32>,
    /// How urgent it is.
    pub priority: Priority,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// What ends it.
    pub stop: StopRules,
    /// Tokens that there shall be room for, prompt included; by default the prompt and
    /// [`max_tokens`](StopRules::max_tokens), or, without that, 4096; at least what [`overflow`](Self::overflow) needs,
    /// and never more than the model has.
    pub context: Option<usize>,
    /// What happens when that is full.
    pub overflow: Overflow,
    /// Whether prefixes are taken from the cache and kept in it. What others may learn from it is how long an answer
    /// takes.
    pub cached: bool,
}

impl Request {
    /// A request to continue `tokens`.
    #[must_use]
    pub fn new(tokens: Vec<u32>) -> Self {
        Self {
            tokens,
            priority: Priority::default(),
            sampling: Sampling::default(),
            stop: StopRules::default(),
            context: None,
            overflow: Overflow::default(),
            cached: true,
        }
    }

    /// A request to continue `text`, in which special tokens are ordinary text. The vocabulary's begin-of-sequence
    /// token is put before it if the file says so.
    ///
    /// # Errors
    /// [`RuntimeError::NoVocabulary`].
    pub fn text(model: &Model, text: &str) -> Result<Self, RuntimeError> {
        let tokenizer = model.tokenizer().ok_or(RuntimeError::NoVocabulary)?;
        let mut tokens = tokenizer.encode(text, Special::AsText);
        if let (true, Some(bos)) = (tokenizer.add_bos(), tokenizer.bos()) {
            tokens.insert(0, bos);
        }
        Ok(Self::new(tokens))
    }
}

/// A token, and the text that it made certain.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Piece {
    /// The token; `None` if only text that had been held back is released, at the end.
    pub token: Option<u32>,
    /// Whole characters, never part of a stop string; often none.
    pub text: String,
}

/// What a scheduler tells about a request.
#[derive(Debug)]
#[non_exhaustive]
pub enum Update {
    /// It goes on.
    Piece(Piece),
    /// Something else happened.
    Event(Event),
    /// It is over; nothing follows.
    Done(Result<Finish, RuntimeError>),
}

/// How much of the budget is taken while a request waits for its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pressure {
    /// Bytes in use, after prefixes that nobody uses have gone.
    pub used: usize,
    /// The limit.
    pub limit: usize,
    /// Bytes that 64 more tokens of context take.
    pub page: usize,
}

/// Decides about shorter contexts when memory is short: to be asked before a request is refused for want of memory, and
/// only then. It looks at bytes that this library counts itself, not at what the system says of the machine at that
/// moment.
///
/// ```
/// use halfbyte::{ContextPolicy, Pressure};
///
/// /// Half of what was asked for is better than nothing.
/// #[derive(Debug)]
/// struct Half;
///
/// impl ContextPolicy for Half {
///     fn context(&self, asked: usize, least: usize, _: Pressure) -> Option<usize> {
///         Some((asked / 2).max(least))
///     }
/// }
/// ```
pub trait ContextPolicy: fmt::Debug + Send + Sync {
    /// The context to try instead of `asked` tokens; `least` is the prompt and one token, or what is kept and two if
    /// that is more ([`Overflow::Slide`]). `None` refuses. More than `asked` or less than `least` is taken for the
    /// nearest of the two.
    ///
    /// Called with the scheduler locked: it is to compute something, and not to call the scheduler.
    fn context(&self, asked: usize, least: usize, pressure: Pressure) -> Option<usize>;
}
