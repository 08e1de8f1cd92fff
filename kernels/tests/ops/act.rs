//! SwiGLU's product, residual, bias.

use halfbyte_kernels::ops;

use crate::common::{ROUNDING, Rng, assert_close, for_each_isa, guarded_in_place};

/// The exponential (two units), a sum, a quotient, a product, and three in hand.
const ROUNDINGS: f64 = 8.0;

/// Where `exp(-g)` overflows, `g / (1 + exp(-g))` is 0; the true value is at most 89 · 2^-128.
const OVERFLOW: f64 = 2.7e-37;

fn check(gate: &[f32], up: &[f32]) {
    for_each_isa(|k| {
        let out = guarded_in_place(gate, |gate| ops::silu_mul(k, gate, up).expect("same length"));
        for (i, ((g, u), out)) in gate.iter().zip(up).zip(out).enumerate() {
            let (g, u) = (f64::from(*g), f64::from(*u));
            let expected = g / (1.0 + (-g).exp()) * u;
            let bound = ROUNDINGS * ROUNDING * expected.abs() + OVERFLOW * u.abs().max(1.0);
            assert_close("silu_mul", i, out, expected, bound);
        }
    });
}

#[test]
fn silu_mul_agrees_with_f64() {
    let lens = [0, 1, 9, 7, 8, 15, 16, 17, 31, 32, 33, 100];
    for len in lens.into_iter().take(if cfg!(miri) { 3 } else { 12 }) {
        let mut rng = Rng(len as u64);
        check(&rng.floats(len).iter().map(|g| g * 20.0).collect::<Vec<_>>(), &rng.floats(len));
    }
}

#[test]
fn silu_mul_of_extreme_values() {
    let gate =
        [0.0, -0.0, 1e-40, -1e-40, 87.0, -87.0, 88.7, -88.7, -89.0, 104.0, -104.0, 1e30, -1e30, f32::MAX, f32::MIN];
    check(&gate, &[1.0; 15]);
    check(&gate, &[-0.5; 15]);
}

#[test]
fn silu_mul_keeps_nan() {
    for_each_isa(|k| {
        // In a vector, and in what is left over.
        for at in [1, 17] {
            let mut gate = [1.0; 19];
            gate[at] = f32::NAN;
            let out = guarded_in_place(&gate, |x| ops::silu_mul(k, x, &[1.0; 19]).expect("same length"));
            assert!(out.iter().enumerate().all(|(i, x)| x.is_nan() == (i == at)), "{out:?}");
        }
    });
}

#[test]
fn sums() {
    for_each_isa(|k| {
        for n in [1, 3, 15, 16, 17, 33] {
            let mut rng = Rng(n as u64);
            let (x, y) = (rng.floats(3 * n), rng.floats(3 * n));
            let expected: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
            assert_eq!(guarded_in_place(&x, |x| ops::add(k, x, &y).expect("same length")), expected);

            let expected: Vec<f32> = x.chunks(n).flat_map(|x| x.iter().zip(&y).map(|(x, y)| x + y)).collect();
            assert_eq!(guarded_in_place(&x, |x| ops::add_bias(k, x, &y[..n]).expect("whole tokens")), expected);
        }
    });
}
