//! How a forward pass uses the machine: a team of threads, rotation tables and an arena of activations.

mod pool;
mod rope;
mod scratch;
mod split;

pub(crate) use pool::Team;
pub use rope::FactorSet;
pub(crate) use rope::Rotations;
pub(crate) use scratch::{LOGIT_ROWS, Scratch};
pub(crate) use split::{Chunks, Grid, Groups, Rows, Window};
