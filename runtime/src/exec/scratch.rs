//! The arena of activations: everything a forward pass writes, allocated once per session.
//!
//! Shapes are for up to `batch` tokens at a time; a pass over fewer uses the front of each buffer.

use crate::{RuntimeError, config::ModelConfig, memory::with_room};

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
    /// Inverse frequency of each rotated pair: (rope_dim / 2).
    pub(crate) inv_freq: Vec<f32>,
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
            inv_freq: inverse_frequencies(config.rope_base, config.rope_dim),
            pairs: zeros(what, [batch, pairs])?,
            logits: zeros("logits", [LOGIT_ROWS.min(batch), vocab])?,
        })
    }

    /// Fills `cos` and `sin` for positions `start..start + tokens`.
    pub(crate) fn rotate_from(&mut self, start: usize, tokens: usize) {
        let half = self.inv_freq.len();
        let rows = self.cos.chunks_exact_mut(half).zip(self.sin.chunks_exact_mut(half));
        for (position, (cos, sin)) in (start..start + tokens).zip(rows) {
            for ((cos, sin), &inv_freq) in cos.iter_mut().zip(sin).zip(&self.inv_freq) {
                // The angle is rounded to f32 as the reference does; its sine and cosine are then exact.
                let angle = f64::from(position as f32 * inv_freq);
                *cos = angle.cos() as f32;
                *sin = angle.sin() as f32;
            }
        }
    }
}

/// `1 / base^(2i / n)` for `i` in `0..n / 2`, rounded to `f32` after each operation as transformers'
/// `_compute_default_rope_parameters` rounds, so that angles at high positions agree with it to the last bit.
fn inverse_frequencies(base: f32, n: usize) -> Vec<f32> {
    (0..n / 2)
        .map(|i| {
            let exponent = (2 * i) as f32 / n as f32;
            1.0 / f64::from(base).powf(f64::from(exponent)) as f32
        })
        .collect()
}
