//! RMSNorm and LayerNorm. Means are sums of `f64`: they scale a whole token, so their errors would not average out.

/// See [`ops::rms_norm`](crate::ops::rms_norm).
pub(super) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let len = weight.len();
    for (x, out) in x.chunks_exact(len).zip(out.chunks_exact_mut(len)) {
        let mean = mean(x, |x| x * x);
        let scale = (1.0 / (mean + f64::from(eps)).sqrt()) as f32;
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = x * scale * weight;
        }
    }
}

/// See [`ops::layer_norm`](crate::ops::layer_norm).
pub(super) fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let len = weight.len();
    for (x, out) in x.chunks_exact(len).zip(out.chunks_exact_mut(len)) {
        let centre = mean(x, |x| x);
        // A second pass: mean(x²) - mean(x)² would cancel where the mean is large.
        let variance = mean(x, |x| (x - centre) * (x - centre));
        let scale = 1.0 / (variance + f64::from(eps)).sqrt();
        for (((out, x), weight), bias) in out.iter_mut().zip(x).zip(weight).zip(bias) {
            *out = ((f64::from(*x) - centre) * scale) as f32 * weight + bias;
        }
    }
}

/// The mean of `term(x)`, over eight partial sums.
#[inline(always)]
fn mean(x: &[f32], term: impl Fn(f64) -> f64) -> f64 {
    let mut sums = [0.0; 8];
    let (groups, tail) = x.as_chunks::<8>();
    for x in groups.iter().map(|group| group.as_slice()).chain([tail]) {
        for (sum, &x) in sums.iter_mut().zip(x) {
            *sum += term(f64::from(x));
        }
    }
    sums.iter().sum::<f64>() / x.len() as f64
}
