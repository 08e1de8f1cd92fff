//! How a forward pass uses the machine: a team of threads, rotation tables and an arena of activations.

mod affinity;
mod cores;
mod rope;
mod scratch;
mod split;
mod team;

pub(crate) use cores::Cores;
pub use rope::FactorSet;
pub(crate) use rope::Rotations;
pub(crate) use scratch::{LOGIT_ROWS, MoeScratch, Scratch};
pub(crate) use split::{Batch, Batches, Chunks, Grid, Groups, HalvesOfHeads, MAX_BATCH, PageParts, Rows, Window};
pub(crate) use team::{Team, TeamUntil};
