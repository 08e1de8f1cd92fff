//! RMSNorm and LayerNorm.

use halfbyte_kernels::ops;
use proptest::prelude::*;

use crate::common::{ROUNDING, Rng, TINY, assert_close, for_each_isa, guarded};

/// The scale's rounding and those of two products, and one in hand.
const ROUNDINGS: f64 = 4.0;

fn check_rms(x: &[f32], weight: &[f32], eps: f32) {
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

/// LayerNorm rounds the normalised element, its product with the weight, and the sum: the first two are errors of the
/// product, the last of the result. One of each in hand.
fn check_layer(x: &[f32], weight: &[f32], bias: &[f32], eps: f32) {
    for_each_isa(|k| {
        let out = guarded(x.len(), |out| ops::layer_norm(k, x, weight, bias, eps, out).expect("right shapes"));
        let n = weight.len();
        for (x, out) in x.chunks(n).zip(out.chunks(n)) {
            let mean = |term: &dyn Fn(f64) -> f64| x.iter().map(|x| term(f64::from(*x))).sum::<f64>() / n as f64;
            let centre = mean(&|x| x);
            let scale = 1.0 / (mean(&|x| (x - centre).powi(2)) + f64::from(eps)).sqrt();
            for (i, (((x, w), b), out)) in x.iter().zip(weight).zip(bias).zip(out).enumerate() {
                let product = (f64::from(*x) - centre) * scale * f64::from(*w);
                let expected = product + f64::from(*b);
                let bound = ROUNDING * (3.0 * product.abs() + 2.0 * expected.abs()) + TINY;
                assert_close("layer_norm", i, *out, expected, bound);
            }
        }
    });
}

fn check(x: &[f32], weight: &[f32], eps: f32) {
    check_rms(x, weight, eps);
    let bias: Vec<f32> = weight.iter().rev().copied().collect();
    check_layer(x, weight, &bias, eps);
}

#[test]
fn agrees_with_f64() {
    let sizes = [1, 9, 2, 7, 8, 15, 16, 17, 63, 64, 65, 100, 257, 4096];
    for n in sizes.into_iter().take(if cfg!(miri) { 2 } else { 14 }) {
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

/// The mean is a thousand times the spread: mean(x²) - mean(x)² would lose half the digits of the variance.
#[test]
fn layer_norm_of_a_large_mean() {
    let spread: Vec<f32> = Rng(11).floats(256).iter().map(|x| 1000.0 + x).collect();
    check_layer(&spread, &Rng(12).floats(256), &Rng(13).floats(256), 1e-5);
}

/// A constant token has no variance: what is left is the bias, whatever eps is above zero.
#[test]
fn layer_norm_of_a_constant_is_the_bias() {
    for_each_isa(|k| {
        let bias = [1.0, -2.0, 3.0];
        let out = guarded(6, |out| ops::layer_norm(k, &[0.25; 6], &[5.0; 3], &bias, 1e-5, out).expect("right shapes"));
        assert_eq!(out, bias.repeat(2));
    });
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
