//! The cache of one session: for each layer a run of keys and one of values, `(kv_heads, capacity, head_dim)`.
//!
//! Memory is mapped, not written: pages that no token reached cost address space only, and a failure to map is an
//! error instead of an abort. A position counts once [`KvCache::commit`] says so, so an interrupted step leaves nothing.

use halfbyte_kernels::{KvLayout, KvType};
use memmap2::MmapMut;

use crate::{FactorSet, RuntimeError, config::ModelConfig};

/// Keys and values of one layer.
pub(crate) struct LayerKv<'a> {
    pub(crate) layout: KvLayout,
    pub(crate) keys: &'a mut [u8],
    pub(crate) values: &'a mut [u8],
}

/// Keys and values of all layers, the multi-token-prediction ones last.
pub(crate) struct KvCache {
    layout: KvLayout,
    layers: usize,
    /// Bytes of the keys of one layer.
    run: usize,
    memory: MmapMut,
    len: usize,
    /// What all keys in it were rotated with.
    factors: FactorSet,
}

impl KvCache {
    pub(crate) fn new(config: &ModelConfig, ty: KvType, capacity: usize) -> Result<Self, RuntimeError> {
        let layout = KvLayout { ty, kv_heads: config.kv_heads, head_dim: config.head_dim, capacity };
        let layers = config.layers + config.mtp_layers;
        let run = layout.len_bytes()?;
        let bytes = run.saturating_mul(2 * layers);
        let memory = MmapMut::map_anon(bytes).map_err(|_| RuntimeError::OutOfMemory { what: "the KV cache", bytes })?;
        Ok(Self { layout, layers, run, memory, len: 0, factors: FactorSet::Short })
    }

    /// Positions that count.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Positions there is room for.
    pub(crate) fn capacity(&self) -> usize {
        self.layout.capacity
    }

    /// Bytes reserved; the part in use is `len / capacity` of it.
    pub(crate) fn len_bytes(&self) -> usize {
        self.memory.len()
    }

    /// Makes `tokens` more positions count, all layers having been written.
    pub(crate) fn commit(&mut self, tokens: usize) {
        self.len = (self.len + tokens).min(self.layout.capacity);
    }

    /// Forgets all positions from `len` up.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// What keys are rotated with.
    pub(crate) fn factors(&self) -> FactorSet {
        self.factors
    }

    /// Forgets all positions; keys to come are rotated with `factors`.
    pub(crate) fn rotate_with(&mut self, factors: FactorSet) {
        self.factors = factors;
        self.len = 0;
    }

    /// The runs of `layer`; an empty layer if there is no such one, which the kernels refuse.
    pub(crate) fn layer(&mut self, layer: usize) -> LayerKv<'_> {
        debug_assert!(layer < self.layers);
        let start = (2 * layer * self.run).min(self.memory.len());
        let both = &mut self.memory[start..];
        let (keys, rest) = both.split_at_mut(self.run.min(both.len()));
        let end = self.run.min(rest.len());
        let values = &mut rest[..end];
        LayerKv { layout: self.layout, keys, values }
    }
}
