//! What a session tells of its own accord.

use crate::FactorSet;

/// What a session does that its caller did not ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The sequence has crossed the original context of a LongRoPE model, in either direction, so that it is rotated
    /// otherwise from its first token on: everything that was run before is about to be run again. That can be
    /// cancelled like a long prompt, also by the callback, and the tokens stay as they were.
    #[non_exhaustive]
    Rerun {
        /// How many tokens.
        tokens: usize,
        /// The factors that are right now.
        factors: FactorSet,
    },
}
