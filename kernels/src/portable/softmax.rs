//! Softmax with a vector exponential.
//!
//! Built on one step: eight differences, `exp` of them all, store, and two halves widened into an `f64` sum.

use wide::f32x8;

use crate::scalar::softmax::softmax_by;

/// See [`ops::softmax`](crate::ops::softmax).
pub(super) fn softmax(x: &mut [f32]) {
    softmax_by(x, exp_sum);
}

/// Replaces each element by `exp(x - max)`; returns their sum.
fn exp_sum(x: &mut [f32], max: f32) -> f64 {
    let mut sums = [0.0; 8];
    let mut add = |x: &[f32]| {
        for (sum, &x) in sums.iter_mut().zip(x) {
            *sum += f64::from(x);
        }
    };
    let (groups, tail) = x.as_chunks_mut::<8>();
    for group in groups {
        *group = (f32x8::from(*group) - max).exp().to_array();
        add(group);
    }
    if !tail.is_empty() {
        // A vector of its own: an element's result is that of any position.
        let mut last = [f32::NEG_INFINITY; 8];
        for (last, x) in last.iter_mut().zip(&*tail) {
            *last = *x;
        }
        let last = (f32x8::from(last) - max).exp().to_array();
        tail.copy_from_slice(last.get(..tail.len()).unwrap_or_default());
        add(tail);
    }
    sums.iter().sum()
}
