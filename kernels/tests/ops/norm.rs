//! RMSNorm.

use halfbyte_kernels::ops;
use proptest::prelude::*;

use crate::common::{ROUNDING, Rng, TINY, assert_close, for_each_isa, guarded};

/// The scale's rounding and those of two products, and one in hand.
const ROUNDINGS: f64 = 4.0;

fn check(x: &[f32], weight: &[f32], eps: f32) {
    for_each_isa(|k| {
        let out = guarded(x.len(), |out| ops::rms_norm(k, x, weight, eps, out).expect("right shapes"));
        let n = weight.len();
        for (x, out) in x.chunks(n).zip(out.chunks(n)) {
            let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / n as f64;
            let scale = 1.0 / (mean + f64::from(eps)).sqrt();
            for (i, ((x, w), out)) in x.iter().zip(weight).zip(out).enumerate() {
                let expected = f64::from(*x) * scale * f64::from(*w);
                assert_close("rms_norm", i, *out, expected, ROUNDINGS * ROUNDING * expected.abs() + TINY);
            }
        }
    });
}

#[test]
fn agrees_with_f64() {
    let sizes = [1, 9, 2, 7, 8, 16, 64, 100, 257];
    for n in sizes.into_iter().take(if cfg!(miri) { 2 } else { 9 }) {
        for tokens in [0, 1, 3] {
            let mut rng = Rng(n as u64);
            check(&rng.floats(tokens * n), &rng.floats(n), 1e-6);
        }
    }
}

/// Squares of these over- and underflow single precision.
#[test]
fn extreme_values() {
    let weight = [1.0, -2.0, 0.5, 0.0];
    check(&[1e30, -3e38, 1e20, 5.0], &weight, 1e-5);
    check(&[1e-30, -1e-38, 1e-42, 0.0], &weight, 1e-5);
    check(&[0.0; 4], &weight, 1e-5);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 64 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_values(x in prop::collection::vec(-1e6f32..1e6, 1..80)) {
        let weight = Rng(x.len() as u64).floats(x.len());
        check(&x, &weight, 1e-5);
    }
}
