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
    /// The context was full, and the oldest tokens after the head were dropped
    /// ([`Overflow::Slide`](crate::Overflow::Slide)). Those that are left are run again from the head on: they stand at
    /// other positions now. That can be cancelled like a long prompt; what was dropped stays so.
    #[non_exhaustive]
    Slid {
        /// How many were dropped.
        dropped: usize,
    },
    /// The generation goes round in circles: the last tokens are a text of `period` tokens, said six times or more, and
    /// 96 tokens in all. Told once for each loop; nothing is done about it.
    #[non_exhaustive]
    Loop {
        /// Tokens of one round.
        period: usize,
        /// Tokens of the loop so far.
        tokens: usize,
    },
    /// There was too little memory for the context that was asked for, and the scheduler's
    /// [`ContextPolicy`](crate::ContextPolicy) made it shorter. It stays as it is from here on.
    #[non_exhaustive]
    ContextShortened {
        /// Tokens asked for.
        asked: usize,
        /// Tokens given.
        given: usize,
    },
}
