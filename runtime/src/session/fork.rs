//! Sequences that begin alike.

use super::Session;
use crate::{RuntimeError, SessionOptions};

impl Session {
    /// A session that goes on exactly as this one would: with its tokens, its options, its sampler and what it has
    /// generated so far. The two know nothing of each other from here on; each can be continued, truncated and forked again.
    ///
    /// Nothing is run again and no keys and values are copied: both read the same pages, of 64 tokens each. Only of the last
    /// page, if it is not full, whoever writes to it first takes a copy. The new session has memory of its own for
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
    /// [`RuntimeError::OutOfMemory`].
    pub fn fork(&self) -> Result<Self, RuntimeError> {
        let options = SessionOptions { context: Some(self.context()), kv: self.cache.ty(), batch: self.scratch.batch };
        let mut fork = Self::new(self.model.clone(), &options)?;
        fork.cache = self.cache.fork()?;
        // A callback that panicked can have left rows of no token.
        fork.cache.truncate(self.tokens.len());
        fork.tokens.extend_from_slice(&self.tokens);
        let vocab = self.model.vocab();
        if let (Some(to), Some(from)) = (fork.scratch.logits.get_mut(..vocab), self.scratch.logits.get(..vocab)) {
            to.copy_from_slice(from);
        }
        fork.scratch.peaks.copy_from_slice(&self.scratch.peaks);
        fork.sampler = self.sampler.fork(vocab)?;
        fork.rules = self.rules.clone();
        fork.stop = self.stop.with_strings(&self.rules.strings)?;
        (fork.finish, fork.generated, fork.decoder) = (self.finish, self.generated, self.decoder.clone());
        fork.text.push_str(&self.text);
        fork.stats = self.new_stats();
        Ok(fork)
    }
}
