//! The arena of activations: everything a forward pass writes, allocated once per session.
//!
//! Shapes are for up to `batch` tokens at a time; a pass over fewer uses the front of each buffer.

use super::rope::{FactorSet, Rotations};
use crate::{RuntimeError, config::ModelConfig, layers::Routes, memory::with_room};

/// Rows of logits computed at a time when a caller wants those of every position.
pub(crate) const LOGIT_ROWS: usize = 8;

/// Activations of one session.
pub(crate) struct Scratch {
    /// Tokens a pass may hold.
    pub(crate) batch: usize,
    /// The residual stream: (batch, hidden).
    pub(crate) x: Vec<f32>,
    /// Input of the current projections: (batch, hidden).
    pub(crate) normed: Vec<f32>,
    /// Output of the projection that ends a half-layer: (batch, hidden).
    pub(crate) delta: Vec<f32>,
    /// (batch, heads × head_dim).
    pub(crate) q: Vec<f32>,
    /// (batch, kv_heads × head_dim).
    pub(crate) k: Vec<f32>,
    /// (batch, kv_heads × head_dim).
    pub(crate) v: Vec<f32>,
    /// (batch, heads × head_dim).
    pub(crate) attended: Vec<f32>,
    /// (batch, ffn).
    pub(crate) gate: Vec<f32>,
    /// (batch, ffn).
    pub(crate) up: Vec<f32>,
    /// (batch, rope_dim / 2).
    pub(crate) cos: Vec<f32>,
    /// (batch, rope_dim / 2).
    pub(crate) sin: Vec<f32>,
    /// What a layer of experts needs.
    pub(crate) moe: MoeScratch,
    /// Input pairs of the multi-token-prediction layer: (batch, 2 × hidden), empty without one.
    pub(crate) pairs: Vec<f32>,
    /// (LOGIT_ROWS, vocab).
    pub(crate) logits: Vec<f32>,
}

fn zeros(what: &'static str, shape: [usize; 2]) -> Result<Vec<f32>, RuntimeError> {
    let len = shape[0].saturating_mul(shape[1]);
    let mut out = with_room(what, len)?;
    out.resize(len, 0.0);
    Ok(out)
}

impl Scratch {
    pub(crate) fn new(config: &ModelConfig, vocab: usize, batch: usize) -> Result<Self, RuntimeError> {
        let what = "activations";
        let half = config.rope_dim / 2;
        let pairs = if config.mtp_layers > 0 { 2 * config.hidden } else { 0 };
        Ok(Self {
            batch,
            x: zeros(what, [batch, config.hidden])?,
            normed: zeros(what, [batch, config.hidden])?,
            delta: zeros(what, [batch, config.hidden])?,
            q: zeros(what, [batch, config.q_rows()])?,
            k: zeros(what, [batch, config.kv_rows()])?,
            v: zeros(what, [batch, config.kv_rows()])?,
            attended: zeros(what, [batch, config.q_rows()])?,
            gate: zeros(what, [batch, config.ffn])?,
            up: zeros(what, [batch, config.ffn])?,
            cos: zeros(what, [batch, half])?,
            sin: zeros(what, [batch, half])?,
            moe: MoeScratch::new(config, batch)?,
            pairs: zeros(what, [batch, pairs])?,
            logits: zeros("logits", [LOGIT_ROWS.min(batch), vocab])?,
        })
    }

    /// Fills `cos` and `sin` for positions `start..start + tokens`.
    pub(crate) fn rotate(&mut self, rotations: &Rotations, set: FactorSet, start: usize, tokens: usize) {
        let live = ..tokens * self.cos.len().checked_div(self.batch).unwrap_or(0);
        rotations.fill(set, start, &mut self.cos[live], &mut self.sin[live]);
    }
}

/// Activations of a layer of experts; empty in a model without.
pub(crate) struct MoeScratch {
    /// What the router says: (batch, experts).
    pub(crate) scores: Vec<f32>,
    /// Where each token goes: (batch).
    pub(crate) routes: Vec<Routes>,
    /// Tokens of the current expert: up to (batch).
    pub(crate) tokens: Vec<usize>,
    /// Their inputs: (batch, hidden).
    pub(crate) input: Vec<f32>,
    /// What the expert makes of them: (batch, hidden).
    pub(crate) output: Vec<f32>,
}

impl MoeScratch {
    fn new(config: &ModelConfig, batch: usize) -> Result<Self, RuntimeError> {
        let what = "activations of experts";
        let batch = if config.experts > 0 { batch } else { 0 };
        let mut routes = with_room(what, batch)?;
        routes.resize(batch, Routes::default());
        Ok(Self {
            scores: zeros(what, [batch, config.experts])?,
            routes,
            tokens: with_room(what, batch)?,
            input: zeros(what, [batch, config.hidden])?,
            output: zeros(what, [batch, config.hidden])?,
        })
    }
}
