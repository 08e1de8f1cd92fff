//! Element-wise operations. A tail is a vector of its own, so an element's result is that of any position.

use super::exp::exp;
use super::{LANES, Simd};

/// See [`ops::silu_mul`](crate::ops::silu_mul).
#[inline(always)]
pub(crate) fn silu_mul<S: Simd>(s: S, gate: &mut [f32], up: &[f32]) {
    let (gates, gate_tail) = gate.as_chunks_mut::<LANES>();
    let (ups, up_tail) = up.as_chunks::<LANES>();
    for (gate, up) in gates.iter_mut().zip(ups) {
        s.store(swiglu(s, s.load(gate), s.load(up)), gate);
    }
    if !gate_tail.is_empty() {
        let (gate, up) = (s.load_part(gate_tail, 0.0), s.load_part(up_tail, 0.0));
        s.store_part(swiglu(s, gate, up), gate_tail);
    }
}

/// `g / (1 + exp(-g)) · u`
#[inline(always)]
fn swiglu<S: Simd>(s: S, gate: S::F32, up: S::F32) -> S::F32 {
    // For a large negative gate the exponential is infinite and the quotient zero, as it should be.
    let power = exp(s, s.sub(s.splat(0.0), gate));
    s.mul(s.div(gate, s.add(s.splat(1.0), power)), up)
}

/// See [`ops::add`](crate::ops::add).
#[inline(always)]
pub(crate) fn add<S: Simd>(s: S, x: &mut [f32], y: &[f32]) {
    let (xs, x_tail) = x.as_chunks_mut::<LANES>();
    let (ys, y_tail) = y.as_chunks::<LANES>();
    for (x, y) in xs.iter_mut().zip(ys) {
        s.store(s.add(s.load(x), s.load(y)), x);
    }
    for (x, y) in x_tail.iter_mut().zip(y_tail) {
        *x += *y;
    }
}
