//! The generating half of a session: run what is behind, have a token chosen, hand out its text.
//!
//! Text is released only when it is certain: whole characters, and nothing that may become a stop string.

use std::time::Instant;

use super::Session;
use crate::{Finish, RuntimeError};

impl Session {
    /// Chooses the next token. `None` means the generation is over: see [`Session::finish`]. The text that became
    /// certain by this call is [`Session::text`]; also the call that returns `None` can release some.
    ///
    /// # Errors
    /// [`RuntimeError::EmptySession`], [`RuntimeError::Cancelled`], [`RuntimeError::NonFiniteLogits`],
    /// [`RuntimeError::OutOfMemory`], [`RuntimeError::BudgetExceeded`], [`RuntimeError::WorkerPanicked`], and
    /// [`RuntimeError::ContextFull`] with [`Overflow::Error`](crate::Overflow::Error); the call can be repeated. If it
    /// has made room before ([`Event::Slid`](crate::Event::Slid)), the tokens that were dropped stay so: the next call
    /// goes on from what is left.
    pub fn next_token(&mut self) -> Result<Option<u32>, RuntimeError> {
        let wants = self.sequence.wants_token();
        self.tell();
        if !wants? {
            return Ok(None);
        }
        let start = Instant::now();
        let span = tracing::trace_span!("decode", position = self.sequence.tokens.len());
        let _entered = span.enter();
        self.settle()?;
        let chosen = self.sequence.choose(self.scratch.last_logits(), start);
        self.tell();
        chosen
    }

    /// Tells what happened.
    fn tell(&mut self) {
        for event in self.sequence.events.drain(..) {
            if let Some(events) = &mut self.events {
                events(&event);
            }
        }
    }

    /// Text released by the last [`Session::next_token`]: whole characters, never part of a stop string.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.sequence.text
    }

    /// Why the generation is over, if it is.
    #[must_use]
    pub fn finish(&self) -> Option<Finish> {
        self.sequence.finish()
    }
}

/// The pieces of generated text, none empty. An error is not the end: the next call tries again what failed.
impl Iterator for Session {
    type Item = Result<String, RuntimeError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_token() {
                Err(error) => return Some(Err(error)),
                Ok(_) if !self.text().is_empty() => return Some(Ok(self.text().to_owned())),
                Ok(None) => return None,
                Ok(Some(_)) => {}
            }
        }
    }
}
