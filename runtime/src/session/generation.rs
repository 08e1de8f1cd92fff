//! The generating half of a session: choose a token, decode its text, know when to stop.
//!
//! Text is released only when it is certain: whole characters, and nothing that may become a stop string.

use std::time::{Duration, Instant};

use super::Session;
use crate::{
    Finish, RuntimeError,
    generate::{Logits, PEAK_RUN},
};

impl Session {
    /// Chooses the next token. `None` means the generation is over: see [`Session::finish`]. The text that became
    /// certain by this call is [`Session::text`]; also the call that returns `None` can release some.
    ///
    /// # Errors
    /// [`RuntimeError::EmptySession`], [`RuntimeError::Cancelled`], [`RuntimeError::NonFiniteLogits`]; the call can
    /// be repeated.
    pub fn next_token(&mut self) -> Result<Option<u32>, RuntimeError> {
        self.text.clear();
        if self.finish.is_some() {
            return Ok(None);
        }
        if self.tokens.is_empty() {
            return Err(RuntimeError::EmptySession);
        }
        if self.cancel.is_cancelled() {
            return Err(RuntimeError::Cancelled);
        }
        if self.rules.max_tokens.is_some_and(|max| self.generated >= max) {
            return Ok(self.end(Finish::MaxTokens));
        }
        if self.tokens.len() >= self.cache.capacity() {
            return Ok(self.end(Finish::ContextFull));
        }
        let start = Instant::now();
        let span = tracing::trace_span!("decode", position = self.tokens.len());
        let _entered = span.enter();
        self.settle()?;
        let vocab = self.model.vocab();
        let logits = Logits {
            values: self.scratch.logits.get(..vocab).unwrap_or_default(),
            peaks: self.scratch.peaks.get(..vocab.div_ceil(PEAK_RUN)).unwrap_or_default(),
        };
        let id = self.sampler.choose(logits, &self.tokens, self.tokens.len() - 1)?;
        if self.rules.end_of_text && self.model.tokenizer().is_some_and(|t| t.end_of_generation(id)) {
            return Ok(self.end(Finish::EndOfText));
        }
        self.tokens.push(id);
        self.generated += 1;
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
    fn end(&mut self, finish: Finish) -> Option<u32> {
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
        None
    }

    /// Text released by the last [`Session::next_token`]: whole characters, never part of a stop string.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Why the generation is over, if it is.
    #[must_use]
    pub fn finish(&self) -> Option<Finish> {
        self.finish
    }
}

/// The pieces of generated text, none empty. An error is not the end: the next call tries again what failed.
impl Iterator for Session {
    type Item = Result<String, RuntimeError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_token() {
                Err(error) => return Some(Err(error)),
                Ok(_) if !self.text.is_empty() => return Some(Ok(self.text.clone())),
                Ok(None) => return None,
                Ok(Some(_)) => {}
            }
        }
    }
}
