//! Sequences that begin alike.

use super::{Session, new_carry};
use crate::{RuntimeError, exec::Scratch};

impl Session {
    /// A session that goes on exactly as this one would: with its tokens, its options, its sampler and what it has
    /// generated so far. The two know nothing of each other from here on; each can be continued, truncated and forked
    /// again.
    ///
    /// Nothing is run again and no keys and values are copied: both read the same pages, of 64 tokens each. Only of the
    /// last page, if it is not full, whoever writes to it first takes a copy. The new session has memory of its own for
    /// activations, a cancel token of its own, no callbacks, and statistics that begin anew.
    ///
    /// ```no_run
    /// # fn answers(session: &mut halfbyte::Session, questions: &[&str]) -> Result<(), halfbyte::RuntimeError> {
    /// session.push_text("A long text. Now a question about it: ")?;
    /// for question in questions {
    ///     let mut fork = session.fork()?;
    ///     fork.push_text(question)?;
    ///     println!("{}", fork.take(50).collect::<Result<String, _>>()?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`RuntimeError::OutOfMemory`], [`RuntimeError::BudgetExceeded`].
    pub fn fork(&self) -> Result<Self, RuntimeError> {
        let Self { sequence, scratch, .. } = self;
        let (model, vocab) = (&sequence.model, sequence.model.vocab());
        let mut fork = Self {
            sequence: sequence.fork()?,
            scratch: Scratch::of(&mut model.budget().lease(), model, scratch.batch, self.context())?,
            carry: new_carry(model.config())?,
            prefixes: self.prefixes.clone(),
            progress: None,
            events: None,
        };
        if let (Some(to), Some(from)) = (fork.scratch.logits.get_mut(..vocab), scratch.logits.get(..vocab)) {
            to.copy_from_slice(from);
        }
        fork.scratch.peaks.copy_from_slice(&scratch.peaks);
        Ok(fork)
    }
}
