//! Element-wise operations.

/// See [`ops::silu_mul`](crate::ops::silu_mul).
pub(super) fn silu_mul(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        // For a large negative gate the exponential is infinite and the quotient zero, as it should be.
        *gate = *gate / (1.0 + (-*gate).exp()) * up;
    }
}

/// See [`ops::add`](crate::ops::add).
pub(super) fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}
