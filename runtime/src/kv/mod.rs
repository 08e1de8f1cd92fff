//! Keys and values of the tokens that sequences have seen.

mod cache;
mod pass;

pub(crate) use cache::{KvCache, LayerPages, Page};
pub(crate) use pass::{LayerKv, MAX_SEQUENCES};
