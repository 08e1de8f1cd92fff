//! What a run cost.

use std::time::Duration;

/// Counts and times of a session since its last push.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Time the model took to load.
    pub load: Duration,
    /// Tokens of the last push.
    pub prompt_tokens: usize,
    /// Time they took.
    pub prompt: Duration,
    /// From the beginning of the push to the first token.
    pub first_token: Option<Duration>,
    /// Tokens generated since.
    pub tokens: usize,
    /// Time of the forward passes and choices after the first token.
    pub decode: Duration,
    /// Seed of the sampler.
    pub seed: u64,
}

impl Stats {
    /// Prompt tokens per second.
    #[must_use]
    pub fn prompt_rate(&self) -> f64 {
        rate(self.prompt_tokens, self.prompt)
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
