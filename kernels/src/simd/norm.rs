//! RMSNorm and LayerNorm. Means are sums of `f64`: they scale a whole token, so their errors would not average out.

use super::{LANES, Simd};

/// See [`ops::rms_norm`](crate::ops::rms_norm).
#[inline(always)]
pub(crate) fn rms_norm<S: Simd>(s: S, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let len = weight.len();
    let (weights, weight_tail) = weight.as_chunks::<LANES>();
    for (x, out) in x.chunks_exact(len).zip(out.chunks_exact_mut(len)) {
        let mean = mean_square(s, x, 0.0);
        let scale = s.splat((1.0 / (mean + f64::from(eps)).sqrt()) as f32);
        let (xs, x_tail) = x.as_chunks::<LANES>();
        let (outs, out_tail) = out.as_chunks_mut::<LANES>();
        for ((x, weight), out) in xs.iter().zip(weights).zip(outs) {
            s.store(s.mul(s.mul(s.load(x), scale), s.load(weight)), out);
        }
        if !x_tail.is_empty() {
            let (x, weight) = (s.load_part(x_tail, 0.0), s.load_part(weight_tail, 0.0));
            s.store_part(s.mul(s.mul(x, scale), weight), out_tail);
        }
    }
}

/// See [`ops::layer_norm`](crate::ops::layer_norm).
#[inline(always)]
pub(crate) fn layer_norm<S: Simd>(s: S, x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let len = weight.len();
    let ((weights, weight_tail), (biases, bias_tail)) = (weight.as_chunks::<LANES>(), bias.as_chunks::<LANES>());
    for (x, out) in x.chunks_exact(len).zip(out.chunks_exact_mut(len)) {
        let centre = mean(s, x);
        // A second pass: mean(x²) - mean(x)² would cancel where the mean is large.
        let scale = 1.0 / (mean_square(s, x, centre) + f64::from(eps)).sqrt();
        let (xs, x_tail) = x.as_chunks::<LANES>();
        let (outs, out_tail) = out.as_chunks_mut::<LANES>();
        for (((x, weight), bias), out) in xs.iter().zip(weights).zip(biases).zip(outs) {
            let x = normalise(s, s.load(x), centre, scale);
            s.store(s.fma(x, s.load(weight), s.load(bias)), out);
        }
        if !x_tail.is_empty() {
            let x = normalise(s, s.load_part(x_tail, 0.0), centre, scale);
            let (weight, bias) = (s.load_part(weight_tail, 0.0), s.load_part(bias_tail, 0.0));
            s.store_part(s.fma(x, weight, bias), out_tail);
        }
    }
}

/// `(x - centre) · scale` in `f64`.
#[inline(always)]
fn normalise<S: Simd>(s: S, x: S::F32, centre: f64, scale: f64) -> S::F32 {
    s.narrow(s.mul64(s.sub64(s.widen(x), s.splat64(centre)), s.splat64(scale)))
}

/// Vectors of partial sums: enough chains of additions to hide their latency.
const CHAINS: usize = 4;

/// The mean of `x`.
#[inline(always)]
fn mean<S: Simd>(s: S, x: &[f32]) -> f64 {
    let mut sums = [s.splat64(0.0); CHAINS];
    let (groups, tail) = x.as_chunks::<LANES>();
    for x in groups.chunks(CHAINS) {
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum = s.add64(*sum, s.widen(s.load(x)));
        }
    }
    let [sum, ..] = &mut sums;
    *sum = s.add64(*sum, s.widen(s.load_part(tail, 0.0)));
    joined(s, sums) / x.len() as f64
}

/// The mean of `(x - centre)²`.
#[inline(always)]
fn mean_square<S: Simd>(s: S, x: &[f32], centre: f64) -> f64 {
    let around = s.splat64(centre);
    let mut sums = [s.splat64(0.0); CHAINS];
    let (groups, tail) = x.as_chunks::<LANES>();
    for x in groups.chunks(CHAINS) {
        for (sum, x) in sums.iter_mut().zip(x) {
            let x = s.sub64(s.widen(s.load(x)), around);
            *sum = s.fma64(x, x, *sum);
        }
    }
    let mut sum = joined(s, sums);
    for x in tail {
        let x = f64::from(*x) - centre;
        sum += x * x;
    }
    sum / x.len() as f64
}

/// The sum of all lanes.
#[inline(always)]
fn joined<S: Simd>(s: S, [a, b, c, d]: [S::F64; CHAINS]) -> f64 {
    s.sum64(s.add64(s.add64(a, b), s.add64(c, d)))
}
