//! How a forward pass uses the machine: a team of threads and an arena of activations.

mod pool;
mod scratch;

pub(crate) use pool::Team;
pub(crate) use scratch::{LOGIT_ROWS, Scratch};
