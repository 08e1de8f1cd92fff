//! A linear map with an optional bias, its rows split over the team.

use halfbyte_kernels::{PackedMatrix, ops};

use super::Exec;
use crate::RuntimeError;

/// `y = W x + b`.
pub(crate) struct Linear {
    /// (rows, depth).
    pub(crate) weight: PackedMatrix,
    /// (rows), or empty.
    pub(crate) bias: Vec<f32>,
}

impl Linear {
    /// `x: (tokens, depth)` → `out: (tokens, rows)`.
    pub(crate) fn forward(&self, exec: Exec<'_>, x: &[f32], out: &mut [f32]) -> Result<(), RuntimeError> {
        exec.team.rows(out, self.weight.rows(), &|rows, tile| {
            ops::matmul(exec.kernels, &self.weight, rows.clone(), x, tile)?;
            if let Some(bias) = self.bias.get(rows) {
                for token in 0..tile.tokens() {
                    ops::add(exec.kernels, tile.row_mut(token), bias)?;
                }
            }
            Ok(())
        })
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
