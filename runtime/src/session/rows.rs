//! The logits of every token instead of the last one only: to measure a model, not to talk to it.

use super::{Sequence, Session};
use crate::{
    RuntimeError,
    layers::{Exec, Want},
};

impl Session {
    /// As [`Session::push_tokens`]; `each` gets the index and the logits, `(vocab)`, of every one of `tokens`.
    ///
    /// A LongRoPE model rotates all of them for the length of the sequence after this push, so that the logits of those
    /// up to the original context depend on whether the push goes beyond it.
    ///
    /// ```no_run
    /// # fn likeliest(session: &mut halfbyte::Session, tokens: &[u32]) -> Result<(), halfbyte::RuntimeError> {
    /// session.push_tokens_with(tokens, |index, logits| {
    ///     let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
    ///     println!("after token {index}: {best:?}");
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Session::push_tokens`].
    pub fn push_tokens_with(
        &mut self,
        tokens: &[u32],
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<(), RuntimeError> {
        self.push(tokens, &mut Want::Each(&mut each))
    }

    /// Runs `tokens` through an empty session; `each` gets the index and the logits of the multi-token-prediction
    /// row of every one of `tokens` but the first: what it predicts for the token after the next.
    ///
    /// # Errors
    /// [`RuntimeError::NoMtp`], [`RuntimeError::InvalidOption`] if the session is not empty, and as
    /// [`Session::push_tokens`].
    pub fn mtp_logits(&mut self, tokens: &[u32], mut each: impl FnMut(usize, &[f32])) -> Result<(), RuntimeError> {
        if self.model().config().mtp_layers == 0 {
            return Err(RuntimeError::NoMtp);
        }
        if !self.tokens().is_empty() {
            return Err(RuntimeError::InvalidOption {
                option: "session",
                found: format!("{} tokens long", self.tokens().len()),
                expected: "empty".to_owned(),
            });
        }
        self.sequence.admit(tokens)?;
        // A callback that panicked inside an earlier call can have left rows of no token.
        self.sequence.cache.truncate(0);
        let done = self.run_mtp(tokens, &mut each);
        // The tokens were never the session's own; their keys and values go too.
        self.sequence.cache.truncate(0);
        done
    }

    fn run_mtp(&mut self, tokens: &[u32], each: &mut dyn FnMut(usize, &[f32])) -> Result<(), RuntimeError> {
        let Self { sequence: Sequence { model, cache, cancel, .. }, scratch, carry, .. } = self;
        let exec = Exec::new(model.kernels(), model.team(), cancel);
        for (chunk, part) in tokens.chunks(scratch.batch).enumerate() {
            let first = chunk * scratch.batch;
            model.graph().forward(exec, scratch, cache, part, &mut Want::Stream)?;
            model.graph().mtp(exec, scratch, cache, part, carry, &mut |index, logits| each(first + index, logits))?;
            cache.commit(part.len());
        }
        Ok(())
    }
}
