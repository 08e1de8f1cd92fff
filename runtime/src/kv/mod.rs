//! Keys and values of the tokens a session has seen.

mod cache;

pub(crate) use cache::{KvCache, LayerKv};
