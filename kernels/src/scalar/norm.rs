//! RMSNorm. The mean of squares is a sum of `f64`: it scales a whole token, so its error would not average out.

/// See [`ops::rms_norm`](crate::ops::rms_norm).
pub(super) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let len = weight.len();
    for (x, out) in x.chunks_exact(len).zip(out.chunks_exact_mut(len)) {
        let mean = sum_of_squares(x) / len as f64;
        let scale = (1.0 / (mean + f64::from(eps)).sqrt()) as f32;
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = x * scale * weight;
        }
    }
}

/// `Σ x²` over eight partial sums.
fn sum_of_squares(x: &[f32]) -> f64 {
    let mut sums = [0.0; 8];
    let (groups, tail) = x.as_chunks::<8>();
    for x in groups.iter().map(|group| group.as_slice()).chain([tail]) {
        for (sum, &x) in sums.iter_mut().zip(x) {
            *sum += f64::from(x) * f64::from(x);
        }
    }
    sums.iter().sum()
}
