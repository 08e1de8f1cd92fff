//! Softmax, and the exponentials attention takes of a tile of scores.

/// See [`ops::softmax`](crate::ops::softmax).
pub(crate) fn softmax(x: &mut [f32]) {
    softmax_by(x, exp_sum);
}

/// Softmax with a tier's own exponential: `exp_sum(x, max)` replaces `x` by `exp(x - max)` and returns the sum.
#[inline(always)]
pub(crate) fn softmax_by(x: &mut [f32], exp_sum: impl Fn(&mut [f32], f32) -> f64) {
    let max = max(x);
    let scale = (1.0 / exp_sum(x, max)) as f32;
    for x in x {
        *x *= scale;
    }
}

/// The largest element; NaN is passed over, `-inf` for an empty slice.
#[inline]
pub(crate) fn max(x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (groups, tail) = x.as_chunks::<16>();
    for x in groups {
        for (lane, &x) in lanes.iter_mut().zip(x) {
            *lane = larger(*lane, x);
        }
    }
    let all = tail.iter().copied().chain(lanes);
    all.fold(f32::NEG_INFINITY, larger)
}

/// Replaces each element by `exp(x - max)`; returns their sum, taken in `f64`: over a vocabulary a sum of `f32` would
/// lose three digits.
pub(super) fn exp_sum(x: &mut [f32], max: f32) -> f64 {
    let mut sum = 0.0;
    for x in x {
        *x = (*x - max).exp();
        sum += f64::from(*x);
    }
    sum
}
