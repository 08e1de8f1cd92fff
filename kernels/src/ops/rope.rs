//! Rotary position embedding.

use crate::Kernels;
use crate::error::{KernelError, not_zero, same_len, whole_units};

/// Rotates each head of one position, in place, in the NeoX order: for `i < n_rot / 2`, the pair
/// `(x[i], x[i + n_rot/2])` becomes `(a·cos[i] - b·sin[i], b·cos[i] + a·sin[i])` (Su et al. 2021, eq. 34, with halves
/// instead of neighbours paired).
///
/// Shapes: `x: (heads, head_dim)`, `cos` and `sin: (n_rot / 2,)`, `n_rot <= head_dim`; dimensions from `n_rot` on stay
/// as they are (partial rotary).
///
/// # Errors
/// [`KernelError::Empty`] if `head_dim` is zero, [`KernelError::NotMultiple`] if `x` is not whole heads,
/// [`KernelError::ShapeMismatch`] if `cos` and `sin` differ, [`KernelError::OutOfRange`] if `n_rot > head_dim`.
pub fn rope_neox(k: &Kernels, x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]) -> Result<(), KernelError> {
    not_zero("head_dim", head_dim)?;
    whole_units("rope input", head_dim, x.len())?;
    same_len("rope sines", cos.len(), sin.len())?;
    if cos.len() > head_dim / 2 {
        return Err(KernelError::OutOfRange { what: "rope cosines", limit: head_dim / 2, found: cos.len() });
    }
    // SAFETY: `k` proves that this CPU runs its table; the shapes were checked above.
    unsafe { (k.table().rope_neox)(x, head_dim, cos, sin) };
    Ok(())
}
