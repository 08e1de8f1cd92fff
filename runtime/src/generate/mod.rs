//! From logits to text: choosing a token, and knowing when to stop.

mod sampler;
mod stop;

pub use sampler::{DEFAULT_SEED, Sampling};
pub use stop::{Finish, StopRules};

pub(crate) use sampler::{Logits, PEAK_RUN, Sampler, peak};
pub(crate) use stop::StopBuffer;
