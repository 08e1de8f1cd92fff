//! The gated feed-forward layer, SwiGLU.

use halfbyte_kernels::ops;

use super::{Exec, Linear};
use crate::{RuntimeError, exec::Scratch};

/// Weights of a feed-forward layer.
pub(crate) struct Mlp {
    /// (ffn, hidden).
    pub(crate) gate: Linear,
    /// (ffn, hidden).
    pub(crate) up: Linear,
    /// (hidden, ffn).
    pub(crate) down: Linear,
}

impl Mlp {
    /// The half-layer: `x += Down (silu(Gate h) * Up h)` for `h = scratch.normed`.
    pub(crate) fn forward(&self, exec: Exec<'_>, scratch: &mut Scratch, tokens: usize) -> Result<(), RuntimeError> {
        let live = ..tokens * self.down.weight.rows();
        let Scratch { x, normed, delta, gate, up, .. } = scratch;
        self.map(exec, &normed[live], gate, up, &mut delta[live])?;
        ops::add(exec.kernels, &mut x[live], &delta[live])?;
        Ok(())
    }

    /// `out = Down (silu(Gate h) * Up h)` for `h: (tokens, hidden)`; `gate` and `up`, at least `(tokens, ffn)`, are
    /// scratch.
    pub(crate) fn map(
        &self,
        exec: Exec<'_>,
        h: &[f32],
        gate: &mut [f32],
        up: &mut [f32],
        out: &mut [f32],
    ) -> Result<(), RuntimeError> {
        let width = self.gate.weight.rows();
        let live = ..h.len().checked_div(self.gate.weight.depth()).unwrap_or(0) * width;
        let (gate, up) = (&mut gate[live], &mut up[live]);
        self.gate.forward(exec, h, gate)?;
        self.up.forward(exec, h, up)?;
        let up = &*up;
        exec.team
            .chunks(gate, width, &|token, gate| ops::silu_mul(exec.kernels, gate, &up[token * width..][..width]))?;
        self.down.forward(exec, gate, out)
    }

    /// Bytes of its weights.
    pub(crate) fn len_bytes(&self) -> usize {
        self.gate.len_bytes() + self.up.len_bytes() + self.down.len_bytes()
    }
}
