//! From logits to probabilities, or to the best index.

use crate::Kernels;
use crate::error::KernelError;
use crate::scalar::softmax::max;

/// Softmax in place: `x[i] = exp(x[i] - max) / Σ_j exp(x[j] - max)`.
///
/// `-inf` becomes 0. Nothing happens to an empty slice. Where the formula has no value (a NaN or `+inf` among the
/// inputs, or nothing but `-inf`) some of the results are NaN.
///
/// # Errors
/// None today; the signature is that of every operation.
pub fn softmax(k: &Kernels, x: &mut [f32]) -> Result<(), KernelError> {
    // SAFETY: `k` proves that this CPU runs its table; the shapes were checked above.
    unsafe { (k.table().softmax)(x) };
    Ok(())
}

/// The index of the largest element: the lowest one if several are equal. NaN never wins; `None` if there is nothing
/// else.
pub fn argmax(x: &[f32]) -> Option<usize> {
    // Two passes of vector code are faster than one with a branch for each element.
    let largest = max(x);
    x.iter().position(|&x| x == largest)
}
