//! Normalisation before a half-layer and before the head.

use halfbyte_kernels::{KernelError, ops};

use super::{Exec, Inputs};
use crate::RuntimeError;

/// RMSNorm or LayerNorm, over the last dimension.
pub(crate) struct Norm {
    /// (hidden).
    pub(crate) weight: Vec<f32>,
    /// (hidden), or empty.
    pub(crate) bias: Vec<f32>,
    /// LayerNorm: the mean is subtracted first.
    pub(crate) centred: bool,
    pub(crate) eps: f32,
}

impl Norm {
    /// `x / sqrt(mean(x²) + eps) · weight`.
    pub(crate) fn rms(weight: Vec<f32>, eps: f32) -> Self {
        Self { weight, bias: Vec::new(), centred: false, eps }
    }

    /// Each row of `x: (tokens, hidden)` normalised, and rounded to 8 bits if `rounds`.
    pub(crate) fn forward(
        &self,
        exec: Exec<'_>,
        x: &[f32],
        out: &mut Inputs,
        rounds: bool,
    ) -> Result<(), RuntimeError> {
        let width = self.weight.len();
        out.fill(exec, x.len() / width, rounds, |token, out| self.row(exec, &x[token * width..][..width], out))
    }

    /// One row.
    pub(crate) fn row(&self, exec: Exec<'_>, row: &[f32], out: &mut [f32]) -> Result<(), KernelError> {
        let Self { weight, bias, eps, .. } = self;
        if self.centred {
            return ops::layer_norm(exec.kernels, row, weight, bias, *eps, out);
        }
        ops::rms_norm(exec.kernels, row, weight, *eps, out)?;
        if bias.is_empty() { Ok(()) } else { ops::add(exec.kernels, out, bias) }
    }
}
