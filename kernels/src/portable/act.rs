//! SwiGLU's product with a vector exponential.

use wide::f32x8;

/// See [`ops::silu_mul`](crate::ops::silu_mul).
pub(super) fn silu_mul(gate: &mut [f32], up: &[f32]) {
    let (gates, gate_tail) = gate.as_chunks_mut::<8>();
    let (ups, up_tail) = up.as_chunks::<8>();
    for (gate, up) in gates.iter_mut().zip(ups) {
        *gate = step(*gate, *up);
    }
    // The tail, padded with zeros: an element's result is that of any position.
    let (mut g, mut u) = ([0.0; 8], [0.0; 8]);
    for ((g, u), (gate, up)) in g.iter_mut().zip(&mut u).zip(gate_tail.iter().zip(up_tail)) {
        (*g, *u) = (*gate, *up);
    }
    for (gate, result) in gate_tail.iter_mut().zip(step(g, u)) {
        *gate = result;
    }
}

/// `g / (1 + exp(-g)) · u`, eight times.
#[inline(always)]
fn step(gate: [f32; 8], up: [f32; 8]) -> [f32; 8] {
    let gate = f32x8::from(gate);
    (gate / (f32x8::ONE + (-gate).exp()) * f32x8::from(up)).to_array()
}
