//! What an application holds: push tokens or text, pull tokens or text, cancel.
//!
//! A session owns its cache and its activations, and nothing else can reach them. Its tokens are the history; the cache
//! may be behind it: a token that was just chosen is not run through the model before its logits are asked for, so the
//! last one of a generation never is. A call that fails or is cancelled has no effect, but for a context that has slid
//! before: what was dropped does not come back.

mod chat;
mod event;
mod fork;
mod generation;
mod rows;
mod sequence;

use std::{fmt, time::Instant};

use halfbyte_kernels::KvType;

pub use event::Event;
pub(crate) use sequence::Sequence;

use crate::{
    CancelToken, Model, Overflow, PrefixCache, RuntimeError, Sampling, Stats, StopRules,
    config::ModelConfig,
    exec::{MAX_BATCH, Scratch},
    layers::{Exec, Want},
    memory::with_room,
    text::Special,
};

/// Context when none is asked for, unless the model's own is shorter.
pub(crate) const DEFAULT_CONTEXT: usize = 4096;
/// Prompt tokens that pass through the model at a time.
const DEFAULT_BATCH: usize = 512;

/// What a session is made of.
///
/// ```
/// use halfbyte::{KvType, SessionOptions};
///
/// let mut options = SessionOptions::default();
/// options.context = Some(1024);
/// options.kv = KvType::F32;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SessionOptions {
    /// Tokens the session can hold; by default 4096 or the model's own limit, whichever is less.
    pub context: Option<usize>,
    /// How keys and values are stored.
    pub kv: KvType,
    /// Prompt tokens that pass through the model at a time, 1 to 4096; by default 512.
    pub batch: usize,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { context: None, kv: KvType::F16, batch: DEFAULT_BATCH }
    }
}

/// One conversation with a [`Model`].
///
/// What was said once need not be run again: go back to where texts begin to differ, and on from there; or go on in
/// several ways at once, each in a [`fork`](Session::fork).
///
/// ```no_run
/// # fn answers(model: &halfbyte::Model, questions: &[&str]) -> Result<(), halfbyte::RuntimeError> {
/// let mut session = model.session(&halfbyte::SessionOptions::default())?;
/// session.on_progress(|done, total| eprintln!("{done} of {total} tokens"));
/// let shared = session.push_text("A long text. Now a question about it: ")?;
/// for question in questions {
///     session.push_text(question)?;
///     let answer = session.by_ref().take(50).collect::<Result<String, _>>()?;
///     println!("{question}{answer}\n{:.1} tokens/s", session.stats().decode_rate());
///     session.truncate(shared);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Session {
    sequence: Sequence,
    /// `scratch.logits` are those of the last token if all tokens have been run.
    scratch: Scratch,
    /// Residual stream of the last token, for the multi-token-prediction layer.
    carry: Vec<f32>,
    /// What it may begin with.
    prefixes: Option<PrefixCache>,
    /// Told how far a long prompt has come.
    progress: Option<Progress>,
    /// Told what happens besides.
    events: Option<Events>,
}

/// Called with the number of tokens run and of those to be run.
type Progress = Box<dyn FnMut(usize, usize) + Send>;
type Events = Box<dyn FnMut(&Event) + Send>;

impl Session {
    pub(crate) fn new(model: Model, options: &SessionOptions) -> Result<Self, RuntimeError> {
        let config = model.config();
        let context = context(config, options.context)?;
        in_range("batch", options.batch, MAX_BATCH)?;
        let mut grant = model.budget().lease();
        Ok(Self {
            scratch: Scratch::of(&mut grant, &model, options.batch.min(context), context)?,
            carry: new_carry(config)?,
            sequence: Sequence::new(model, options.kv, context, grant)?,
            prefixes: None,
            progress: None,
            events: None,
        })
    }

    /// Sets how tokens are chosen from here on; the random sequence starts anew.
    ///
    /// # Errors
    /// [`RuntimeError::InvalidOption`] names the value that makes no sense; [`RuntimeError::OutOfMemory`].
    pub fn set_sampling(&mut self, sampling: Sampling) -> Result<(), RuntimeError> {
        self.sequence.set_sampling(sampling)
    }

    /// Sets what ends a generation, and lets one that is under way or has ended go on under the new rules.
    ///
    /// # Errors
    /// [`RuntimeError::InvalidOption`] for an empty or huge stop string, or too many: see [`StopRules::strings`].
    pub fn set_stop(&mut self, rules: StopRules) -> Result<(), RuntimeError> {
        self.sequence.set_stop(rules)
    }

    /// Sets what happens when a generation has filled the context; by default it ends.
    ///
    /// # Errors
    /// [`RuntimeError::InvalidOption`] if of the context not two tokens are left beside those that are to be kept.
    pub fn set_overflow(&mut self, overflow: Overflow) -> Result<(), RuntimeError> {
        self.sequence.set_overflow(overflow)
    }

    /// Lets the session begin with what `prefixes` knows of its tokens, whenever none of them has been run: their keys
    /// and values are shared with it instead of being made again ([`Stats::cached_tokens`]). The logits are the same,
    /// bit for bit; the last token is always run, and so is each whose logits are asked for. Nothing is added to
    /// `prefixes`. Its entries count if they have the session's type of keys and values and the rotation factors that
    /// its tokens need.
    ///
    /// ```no_run
    /// # fn open(model: &halfbyte::Model) -> Result<halfbyte::Session, halfbyte::RuntimeError> {
    /// use halfbyte::{PrefixCache, SessionOptions};
    ///
    /// let prefixes = PrefixCache::new(model, usize::MAX);
    /// prefixes.load("system.prefix")?;
    /// let mut session = model.session(&SessionOptions::default())?;
    /// session.set_prefixes(&prefixes)?;
    /// # Ok(session)
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`RuntimeError::InvalidOption`] if `prefixes` is not of this [`Model`] or a clone of it: a file that was loaded
    /// twice is two.
    pub fn set_prefixes(&mut self, prefixes: &PrefixCache) -> Result<(), RuntimeError> {
        // Pages of another model can be of the same size.
        if !prefixes.is_of(self.model()) {
            return Err(RuntimeError::InvalidOption {
                option: "prefixes",
                found: "a cache of another model".to_owned(),
                expected: "one of this very model".to_owned(),
            });
        }
        self.prefixes = Some(prefixes.clone());
        Ok(())
    }

    /// Calls `each` while tokens are run, after every batch, with the number of those run so far and of all to be run:
    /// those pushed, or all that [`Event::Rerun`] is about. What fits into one batch is not worth a call.
    pub fn on_progress(&mut self, each: impl FnMut(usize, usize) + Send + 'static) {
        self.progress = Some(Box::new(each));
    }

    /// Calls `each` when the session does or notices something of its own accord.
    pub fn on_event(&mut self, each: impl FnMut(&Event) + Send + 'static) {
        self.events = Some(Box::new(each));
    }

    /// Runs `text` as the continuation of the session; special tokens in it are ordinary text. The vocabulary's
    /// begin-of-sequence token is put before the first text if the file says so. Returns the tokens run.
    ///
    /// # Errors
    /// As [`Session::push_tokens`], and [`RuntimeError::NoVocabulary`].
    pub fn push_text(&mut self, text: &str) -> Result<usize, RuntimeError> {
        let tokens = self.sequence.encode(text, Special::AsText)?;
        self.push_tokens(&tokens)?;
        Ok(tokens.len())
    }

    /// As [`Session::push_text`] for text of the application's own, in which special tokens are meant as such.
    ///
    /// # Errors
    /// As [`Session::push_text`].
    pub fn push_markup(&mut self, text: &str) -> Result<usize, RuntimeError> {
        let tokens = self.sequence.encode(text, Special::Parse)?;
        self.push_tokens(&tokens)?;
        Ok(tokens.len())
    }

    /// Runs `tokens` as the continuation of the session and starts a new generation. None at all change nothing.
    ///
    /// How a text is cut into pushes makes no difference to the logits.
    ///
    /// # Errors
    /// [`RuntimeError::TokenOutOfRange`], [`RuntimeError::ContextFull`], [`RuntimeError::Cancelled`],
    /// [`RuntimeError::OutOfMemory`], [`RuntimeError::BudgetExceeded`], [`RuntimeError::WorkerPanicked`]; the session
    /// is then as before the call.
    pub fn push_tokens(&mut self, tokens: &[u32]) -> Result<(), RuntimeError> {
        self.push(tokens, &mut Want::Last)
    }

    fn push(&mut self, tokens: &[u32], want: &mut Want<'_>) -> Result<(), RuntimeError> {
        let start = Instant::now();
        let span = tracing::debug_span!("prompt", tokens = tokens.len());
        let _entered = span.enter();
        let held = self.sequence.tokens.len();
        self.sequence.extend(tokens)?;
        if tokens.is_empty() {
            return Ok(());
        }
        let known = match self.catch_up(held, want) {
            Ok(known) => known.saturating_sub(held),
            Err(error) => {
                self.sequence.tokens.truncate(held);
                self.sequence.unsettle();
                return Err(error);
            }
        };
        self.sequence.begin(tokens.len(), known, start.elapsed());
        Ok(())
    }

    /// Runs all tokens that have not been run, in batches; `want` is about those from the index `from` on. Returns how
    /// many did not have to be run, because they are known.
    ///
    /// LongRoPE: if the tokens have become so many, or so few, that the other factors are right, none counts as run.
    fn catch_up(&mut self, from: usize, want: &mut Want<'_>) -> Result<usize, RuntimeError> {
        let Self { sequence, scratch, prefixes, progress, events, .. } = self;
        if let Some(factors) = sequence.other_factors() {
            let forgotten = sequence.cache.len();
            if forgotten > 0 {
                tracing::info!(tokens = forgotten, factors = factors.name(), "other rotation factors: running again");
                if let Some(events) = events {
                    events(&Event::Rerun { tokens: forgotten, factors });
                }
                // Whoever does not want it loses nothing yet.
                sequence.check()?;
            }
            sequence.cache.rotate_with(factors);
        }
        let Sequence { model, cache, cancel, tokens, .. } = sequence;
        let mut known = 0;
        if let Some(prefixes) = prefixes.as_ref().filter(|_| cache.len() == 0) {
            // Whoever wants logits has these tokens run.
            let limit = if matches!(want, Want::Each(_)) { from } else { tokens.len().saturating_sub(1) };
            let (pages, len) = prefixes.find(cache.factors(), cache.ty(), tokens.get(..limit).unwrap_or(&[]))?;
            known = cache.adopt(pages, len);
        }
        let exec = Exec::new(model.kernels(), model.team(), cancel);
        let (start, end) = (cache.len(), tokens.len());
        while cache.len() < end {
            exec.check()?;
            let at = cache.len();
            let wanted = at >= from;
            let stop = end.min(at + scratch.batch).min(if wanted { end } else { from });
            let part = tokens.get(at..stop).unwrap_or(&[]);
            match want {
                Want::Each(each) if wanted => {
                    let mut shifted = |index: usize, logits: &[f32]| each(at - from + index, logits);
                    model.graph().forward(exec, scratch, cache, part, &mut Want::Each(&mut shifted))?;
                }
                _ => model.graph().forward(exec, scratch, cache, part, &mut Want::Last)?,
            }
            cache.commit(part.len());
            if end - start > scratch.batch
                && let Some(progress) = progress
            {
                progress(stop - start, end - start);
            }
        }
        Ok(known)
    }

    /// Makes `scratch.logits` those of the last token.
    fn settle(&mut self) -> Result<(), RuntimeError> {
        self.catch_up(0, &mut Want::Last).map(drop)
    }

    /// Logits of the last token, `(vocab)`: what the next choice is made from.
    ///
    /// # Errors
    /// [`RuntimeError::EmptySession`]; if tokens have to be run for it (after [`Session::truncate`], say), also
    /// [`RuntimeError::Cancelled`], [`RuntimeError::OutOfMemory`], [`RuntimeError::BudgetExceeded`],
    /// [`RuntimeError::WorkerPanicked`].
    pub fn logits(&mut self) -> Result<&[f32], RuntimeError> {
        if self.sequence.tokens.is_empty() {
            return Err(RuntimeError::EmptySession);
        }
        self.settle()?;
        Ok(self.scratch.last_logits().values)
    }

    /// All tokens so far, pushed and generated.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.sequence.tokens
    }

    /// Tokens the session can hold.
    #[must_use]
    pub fn context(&self) -> usize {
        self.sequence.cache.capacity()
    }

    /// Forgets all tokens from `len` up, any generation in progress, and the statistics.
    pub fn truncate(&mut self, len: usize) {
        self.sequence.truncate(len);
    }

    /// A handle with which any thread can stop this session's calls.
    #[must_use]
    pub fn cancel_token(&self) -> CancelToken {
        self.sequence.cancel.clone()
    }

    /// Counts and times of the last prompt and of what was generated from it.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.sequence.stats
    }

    /// Bytes of keys and values that the tokens so far take; as much is read to decode the next one.
    #[must_use]
    pub fn kv_bytes(&self) -> usize {
        self.sequence.cache.len_bytes()
    }

    /// The model this session runs.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.sequence.model
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tokens, finish) = (self.sequence.tokens.len(), self.finish());
        f.debug_struct("Session").field("tokens", &tokens).field("finish", &finish).finish_non_exhaustive()
    }
}

/// The residual stream of no token yet; nothing without a multi-token-prediction layer.
fn new_carry(config: &ModelConfig) -> Result<Vec<f32>, RuntimeError> {
    let len = if config.mtp_layers > 0 { config.hidden } else { 0 };
    let mut carry = with_room("activations", len)?;
    carry.resize(len, 0.0);
    Ok(carry)
}

/// The context asked for of a model with these hyperparameters, or the default one.
pub(crate) fn context(config: &ModelConfig, asked: Option<usize>) -> Result<usize, RuntimeError> {
    let most = config.context;
    let context = asked.unwrap_or(most.min(DEFAULT_CONTEXT));
    in_range("context", context, most)?;
    Ok(context)
}

pub(crate) fn in_range(option: &'static str, value: usize, max: usize) -> Result<(), RuntimeError> {
    if (1..=max).contains(&value) {
        return Ok(());
    }
    Err(RuntimeError::InvalidOption { option, found: value.to_string(), expected: format!("1 to {max}") })
}
