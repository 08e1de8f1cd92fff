//! The gated feed-forward layer, SwiGLU.

use halfbyte_kernels::ops;

use super::{Exec, Input, Inputs, Linear, TILE, linear::Store};
use crate::{
    RuntimeError,
    exec::{Chunks, Groups},
};

/// Rows of the inner layer that are a unit of work, whole groups; see [`unit`](super::unit).
pub(crate) fn inner_unit(tokens: usize) -> usize {
    if tokens <= TILE { 32 } else { ops::SWIGLU_ROWS }
}

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
    /// `Down (silu(Gate h) * Up h)` for `tokens` tokens, set or added to `out: (tokens, hidden)`.
    ///
    /// `inner` and `up`, at least `(tokens, ffn)`, are scratch. Where all three matrices take 8-bit activations the
    /// inner ones exist in that form only.
    #[expect(clippy::too_many_arguments, reason = "input, output and scratch of one step")]
    pub(crate) fn forward(
        &self,
        exec: Exec<'_>,
        h: Input<'_>,
        tokens: usize,
        inner: &mut Inputs,
        up: &mut [f32],
        store: Store,
        out: &mut [f32],
    ) -> Result<(), RuntimeError> {
        let width = self.gate.weight.rows();
        if self.is_fused() {
            let unit = inner_unit(tokens);
            let split = Groups::new(inner.words_mut(tokens), tokens, width, unit)?;
            let work = 2 * self.gate.grain(unit, tokens);
            exec.team.run(split.units(), work, split, |units, mut out| {
                let rows = units.start * unit..width.min(units.end * unit);
                ops::swiglu(exec.kernels, [&self.gate.weight, &self.up.weight], rows, h.q8, &mut out)
            })?;
        } else {
            let up = &mut up[..tokens * width];
            self.gate.forward(exec, h, Store::Set, &mut inner.f32[..tokens * width])?;
            self.up.forward(exec, h, Store::Set, up)?;
            let up = &*up;
            let gate = Chunks::new(&mut inner.f32[..tokens * width], width);
            exec.team.run(tokens, width, gate, |tokens, gate| {
                ops::silu_mul(exec.kernels, gate, &up[tokens.start * width..tokens.end * width])
            })?;
            if self.down.wants_q8() {
                inner.round(exec, tokens)?;
            }
        }
        self.down.forward(exec, inner.of(tokens), store, out)
    }

    /// Whether its middle exists in 8 bits only.
    pub(crate) fn is_fused(&self) -> bool {
        let all = [&self.gate, &self.up, &self.down];
        all.iter().all(|linear| linear.wants_q8()) && self.gate.bias.is_empty() && self.up.bias.is_empty()
    }

    /// Bytes of its weights.
    pub(crate) fn len_bytes(&self) -> usize {
        self.gate.len_bytes() + self.up.len_bytes() + self.down.len_bytes()
    }
}
