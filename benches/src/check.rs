//! The check before the clock starts: a benchmark of a wrong result means nothing.

use halfbyte_kernels::{Isa, KernelError, Kernels};

/// Runs `op` with scalar kernels and with `k`.
///
/// # Panics
/// If the outputs differ by more than 1e-4 of the largest element.
pub fn agrees_with_scalar(k: &Kernels, len: usize, op: impl Fn(&Kernels, &mut [f32]) -> Result<(), KernelError>) {
    agrees_within(ORDER, k, len, op);
}

/// As [`agrees_with_scalar`], if more is rounded than there: by so much of the largest result.
///
/// # Panics
/// As there.
pub fn agrees_within(
    tolerance: f32,
    k: &Kernels,
    len: usize,
    op: impl Fn(&Kernels, &mut [f32]) -> Result<(), KernelError>,
) {
    let run = |k: &Kernels| {
        let mut out = vec![0.0f32; len];
        op(k, &mut out).map(|()| out)
    };
    let expected = Kernels::with_isa(Isa::Scalar).and_then(|scalar| run(&scalar)).expect("scalar kernels accept it");
    close(tolerance, k, &run(k).expect("the kernels accept it"), &expected);
}

/// What the order of sums may change, of the largest result.
const ORDER: f32 = 1e-4;

/// Two results that may differ in the order of their sums.
pub(crate) fn assert_close(k: &Kernels, found: &[f32], expected: &[f32]) {
    close(ORDER, k, found, expected);
}

fn close(tolerance: f32, k: &Kernels, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let close = (found - expected).abs() <= tolerance * largest;
        assert!(close, "{}, element {i}: {found} is not {expected}", k.isa().name());
    }
}

/// Two results that must be the same in every bit.
///
/// # Panics
/// If they are not.
pub fn assert_same_bits(what: &str, found: &[u32], expected: &[u32]) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    if let Some(i) = found.iter().zip(expected).position(|(found, expected)| found != expected) {
        panic!("{what}, word {i}: {:#x} is not {:#x}", found[i], expected[i]);
    }
}

/// Normalised mean square error, `|found - expected|² / |expected|²`; NaN if any number is.
pub fn nmse(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let error: f64 = found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    error / expected.iter().map(|b| f64::from(*b).powi(2)).sum::<f64>()
}
