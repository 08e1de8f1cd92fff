//! Softmax and argmax.

use halfbyte_kernels::ops;
use proptest::prelude::*;

use crate::common::{ROUNDING, Rng, TINY, assert_close, for_each_isa, guarded_in_place};

/// Two exponentials (two units each), the scale, a product, and two in hand.
const ROUNDINGS: f64 = 8.0;

fn check(x: &[f32]) {
    for_each_isa(|k| {
        let out = guarded_in_place(x, |x| ops::softmax(k, x).expect("any length"));
        let max = x.iter().fold(f64::NEG_INFINITY, |max, x| max.max(f64::from(*x)));
        let powers: Vec<f64> = x.iter().map(|x| (f64::from(*x) - max).exp()).collect();
        let sum: f64 = powers.iter().sum();
        for (i, ((x, power), out)) in x.iter().zip(&powers).zip(&out).enumerate() {
            // The difference to the maximum is rounded before its exponential is taken, here and in the sum.
            let roundings = ROUNDINGS + (max - f64::from(*x)).min(200.0) + 4.0;
            assert_close("softmax", i, *out, power / sum, roundings * ROUNDING * power / sum + TINY);
        }
    });
}

#[test]
fn agrees_with_f64() {
    let lens = [0, 1, 8, 9, 7, 15, 16, 17, 31, 33, 64, 300];
    for len in lens.into_iter().take(if cfg!(miri) { 4 } else { 12 }) {
        for spread in [0.0, 1.0, 30.0, 200.0] {
            let x: Vec<f32> = Rng(len as u64).floats(len).iter().map(|x| x * spread).collect();
            check(&x);
        }
    }
}

/// As long as a vocabulary: the sum must not lose digits.
#[test]
fn vocabulary() {
    check(&Rng(1).floats(if cfg!(miri) { 20 } else { 151_680 }));
}

#[test]
fn extreme_values() {
    check(&[3e38, -3e38, 2.9e38, 0.0]);
    check(&[-3e38, -3e38, -3.1e38]);
    check(&[1e-45, 0.0, -1e-45]);
    check(&[f32::NEG_INFINITY, 1.0, 2.0, f32::NEG_INFINITY, -3.0]);
    check(&[-103.0, 0.0, -87.5, -88.0, -104.5, -1000.0, 0.0, 0.0, -86.0]);
}

#[test]
fn undefined_values_are_nan() {
    for_each_isa(|k| {
        for x in [[f32::NEG_INFINITY; 3], [0.0, f32::NAN, 1.0], [0.0, f32::INFINITY, 1.0]] {
            let out = guarded_in_place(&x, |x| ops::softmax(k, x).expect("any length"));
            assert!(out.iter().any(|x| x.is_nan()), "{x:?} gives {out:?}");
        }
    });
}

#[test]
fn argmax_of_ties_and_nan() {
    let nan = f32::NAN;
    for (x, expected) in [
        (&[][..], None),
        (&[nan, nan], None),
        (&[1.0], Some(0)),
        (&[1.0, 3.0, 3.0, 2.0], Some(1)),
        (&[nan, -1.0, nan, -0.5, nan], Some(3)),
        (&[nan, f32::NEG_INFINITY], Some(1)),
        (&[0.0, -0.0], Some(0)),
        (&[-0.0, 0.0], Some(0)),
        (&[f32::MAX, f32::INFINITY], Some(1)),
    ] {
        assert_eq!(ops::argmax(x), expected, "{x:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 64 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_values(x in prop::collection::vec(-1e3f32..1e3, 1..100)) {
        check(&x);
    }

    #[test]
    fn argmax_is_the_first_maximum(x in prop::collection::vec(-9i8..9, 1..50)) {
        let x: Vec<f32> = x.into_iter().map(f32::from).collect();
        let best = ops::argmax(&x).expect("numbers");
        prop_assert!(x[..best].iter().all(|v| *v < x[best]));
        prop_assert!(x[best..].iter().all(|v| *v <= x[best]));
    }
}
