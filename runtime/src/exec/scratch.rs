//! The arena of activations: everything a forward pass writes, allocated once per session.
//!
//! Shapes are for up to `batch` tokens at a time; a pass over fewer uses the front of each buffer.

use std::ops::Range;

use halfbyte_kernels::ops;

use super::rope::{FactorSet, Rotations};
use crate::{
    Model, RuntimeError,
    budget::Lease,
    config::ModelConfig,
    generate::{Logits, PEAK_RUN},
    layers::{Dispatch, Inputs, Routes},
    memory::{Buffer, with_room},
};

/// Rows of logits computed at a time when a caller wants those of every position.
pub(crate) const LOGIT_ROWS: usize = 8;

/// Activations of one session.
pub(crate) struct Scratch {
    /// Tokens a pass may hold.
    pub(crate) batch: usize,
    vocab: usize,
    /// The residual stream: (batch, hidden).
    pub(crate) x: Buffer<f32>,
    /// The stream, normalised: (batch, hidden).
    pub(crate) normed: Inputs,
    /// The embeddings of a multi-token-prediction layer: (batch, hidden), else empty.
    pub(crate) delta: Buffer<f32>,
    /// (batch, heads × head_dim).
    pub(crate) q: Buffer<f32>,
    /// (batch, kv_heads × head_dim).
    pub(crate) k: Buffer<f32>,
    /// (batch, kv_heads × head_dim).
    pub(crate) v: Buffer<f32>,
    /// (batch, heads × head_dim).
    pub(crate) attended: Inputs,
    /// Parts of the attention of one token: (kv_heads, splits, part).
    pub(crate) parts: Buffer<f32>,
    /// The middle of the feed-forward layer: (batch, ffn); with experts by slots, see [`Dispatch`].
    pub(crate) inner: Inputs,
    /// As `inner`.
    pub(crate) up: Buffer<f32>,
    /// (batch, rope_dim / 2).
    pub(crate) cos: Buffer<f32>,
    /// (batch, rope_dim / 2).
    pub(crate) sin: Buffer<f32>,
    /// What a layer of experts needs.
    pub(crate) moe: MoeScratch,
    /// Input pairs of the multi-token-prediction layer: (batch, 2 × hidden), empty without one.
    pub(crate) pairs: Inputs,
    /// (LOGIT_ROWS, vocab).
    pub(crate) logits: Buffer<f32>,
    /// The largest of each run of logits in the first row.
    pub(crate) peaks: Buffer<f32>,
}

impl Scratch {
    /// For sequences of up to `context` tokens. Without `middle` the middle of the feed-forward layer, and the inputs
    /// of experts, exist in 8 bits only.
    pub(crate) fn new(
        from: &mut Lease,
        config: &ModelConfig,
        vocab: usize,
        batch: usize,
        context: usize,
        middle: bool,
    ) -> Result<Self, RuntimeError> {
        let ffn = if middle { config.ffn } else { 0 };
        let what = "activations";
        let parts = ops::part_len(config.heads, config.head_dim)?;
        let half = config.rope_dim / 2;
        let mtp = config.mtp_layers > 0;
        let (delta, pairs) = if mtp { (config.hidden, 2 * config.hidden) } else { (0, 0) };
        let slots = if config.experts > 0 { Dispatch::slots(batch) } else { batch };
        Ok(Self {
            batch,
            vocab,
            x: Buffer::zeros(from, what, [batch, config.hidden])?,
            normed: Inputs::new(from, what, batch, config.hidden)?,
            delta: Buffer::zeros(from, what, [batch, delta])?,
            q: Buffer::zeros(from, what, [batch, config.q_rows()])?,
            k: Buffer::zeros(from, what, [batch, config.kv_rows()])?,
            v: Buffer::zeros(from, what, [batch, config.kv_rows()])?,
            attended: Inputs::new(from, what, batch, config.q_rows())?,
            parts: Buffer::zeros(from, what, [context.div_ceil(ops::KV_SPLIT), parts])?,
            inner: Inputs::with_floats(from, what, slots, [ffn, config.ffn])?,
            up: Buffer::zeros(from, what, [slots, ffn])?,
            cos: Buffer::zeros(from, what, [batch, half])?,
            sin: Buffer::zeros(from, what, [batch, half])?,
            moe: MoeScratch::new(from, config, batch, middle)?,
            pairs: Inputs::new(from, what, batch, pairs)?,
            logits: Buffer::zeros(from, "logits", [LOGIT_ROWS.min(batch), vocab])?,
            peaks: Buffer::zeros(from, "logits", [vocab.div_ceil(PEAK_RUN), 1])?,
        })
    }

    /// For sessions with `model`.
    pub(crate) fn of(from: &mut Lease, model: &Model, batch: usize, context: usize) -> Result<Self, RuntimeError> {
        let graph = model.graph();
        Self::new(from, model.config(), graph.vocab(), batch, context, graph.has_float_middle())
    }

    /// The logits in the first row.
    pub(crate) fn last_logits(&self) -> Logits<'_> {
        let vocab = self.vocab;
        let peaks = self.peaks.get(..vocab.div_ceil(PEAK_RUN)).unwrap_or_default();
        Logits { values: self.logits.get(..vocab).unwrap_or_default(), peaks }
    }

    /// Fills the given rows of `cos` and `sin` for the positions from `start` on.
    pub(crate) fn rotate(&mut self, rotations: &Rotations, set: FactorSet, start: usize, rows: Range<usize>) {
        let half = self.cos.len().checked_div(self.batch).unwrap_or(0);
        let live = rows.start * half..rows.end * half;
        rotations.fill(set, start, &mut self.cos[live.clone()], &mut self.sin[live]);
    }
}

/// Activations of a layer of experts; empty in a model without.
pub(crate) struct MoeScratch {
    /// What the router says: (batch, experts).
    pub(crate) scores: Buffer<f32>,
    /// Where each token goes: (batch).
    pub(crate) routes: Vec<Routes>,
    /// The same by expert.
    pub(crate) dispatch: Dispatch,
    /// Inputs of the experts, by slots: (slots, hidden).
    pub(crate) input: Inputs,
}

impl MoeScratch {
    fn new(from: &mut Lease, config: &ModelConfig, batch: usize, middle: bool) -> Result<Self, RuntimeError> {
        let what = "activations of experts";
        let batch = if config.experts > 0 { batch } else { 0 };
        let floats = if middle { config.hidden } else { 0 };
        let mut routes = with_room(what, batch)?;
        routes.resize(batch, Routes::default());
        Ok(Self {
            scores: Buffer::zeros(from, what, [batch, config.experts])?,
            routes,
            dispatch: Dispatch::new(what, batch, config.experts)?,
            input: Inputs::with_floats(from, what, Dispatch::slots(batch), [floats, config.hidden])?,
        })
    }
}
