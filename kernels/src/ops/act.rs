//! Element-wise operations: activation, residual, bias.

use crate::Kernels;
use crate::error::{KernelError, not_zero, same_len, whole_units};

/// SwiGLU's product, in place: `gate[i] = silu(gate[i]) · up[i]`, `silu(g) = g / (1 + exp(-g))` (Shazeer 2020, eq. 5).
///
/// # Errors
/// [`KernelError::ShapeMismatch`] if the lengths differ.
pub fn silu_mul(k: &Kernels, gate: &mut [f32], up: &[f32]) -> Result<(), KernelError> {
    same_len("silu_mul up", gate.len(), up.len())?;
    // SAFETY: `k` proves that this CPU runs its table; the shapes were checked above.
    unsafe { (k.table().silu_mul)(gate, up) };
    Ok(())
}

/// `x[i] += y[i]`: the residual connection.
///
/// # Errors
/// [`KernelError::ShapeMismatch`] if the lengths differ.
pub fn add(k: &Kernels, x: &mut [f32], y: &[f32]) -> Result<(), KernelError> {
    same_len("add operand", x.len(), y.len())?;
    // SAFETY: `k` proves that this CPU runs its table; the shapes were checked above.
    unsafe { (k.table().add)(x, y) };
    Ok(())
}

/// `x[t][i] += bias[i]` for every token: `x: (tokens, n)`, `bias: (n,)`.
///
/// # Errors
/// [`KernelError::Empty`] for an empty `bias`, [`KernelError::NotMultiple`] if `x` is not whole tokens.
pub fn add_bias(k: &Kernels, x: &mut [f32], bias: &[f32]) -> Result<(), KernelError> {
    not_zero("bias", bias.len())?;
    whole_units("bias operand", bias.len(), x.len())?;
    for token in x.chunks_exact_mut(bias.len()) {
        add(k, token, bias)?;
    }
    Ok(())
}
