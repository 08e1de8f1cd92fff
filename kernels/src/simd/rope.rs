//! Rotary position embedding: halves of a head are the two coordinates of its pairs.

use super::{LANES, Simd};

/// See [`ops::rope_neox`](crate::ops::rope_neox).
#[inline(always)]
pub(crate) fn rope_neox<S: Simd>(s: S, x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]) {
    let half = cos.len().min(head_dim / 2);
    let (coses, cos_tail) = cos.as_chunks::<LANES>();
    let (sins, sin_tail) = sin.as_chunks::<LANES>();
    for head in x.chunks_exact_mut(head_dim) {
        let (a, b) = head.split_at_mut(half);
        let (a, a_tail) = a.as_chunks_mut::<LANES>();
        let (b, b_tail) = b.get_mut(..half).unwrap_or_default().as_chunks_mut::<LANES>();
        for (((a, b), cos), sin) in a.iter_mut().zip(b).zip(coses).zip(sins) {
            let [x, y] = rotate(s, [s.load(a), s.load(b)], s.load(cos), s.load(sin));
            s.store(x, a);
            s.store(y, b);
        }
        if !a_tail.is_empty() {
            let pair = [s.load_part(a_tail, 0.0), s.load_part(b_tail, 0.0)];
            let [x, y] = rotate(s, pair, s.load_part(cos_tail, 0.0), s.load_part(sin_tail, 0.0));
            s.store_part(x, a_tail);
            s.store_part(y, b_tail);
        }
    }
}

/// `[a·cos - b·sin, b·cos + a·sin]`
#[inline(always)]
fn rotate<S: Simd>(s: S, [a, b]: [S::F32; 2], cos: S::F32, sin: S::F32) -> [S::F32; 2] {
    [s.fnma(b, sin, s.mul(a, cos)), s.fma(a, sin, s.mul(b, cos))]
}
