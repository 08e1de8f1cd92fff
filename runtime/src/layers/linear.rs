//! A linear map with an optional bias, its rows split over the team.

use halfbyte_kernels::{ActivationType, Activations, KernelError, PackedMatrix, Tile, ops};

use super::{Exec, Input};
use crate::{RuntimeError, exec::Rows};

pub(crate) use halfbyte_kernels::ops::Store;

/// `y = W x + b`.
pub(crate) struct Linear {
    /// (rows, depth).
    pub(crate) weight: PackedMatrix,
    /// (rows), or empty.
    pub(crate) bias: Vec<f32>,
}

impl Linear {
    /// `x: (tokens, depth)` → `out: (tokens, rows)`.
    pub(crate) fn forward(
        &self,
        exec: Exec<'_>,
        x: Input<'_>,
        store: Store,
        out: &mut [f32],
    ) -> Result<(), RuntimeError> {
        let rows = self.weight.rows();
        let tokens = out.len().checked_div(rows).unwrap_or(0);
        let split = Rows::new(out, rows, Rows::UNIT);
        exec.team.run(split.units(), self.grain(Rows::UNIT, tokens), split, |units, mut tile| {
            let rows = units.start * Rows::UNIT..rows.min(units.end * Rows::UNIT);
            self.rows(exec, rows, x, store, &mut tile)
        })
    }

    /// Some of the rows, by this thread.
    pub(crate) fn rows(
        &self,
        exec: Exec<'_>,
        rows: std::ops::Range<usize>,
        x: Input<'_>,
        store: Store,
        out: &mut Tile<'_>,
    ) -> Result<(), KernelError> {
        let x = match self.weight.activations() {
            ActivationType::F32 => Activations::F32(x.f32),
            ActivationType::Q8 => Activations::Q8(x.q8),
        };
        ops::matmul(exec.kernels, &self.weight, rows.clone(), x, store, out)?;
        if let Some(bias) = self.bias.get(rows) {
            for token in 0..out.tokens() {
                ops::add(exec.kernels, out.row_mut(token), bias)?;
            }
        }
        Ok(())
    }

    /// Whether it multiplies 8-bit activations.
    pub(crate) fn wants_q8(&self) -> bool {
        self.weight.activations() == ActivationType::Q8
    }

    /// How much work `rows` rows are for `tokens` tokens.
    pub(crate) fn grain(&self, rows: usize, tokens: usize) -> usize {
        rows * self.weight.depth() * tokens
    }

    /// Bytes of its weights.
    pub(crate) fn len_bytes(&self) -> usize {
        self.weight.data().len()
    }
}

impl From<PackedMatrix> for Linear {
    fn from(weight: PackedMatrix) -> Self {
        Self { weight, bias: Vec::new() }
    }
}
