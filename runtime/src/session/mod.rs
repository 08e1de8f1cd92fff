//! What an application holds: push tokens or text, pull tokens or text, cancel.
//!
//! A session owns its cache and its activations, and nothing else can reach them. Its tokens are the history; the cache
//! may be behind it: a token that was just chosen is not run through the model before its logits are asked for, so the
//! last one of a generation never is. A call that fails or is cancelled has no effect.

mod chat;
mod event;
mod fork;
mod generation;
mod rows;

use std::{fmt, time::Instant};

use halfbyte_kernels::KvType;

pub use event::Event;

use crate::{
    CancelToken, Finish, Model, RuntimeError, Sampling, Stats, StopRules,
    exec::{MAX_BATCH, Scratch},
    generate::{Sampler, StopBuffer},
    kv::KvCache,
    layers::{Exec, Want},
    memory::with_room,
    text::{Decoder, Special},
};

/// Context when none is asked for, unless the model's own is shorter.
const DEFAULT_CONTEXT: usize = 4096;
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
    /// Prompt tokens that pass through the model at a time.
    pub batch: usize,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { context: None, kv: KvType::F16, batch: DEFAULT_BATCH }
    }
}

/// One conversation with a [`Model`].
///
/// What was said once need not be run again: go back to where texts begin to differ, and on from there; or go on in several
/// ways at once, each in a [`fork`](Session::fork).
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
    model: Model,
    cache: KvCache,
    scratch: Scratch,
    /// Residual stream of the last token, for the multi-token-prediction layer.
    carry: Vec<f32>,
    /// All tokens; the first `cache.len()` of them have been run. `scratch.logits` are those of the last one if all have.
    tokens: Vec<u32>,
    sampler: Sampler,
    rules: StopRules,
    stop: StopBuffer,
    finish: Option<Finish>,
    /// Tokens chosen in this generation.
    generated: usize,
    /// Generated text always continues what was pushed.
    decoder: Option<Decoder>,
    /// Decoded text of the last token, before stop rules.
    piece: String,
    /// Text that the last call released.
    text: String,
    cancel: CancelToken,
    stats: Stats,
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
        let context = options.context.unwrap_or(config.context.min(DEFAULT_CONTEXT));
        in_range("context", context, config.context)?;
        in_range("batch", options.batch, MAX_BATCH)?;
        let batch = options.batch.min(context);
        let cache = KvCache::new(config, options.kv, context)?;
        let scratch = Scratch::new(config, model.vocab(), batch, context)?;
        let sampling = Sampling::default();
        Ok(Self {
            cache,
            scratch,
            carry: vec![0.0; if config.mtp_layers > 0 { config.hidden } else { 0 }],
            tokens: with_room("token history", context)?,
            stats: Stats { load: model.load_time(), seed: sampling.seed, ..Stats::default() },
            sampler: Sampler::new(sampling, model.vocab())?,
            rules: StopRules::default(),
            stop: StopBuffer::default(),
            finish: None,
            generated: 0,
            decoder: model.tokenizer().map(|tokenizer| tokenizer.decoder().mid_text()),
            piece: String::with_capacity(256),
            text: String::with_capacity(256),
            cancel: CancelToken::default(),
            progress: None,
            events: None,
            model,
        })
    }

    /// Sets how tokens are chosen from here on; the random sequence starts anew.
    ///
    /// # Errors
    /// [`RuntimeError::InvalidOption`] names the value that makes no sense.
    pub fn set_sampling(&mut self, sampling: Sampling) -> Result<(), RuntimeError> {
        self.sampler = Sampler::new(sampling, self.model.vocab())?;
        self.stats.seed = self.sampler.seed();
        Ok(())
    }

    /// Sets what ends a generation, and lets one that is under way or has ended go on under the new rules.
    ///
    /// # Errors
    /// [`RuntimeError::InvalidOption`] for an empty or huge stop string.
    pub fn set_stop(&mut self, rules: StopRules) -> Result<(), RuntimeError> {
        self.stop = self.stop.with_strings(&rules.strings)?;
        self.rules = rules;
        self.finish = None;
        self.generated = 0;
        Ok(())
    }

    /// Calls `each` while tokens are run, after every batch, with the number of those run so far and of all to be run:
    /// those pushed, or all that [`Event::Rerun`] is about. What fits into one batch is not worth a call.
    pub fn on_progress(&mut self, each: impl FnMut(usize, usize) + Send + 'static) {
        self.progress = Some(Box::new(each));
    }

    /// Calls `each` when the session does something on its own account that takes time.
    pub fn on_event(&mut self, each: impl FnMut(&Event) + Send + 'static) {
        self.events = Some(Box::new(each));
    }

    /// Runs `text` as the continuation of the session; special tokens in it are ordinary text. The vocabulary's
    /// begin-of-sequence token is put before the first text if the file says so. Returns the tokens run.
    ///
    /// # Errors
    /// As [`Session::push_tokens`], and [`RuntimeError::NoVocabulary`].
    pub fn push_text(&mut self, text: &str) -> Result<usize, RuntimeError> {
        let tokens = self.encode(text, Special::AsText)?;
        self.push_tokens(&tokens)?;
        Ok(tokens.len())
    }

    /// As [`Session::push_text`] for text of the application's own, in which special tokens are meant as such.
    ///
    /// # Errors
    /// As [`Session::push_text`].
    pub fn push_markup(&mut self, text: &str) -> Result<usize, RuntimeError> {
        let tokens = self.encode(text, Special::Parse)?;
        self.push_tokens(&tokens)?;
        Ok(tokens.len())
    }

    fn encode(&self, text: &str, special: Special) -> Result<Vec<u32>, RuntimeError> {
        let tokenizer = self.model.tokenizer().ok_or(RuntimeError::NoVocabulary)?;
        let mut tokens = tokenizer.encode(text, special);
        if self.tokens.is_empty()
            && tokenizer.add_bos()
            && let Some(bos) = tokenizer.bos()
        {
            tokens.insert(0, bos);
        }
        Ok(tokens)
    }

    /// Runs `tokens` as the continuation of the session and starts a new generation. None at all change nothing.
    ///
    /// How a text is cut into pushes makes no difference to the logits.
    ///
    /// # Errors
    /// [`RuntimeError::TokenOutOfRange`], [`RuntimeError::ContextFull`], [`RuntimeError::Cancelled`]; the session is
    /// then as before the call.
    pub fn push_tokens(&mut self, tokens: &[u32]) -> Result<(), RuntimeError> {
        self.push(tokens, &mut Want::Last)
    }

    /// Checks that `tokens` can be run at all.
    fn admit(&self, tokens: &[u32]) -> Result<(), RuntimeError> {
        let vocab = self.model.vocab();
        if let Some(&id) = tokens.iter().find(|&&id| id as usize >= vocab) {
            return Err(RuntimeError::TokenOutOfRange { id, vocab });
        }
        let (used, context) = (self.tokens.len(), self.cache.capacity());
        if tokens.len() > context - used {
            return Err(RuntimeError::ContextFull { need: tokens.len(), context, used });
        }
        Ok(())
    }

    fn push(&mut self, tokens: &[u32], want: &mut Want<'_>) -> Result<(), RuntimeError> {
        let start = Instant::now();
        let span = tracing::debug_span!("prompt", tokens = tokens.len());
        let _entered = span.enter();
        self.admit(tokens)?;
        if tokens.is_empty() {
            return Ok(());
        }
        let held = self.tokens.len();
        // An application's callback that panicked inside `mtp_logits` can have left rows of no token.
        self.cache.truncate(held);
        self.tokens.extend_from_slice(tokens);
        if let Err(error) = self.catch_up(held, want) {
            self.tokens.truncate(held);
            self.unsettle();
            return Err(error);
        }
        if self.stats.tokens > 0 {
            self.stats = self.new_stats();
        }
        self.stats.prompt_tokens += tokens.len();
        self.stats.prompt += start.elapsed();
        self.new_generation();
        Ok(())
    }

    fn new_stats(&self) -> Stats {
        Stats { load: self.stats.load, seed: self.stats.seed, ..Stats::default() }
    }

    /// What comes next does not continue any text that was generated before.
    fn new_generation(&mut self) {
        self.finish = None;
        self.generated = 0;
        self.decoder = self.model.tokenizer().map(|tokenizer| tokenizer.decoder().mid_text());
        self.stop.clear();
    }

    /// Runs all tokens that have not been run, in batches; `want` is about those from the index `from` on.
    ///
    /// LongRoPE: if the tokens have become so many, or so few, that the other factors are right, none counts as run.
    fn catch_up(&mut self, from: usize, want: &mut Want<'_>) -> Result<(), RuntimeError> {
        let Self { model, cache, scratch, cancel, tokens, progress, events, .. } = self;
        let exec = Exec { kernels: model.kernels(), team: model.team(), cancel };
        let factors = model.graph().rotations().set(tokens.len(), cache.capacity());
        if factors != cache.factors() {
            let forgotten = cache.len();
            if forgotten > 0 {
                tracing::info!(tokens = forgotten, factors = factors.name(), "other rotation factors: running again");
                if let Some(events) = events {
                    events(&Event::Rerun { tokens: forgotten, factors });
                }
                // Whoever does not want it loses nothing yet.
                exec.check()?;
            }
            cache.rotate_with(factors);
        }
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
        Ok(())
    }

    /// Makes `scratch.logits` those of the last token.
    fn settle(&mut self) -> Result<(), RuntimeError> {
        self.catch_up(0, &mut Want::Last)
    }

    /// `scratch.logits` are no longer those of the last token: it has to be run again before they are of use.
    fn unsettle(&mut self) {
        self.cache.truncate(self.tokens.len().saturating_sub(1));
    }

    /// Logits of the last token, `(vocab)`: what the next choice is made from.
    ///
    /// # Errors
    /// [`RuntimeError::EmptySession`], [`RuntimeError::Cancelled`].
    pub fn logits(&mut self) -> Result<&[f32], RuntimeError> {
        if self.tokens.is_empty() {
            return Err(RuntimeError::EmptySession);
        }
        self.settle()?;
        Ok(self.scratch.logits.get(..self.model.vocab()).unwrap_or(&[]))
    }

    /// All tokens so far, pushed and generated.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Tokens the session can hold.
    #[must_use]
    pub fn context(&self) -> usize {
        self.cache.capacity()
    }

    /// Forgets all tokens from `len` up, any generation in progress, and the statistics.
    pub fn truncate(&mut self, len: usize) {
        if len < self.tokens.len() {
            self.tokens.truncate(len);
            self.unsettle();
        }
        self.stats = self.new_stats();
        self.new_generation();
    }

    /// A handle with which any thread can stop this session's calls.
    #[must_use]
    pub fn cancel_token(&self) -> CancelToken {
        self.cancel.clone()
    }

    /// Counts and times of the last prompt and of what was generated from it.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Bytes of keys and values that the tokens so far take; as much is read to decode the next one.
    #[must_use]
    pub fn kv_bytes(&self) -> usize {
        self.cache.len_bytes()
    }

    /// The model this session runs.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokens = self.tokens.len();
        f.debug_struct("Session").field("tokens", &tokens).field("finish", &self.finish).finish_non_exhaustive()
    }
}

fn in_range(option: &'static str, value: usize, max: usize) -> Result<(), RuntimeError> {
    if (1..=max).contains(&value) {
        return Ok(());
    }
    Err(RuntimeError::InvalidOption { option, found: value.to_string(), expected: format!("1 to {max}") })
}
