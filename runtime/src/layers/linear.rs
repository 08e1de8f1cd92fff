//! A linear map with an optional bias, its rows split over the team.

use halfbyte_kernels::{ActivationType, Activations, PackedMatrix, ops, quantized_words};

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
        let depth = self.weight.depth();
        let mut words = Vec::new();
        let x = match self.weight.activations() {
            ActivationType::F32 => Activations::F32(x),
            ActivationType::Q8 => {
                words.resize(quantized_words(x.len() / depth, depth)?, 0);
                ops::quantize(exec.kernels, x, depth, &mut words)?;
                Activations::Q8(&words)
            }
        };
        exec.team.rows(out, self.weight.rows(), &|rows, tile| {
            ops::matmul(exec.kernels, &self.weight, rows.clone(), x, ops::Store::Set, tile)?;
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
