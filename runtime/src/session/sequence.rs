//! A sequence of tokens and how it goes on: all of a session but the memory it computes in.
//!
//! Its tokens are the history; the cache may be behind it: a token that was just chosen is not run before its logits
//! are asked for. Whoever owns the activations runs what is [`pending`](Sequence::pending) and then has a token
//! [chosen](Sequence::choose): a session for itself, a scheduler for many sequences at a time.

use std::time::{Duration, Instant};

use halfbyte_kernels::KvType;

use crate::{
    CancelToken, Event, FactorSet, Finish, Model, Overflow, RuntimeError, Sampling, Stats, StopRules,
    budget::Lease,
    generate::{Logits, Repetition, Sampler, StopBuffer},
    kv::KvCache,
    memory::with_room,
    text::{Decoder, Special},
};

/// See the head of this file.
pub(crate) struct Sequence {
    pub(crate) model: Model,
    pub(crate) cache: KvCache,
    /// All tokens; the first `cache.len()` of them have been run.
    pub(crate) tokens: Vec<u32>,
    sampler: Sampler,
    rules: StopRules,
    overflow: Overflow,
    repetition: Repetition,
    /// What has happened and was not told yet; there is room for what one token can bring.
    pub(crate) events: Vec<Event>,
    stop: StopBuffer,
    pub(super) finish: Option<Finish>,
    /// Tokens chosen in this generation.
    generated: usize,
    /// Generated text always continues what was pushed.
    decoder: Option<Decoder>,
    /// Decoded text of the last token, before stop rules.
    piece: String,
    /// Text that the last call released.
    pub(crate) text: String,
    pub(crate) cancel: CancelToken,
    pub(super) stats: Stats,
    /// What the buffers above take of the model's budget; the cache asks for itself.
    _lease: Lease,
}

impl Sequence {
    /// An empty sequence, which takes its memory out of `grant` as far as that goes.
    pub(crate) fn new(model: Model, kv: KvType, context: usize, mut grant: Lease) -> Result<Self, RuntimeError> {
        let sampling = Sampling::default();
        Ok(Self {
            _lease: grant.take(Self::buffer_bytes(model.vocab(), context))?,
            cache: KvCache::new(grant, model.config(), kv, context)?,
            tokens: with_room("token history", context)?,
            stats: Stats { load: model.load_time(), seed: sampling.seed, ..Stats::default() },
            sampler: Sampler::new(sampling, model.vocab())?,
            rules: StopRules::default(),
            overflow: Overflow::default(),
            repetition: Repetition::new(),
            events: Vec::with_capacity(4),
            stop: StopBuffer::default(),
            finish: None,
            generated: 0,
            decoder: model.tokenizer().map(|tokenizer| tokenizer.decoder().mid_text()),
            piece: String::with_capacity(256),
            text: String::with_capacity(256),
            cancel: CancelToken::default(),
            model,
        })
    }

    /// Bytes of the history and of the sampler's candidates.
    pub(crate) fn buffer_bytes(vocab: usize, context: usize) -> usize {
        let history = context.saturating_mul(size_of::<u32>());
        history.saturating_add(Sampler::buffer_bytes(vocab))
    }

    /// One that goes on as this one would.
    pub(crate) fn fork(&self) -> Result<Self, RuntimeError> {
        let grant = self.model.budget().lease();
        let mut fork = Self::new(self.model.clone(), self.cache.ty(), self.cache.capacity(), grant)?;
        fork.cache = self.cache.fork()?;
        // A callback that panicked can have left rows of no token.
        fork.cache.truncate(self.tokens.len());
        fork.tokens.extend_from_slice(&self.tokens);
        fork.sampler = self.sampler.fork(self.model.vocab())?;
        fork.rules = self.rules.clone();
        (fork.overflow, fork.repetition) = (self.overflow, self.repetition.clone());
        fork.stop = self.stop.with_strings(&self.rules.strings)?;
        (fork.finish, fork.generated, fork.decoder) = (self.finish, self.generated, self.decoder.clone());
        fork.text.push_str(&self.text);
        fork.stats = self.new_stats();
        Ok(fork)
    }

    pub(crate) fn set_sampling(&mut self, sampling: Sampling) -> Result<(), RuntimeError> {
        self.sampler = Sampler::new(sampling, self.model.vocab())?;
        self.stats.seed = self.sampler.seed();
        Ok(())
    }

    pub(crate) fn set_stop(&mut self, rules: StopRules) -> Result<(), RuntimeError> {
        self.stop = self.stop.with_strings(&rules.strings)?;
        self.rules = rules;
        self.finish = None;
        self.generated = 0;
        Ok(())
    }

    pub(crate) fn set_overflow(&mut self, overflow: Overflow) -> Result<(), RuntimeError> {
        overflow.check(self.cache.capacity())?;
        self.overflow = overflow;
        Ok(())
    }

    /// The tokens of `text`; at the start with the vocabulary's begin-of-sequence token if the file says so.
    pub(crate) fn encode(&self, text: &str, special: Special) -> Result<Vec<u32>, RuntimeError> {
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

    /// Checks that `tokens` can be run at all.
    pub(crate) fn admit(&self, tokens: &[u32]) -> Result<(), RuntimeError> {
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

    /// Appends `tokens`, to be run.
    pub(crate) fn extend(&mut self, tokens: &[u32]) -> Result<(), RuntimeError> {
        self.admit(tokens)?;
        // An application's callback that panicked inside `mtp_logits` can have left rows of no token.
        self.cache.truncate(self.tokens.len());
        self.tokens.extend_from_slice(tokens);
        Ok(())
    }

    /// A prompt's `tokens` have been run in `time`, but for those that were `known`: what comes next is a new
    /// generation.
    pub(super) fn begin(&mut self, tokens: usize, known: usize, time: Duration) {
        if self.stats.tokens > 0 {
            self.stats = self.new_stats();
        }
        self.stats.prompt_tokens += tokens;
        self.stats.cached_tokens += known;
        self.stats.prompt += time;
        self.new_generation();
    }

    /// Tokens that have not been run.
    pub(crate) fn pending(&self) -> usize {
        self.tokens.len().saturating_sub(self.cache.len())
    }

    /// The rotation factors that the cache should have been filled with, if they are others.
    pub(crate) fn other_factors(&self) -> Option<FactorSet> {
        let factors = self.model.graph().rotations().set(self.tokens.len(), self.cache.capacity());
        (factors != self.cache.factors()).then_some(factors)
    }

    /// Fails if the sequence was cancelled.
    pub(crate) fn check(&self) -> Result<(), RuntimeError> {
        if self.cancel.is_cancelled() { Err(RuntimeError::Cancelled) } else { Ok(()) }
    }

    /// Nobody has the logits of the last token any more: it has to be run again before they are of use.
    pub(super) fn unsettle(&mut self) {
        self.cache.truncate(self.tokens.len().saturating_sub(1));
    }

    /// Forgets all tokens from `len` up, any generation in progress, and the statistics.
    pub(crate) fn truncate(&mut self, len: usize) {
        if len < self.tokens.len() {
            self.tokens.truncate(len);
            self.unsettle();
        }
        self.stats = self.new_stats();
        self.new_generation();
    }

    pub(super) fn new_stats(&self) -> Stats {
        Stats { load: self.stats.load, seed: self.stats.seed, ..Stats::default() }
    }

    /// What comes next does not continue any text that was generated before.
    fn new_generation(&mut self) {
        self.finish = None;
        self.generated = 0;
        self.repetition = Repetition::new();
        self.decoder = self.model.tokenizer().map(|tokenizer| tokenizer.decoder().mid_text());
        self.stop.clear();
    }

    /// Whether another token is to be chosen; if not, the generation is over, and its last text is released.
    ///
    /// # Errors
    /// [`RuntimeError::EmptySession`], [`RuntimeError::Cancelled`]; [`RuntimeError::ContextFull`], if that is what is
    /// wanted of a full context.
    pub(crate) fn wants_token(&mut self) -> Result<bool, RuntimeError> {
        self.text.clear();
        if self.finish.is_some() {
            return Ok(false);
        }
        if self.tokens.is_empty() {
            return Err(RuntimeError::EmptySession);
        }
        self.check()?;
        let (used, context) = (self.tokens.len(), self.cache.capacity());
        if self.rules.max_tokens.is_some_and(|max| self.generated >= max) {
            self.end(Finish::MaxTokens);
        } else if used >= context {
            match self.overflow {
                Overflow::Stop => self.end(Finish::ContextFull),
                Overflow::Error => return Err(RuntimeError::ContextFull { need: 1, context, used }),
                Overflow::Slide { keep } => self.slide(keep),
            }
        }
        Ok(self.finish.is_none())
    }

    /// Drops the older half of the tokens after the first `keep`: one at least, and one at least is left to be run.
    fn slide(&mut self, keep: usize) {
        let dropped = self.tokens.len().saturating_sub(keep).div_ceil(2);
        self.tokens.drain(keep..keep + dropped);
        self.cache.truncate(keep);
        self.events.push(Event::Slid { dropped });
        tracing::debug!(dropped, "context full: the oldest tokens after the head are dropped");
    }

    /// Chooses the next token by the logits of the last one, work on which began at `start`; `None` if the model ends
    /// the generation. The text that this makes certain is `text`.
    pub(crate) fn choose(&mut self, logits: Logits<'_>, start: Instant) -> Result<Option<u32>, RuntimeError> {
        let id = self.sampler.choose(logits, &self.tokens, self.tokens.len().saturating_sub(1))?;
        if self.rules.end_of_text && self.model.tokenizer().is_some_and(|t| t.end_of_generation(id)) {
            self.end(Finish::EndOfText);
            return Ok(None);
        }
        self.tokens.push(id);
        self.generated += 1;
        if let Some((period, tokens)) = self.repetition.push(id) {
            tracing::warn!(period, tokens, "the generation goes round in circles");
            self.events.push(Event::Loop { period, tokens });
        }
        self.count(start.elapsed());
        if let Some(decoder) = &mut self.decoder {
            self.piece.clear();
            decoder.push(id, &mut self.piece);
            if self.stop.push(&self.piece, &mut self.text) {
                self.finish = Some(Finish::StopString);
            }
        }
        if self.finish.is_none() && self.rules.max_tokens == Some(self.generated) {
            self.end(Finish::MaxTokens);
        }
        Ok(Some(id))
    }

    /// Counts a token that took `time`.
    fn count(&mut self, time: Duration) {
        if self.stats.tokens == 0 {
            self.stats.first_token = Some(self.stats.prompt + time);
        } else {
            self.stats.decode += time;
        }
        self.stats.tokens += 1;
    }

    /// Ends the generation and releases what was held back.
    fn end(&mut self, finish: Finish) {
        self.finish = Some(finish);
        if let Some(decoder) = &mut self.decoder {
            self.piece.clear();
            decoder.finish(&mut self.piece);
            if self.stop.push(&self.piece, &mut self.text) {
                self.finish = Some(Finish::StopString);
            } else {
                self.stop.flush(&mut self.text);
            }
        }
    }

    /// Why the generation is over, if it is.
    pub(crate) fn finish(&self) -> Option<Finish> {
        self.finish
    }
}
