//! Softmax with a vector exponential.

use super::exp::exp;
use super::{LANES, Simd};

/// See [`ops::softmax`](crate::ops::softmax).
#[inline(always)]
pub(crate) fn softmax<S: Simd>(s: S, x: &mut [f32]) {
    let largest = s.splat(largest(s, x));
    let (groups, tail) = x.as_chunks_mut::<LANES>();
    // Over a vocabulary a sum of `f32` would lose three digits.
    let mut sum = s.splat64(0.0);
    for x in groups.iter_mut() {
        let power = exp(s, s.sub(s.load(x), largest));
        sum = s.add64(sum, s.widen(power));
        s.store(power, x);
    }
    if !tail.is_empty() {
        let power = exp(s, s.sub(s.load_part(tail, f32::NEG_INFINITY), largest));
        sum = s.add64(sum, s.widen(power));
        s.store_part(power, tail);
    }
    let scale = (1.0 / s.sum64(sum)) as f32;
    let factor = s.splat(scale);
    for x in groups {
        s.store(s.mul(s.load(x), factor), x);
    }
    for x in tail {
        *x *= scale;
    }
}

/// The largest element; NaN is passed over, `-inf` for an empty slice.
#[inline(always)]
fn largest<S: Simd>(s: S, x: &[f32]) -> f32 {
    let (groups, tail) = x.as_chunks::<LANES>();
    let mut largest = s.splat(f32::NEG_INFINITY);
    for x in groups {
        largest = s.max(s.load(x), largest);
    }
    s.largest(s.max(s.load_part(tail, f32::NEG_INFINITY), largest))
}
