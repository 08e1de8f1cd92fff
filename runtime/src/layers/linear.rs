//! A linear map with an optional bias, its rows split over the team.

use halfbyte_kernels::{ActivationType, KernelError, PackedMatrix, Tile, ops};

use super::{Exec, Input, TILE};
use crate::{RuntimeError, exec::Rows};

pub(crate) use halfbyte_kernels::ops::Store;

/// Rows that are a unit of work. With few tokens memory is the limit, and a unit a panel, so that threads end together.
pub(crate) fn unit(tokens: usize) -> usize {
    if tokens <= TILE { 16 } else { Rows::UNIT }
}

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
        let tokens = out.len().checked_div(self.weight.rows()).unwrap_or(0);
        self.forward_by(unit(tokens), exec, x, store, out)
    }

    /// As [`Linear::forward`], in units of so many rows.
    pub(crate) fn forward_by(
        &self,
        unit: usize,
        exec: Exec<'_>,
        x: Input<'_>,
        store: Store,
        out: &mut [f32],
    ) -> Result<(), RuntimeError> {
        let rows = self.weight.rows();
        let tokens = out.len().checked_div(rows).unwrap_or(0);
        let split = Rows::new(out, rows, unit);
        exec.team.run(split.units(), self.grain(unit, tokens), split, |units, mut tile| {
            let rows = units.start * unit..rows.min(units.end * unit);
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
        ops::matmul(exec.kernels, &self.weight, rows.clone(), x.to(&self.weight), store, out)?;
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

    /// How much work `rows` rows are for `tokens` tokens. Memory gives a byte in the time of two multiplications.
    pub(crate) fn grain(&self, rows: usize, tokens: usize) -> usize {
        let row_bytes = self.len_bytes().checked_div(self.weight.rows()).unwrap_or(0);
        rows * (self.weight.depth() * tokens).max(row_bytes * 2)
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
