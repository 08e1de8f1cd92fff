//! What a run cost.

use std::time::Duration;

/// Counts and times of a prompt and of what was generated from it.
///
/// A prompt may be pushed in parts: pushes with no token generated between them are one prompt. What the application
/// does between calls is not counted. What a LongRoPE model runs again ([`Event::Rerun`](crate::Event::Rerun)) counts
/// as time of the prompt or token that made it necessary.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Time the model took to load.
    pub load: Duration,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of them that were known from a [`PrefixCache`](crate::PrefixCache), and not run.
    pub cached_tokens: usize,
    /// Time they took, the last token generated before included if it had not been run yet.
    pub prompt: Duration,
    /// Time until the first token was there: the prompt, and choosing it.
    pub first_token: Option<Duration>,
    /// Tokens generated since.
    pub tokens: usize,
    /// Time that those after the first one took: running the token before, and choosing.
    pub decode: Duration,
    /// Seed of the sampler.
    pub seed: u64,
}

impl Stats {
    /// Prompt tokens that were run per second.
    #[must_use]
    pub fn prompt_rate(&self) -> f64 {
        rate(self.prompt_tokens.saturating_sub(self.cached_tokens), self.prompt)
    }

    /// Generated tokens per second, the first not counted: it comes out of the prompt.
    #[must_use]
    pub fn decode_rate(&self) -> f64 {
        rate(self.tokens.saturating_sub(1), self.decode)
    }
}

fn rate(tokens: usize, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { tokens as f64 / time.as_secs_f64() }
}
