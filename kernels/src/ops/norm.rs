//! Normalisation over the hidden dimension.

use crate::Kernels;
use crate::error::{KernelError, not_zero, same_len, whole_units};

/// RMSNorm of each token: `out[i] = x[i] / sqrt(mean(x²) + eps) · weight[i]` (Zhang and Sennrich 2019, eq. 4).
///
/// Shapes: `weight: (n,)`, `x` and `out: (tokens, n)`. The mean is taken in `f64`.
///
/// # Errors
/// [`KernelError::Empty`] for an empty `weight`, [`KernelError::NotMultiple`] if `x` is not whole tokens,
/// [`KernelError::ShapeMismatch`] for `out`.
pub fn rms_norm(k: &Kernels, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) -> Result<(), KernelError> {
    not_zero("norm weight", weight.len())?;
    whole_units("norm input", weight.len(), x.len())?;
    same_len("norm output", x.len(), out.len())?;
    // SAFETY: `k` proves that this CPU runs its table; the shapes were checked above.
    unsafe { (k.table().rms_norm)(x, weight, eps, out) };
    Ok(())
}

/// LayerNorm of each token: `out[i] = (x[i] - mean(x)) / sqrt(var(x) + eps) · weight[i] + bias[i]`, with the population
/// variance `var(x) = mean((x - mean(x))²)` (Ba, Kiros and Hinton 2016, eq. 4).
///
/// Shapes: `weight` and `bias: (n,)`, `x` and `out: (tokens, n)`. Mean and variance are taken in `f64`.
///
/// # Errors
/// As for [`rms_norm`], and [`KernelError::ShapeMismatch`] for `bias`.
pub fn layer_norm(
    k: &Kernels,
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    eps: f32,
    out: &mut [f32],
) -> Result<(), KernelError> {
    not_zero("norm weight", weight.len())?;
    same_len("norm bias", weight.len(), bias.len())?;
    whole_units("norm input", weight.len(), x.len())?;
    same_len("norm output", x.len(), out.len())?;
    // SAFETY: `k` proves that this CPU runs its table; the shapes were checked above.
    unsafe { (k.table().layer_norm)(x, weight, bias, eps, out) };
    Ok(())
}
