//! From logits to text: choosing a token, and knowing when to stop.

mod repetition;
mod sampler;
mod stop;

pub use sampler::{DEFAULT_SEED, Sampling};
pub use stop::{Finish, Overflow, StopRules};

pub(crate) use repetition::Repetition;
pub(crate) use sampler::{Logits, PEAK_RUN, Sampler, peak};
pub(crate) use stop::StopBuffer;
