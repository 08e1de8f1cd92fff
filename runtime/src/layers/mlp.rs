//! The gated feed-forward half-layer, SwiGLU.

use halfbyte_kernels::ops;

use super::{Exec, Linear};
use crate::{RuntimeError, config::ModelConfig, exec::Scratch};

/// Weights of a feed-forward half-layer.
pub(crate) struct Mlp {
    /// (ffn, hidden).
    pub(crate) gate: Linear,
    /// (ffn, hidden).
    pub(crate) up: Linear,
    /// (hidden, ffn).
    pub(crate) down: Linear,
}

impl Mlp {
    /// `x += Down (silu(Gate h) * Up h)` for `h = scratch.normed`.
    pub(crate) fn forward(
        &self,
        exec: Exec<'_>,
        config: &ModelConfig,
        scratch: &mut Scratch,
        tokens: usize,
    ) -> Result<(), RuntimeError> {
        let normed = &scratch.normed[..tokens * config.hidden];
        let gate = &mut scratch.gate[..tokens * config.ffn];
        let up = &mut scratch.up[..tokens * config.ffn];
        self.gate.forward(exec, normed, gate)?;
        self.up.forward(exec, normed, up)?;
        let up = &*up;
        exec.team.chunks(gate, config.ffn, &|token, gate| {
            ops::silu_mul(exec.kernels, gate, &up[token * config.ffn..][..config.ffn])
        })?;
        let delta = &mut scratch.delta[..tokens * config.hidden];
        self.down.forward(exec, gate, delta)?;
        ops::add(exec.kernels, &mut scratch.x[..tokens * config.hidden], delta)?;
        Ok(())
    }
}
