//! Round trips stay within each format's error bound; wrong lengths and values are typed errors.

use halfbyte_formats::{FormatError, QuantType, quant};
use proptest::prelude::*;

const ENCODED: [QuantType; 8] = [
    QuantType::F32,
    QuantType::F16,
    QuantType::BF16,
    QuantType::Q4_0,
    QuantType::Q5_0,
    QuantType::Q8_0,
    QuantType::Q4_K,
    QuantType::Q6_K,
];

/// The largest error over the largest magnitude of a block.
///
/// Plain types: half a unit in the last place. Q8_0: half a step of 1/127, and the scale's own rounding (2^-11).
/// Q4_0, Q5_0: a whole step, for the value that mirrors the largest is clipped, and that rounding. K-quants: two
/// steps, as a sub-block's scale is itself rounded and the fit may clip.
fn relative_bound(ty: QuantType) -> f32 {
    match ty {
        QuantType::F32 => 0.0,
        QuantType::F16 => 1.0 / 2048.0,
        QuantType::BF16 => 1.0 / 256.0,
        QuantType::Q8_0 => 0.5 / 127.0 + 1.0 / 2048.0,
        QuantType::Q4_0 => 1.0 / 8.0 + 1.0 / 2048.0,
        QuantType::Q5_0 => 1.0 / 16.0 + 1.0 / 2048.0,
        QuantType::Q4_K => 2.0 * 2.0 / 15.0,
        QuantType::Q6_K => 2.0 / 32.0,
        other => panic!("{other} is not encoded"),
    }
}

/// What a type loses near zero: half of its (or its scale's) smallest step, times the largest integers they multiply.
fn absolute_bound(ty: QuantType) -> f32 {
    let half_step = 2f32.powi(-25);
    match ty {
        QuantType::F32 => 0.0,
        QuantType::BF16 => f32::from_bits(1 << 15),
        QuantType::F16 => half_step,
        QuantType::Q4_0 => 8.0 * half_step,
        QuantType::Q5_0 => 16.0 * half_step,
        QuantType::Q8_0 => 127.0 * half_step,
        QuantType::Q4_K => (63.0 * 15.0 + 63.0) * half_step,
        _ => 128.0 * 32.0 * half_step,
    }
}

fn round_trip(ty: QuantType, values: &[f32]) -> Vec<f32> {
    let mut blocks = vec![0xAA; ty.row_bytes(values.len()).unwrap()];
    quant::encode(ty, values, &mut blocks).unwrap();
    let mut decoded = vec![f32::NAN; values.len()];
    quant::decode(ty, &blocks, &mut decoded).unwrap();
    decoded
}

fn check_bounds(ty: QuantType, values: &[f32]) -> Result<(), TestCaseError> {
    let decoded = round_trip(ty, values);
    for (x, y) in values.chunks_exact(ty.block_len()).zip(decoded.chunks_exact(ty.block_len())) {
        let largest = x.iter().fold(0.0, |max: f32, x| max.max(x.abs()));
        let bound = relative_bound(ty) * largest + absolute_bound(ty);
        for (x, y) in x.iter().zip(y) {
            prop_assert!((x - y).abs() <= bound, "{ty}: {x} became {y}, bound {bound}");
        }
    }
    Ok(())
}

/// 256 values of one of the shapes weights come in: even, few outliers, one-sided, two-valued, mostly zero.
fn values() -> impl Strategy<Value = Vec<f32>> {
    let shape = prop_oneof![
        prop::collection::vec(-1.0f32..1.0, 256),
        prop::collection::vec(prop_oneof![20 => -0.05f32..0.05, 1 => -1.0f32..1.0], 256),
        prop::collection::vec(0.9f32..1.0, 256),
        prop::collection::vec(-1.0f32..-0.9, 256),
        prop::collection::vec(prop_oneof![Just(-1.0f32), Just(0.25)], 256),
        prop::collection::vec(prop_oneof![9 => Just(0.0f32), 1 => -1.0f32..1.0], 256),
    ];
    (shape, -30..16i32).prop_map(|(mut values, exponent)| {
        values.iter_mut().for_each(|x| *x *= 2f32.powi(exponent));
        values
    })
}

proptest! {
    #[test]
    fn round_trips_stay_within_bounds(values in values()) {
        for ty in ENCODED {
            check_bounds(ty, &values)?;
        }
    }

    #[test]
    fn decoding_never_fails_on_any_bytes(bytes in prop::collection::vec(any::<u8>(), 210)) {
        for ty in QuantType::ALL {
            let blocks = bytes.len() / ty.block_bytes();
            let mut out = vec![0.0; blocks * ty.block_len()];
            prop_assert!(quant::decode(ty, &bytes[..blocks * ty.block_bytes()], &mut out).is_ok());
        }
    }

    #[test]
    fn mismatched_lengths_are_errors(len in 0usize..1024, bytes in 0usize..600) {
        for ty in QuantType::ALL {
            let fits = ty.row_bytes(len).is_ok_and(|expected| expected == bytes);
            let decoded = quant::decode(ty, &vec![0; bytes], &mut vec![0.0; len]);
            prop_assert_eq!(decoded.is_ok(), fits);
            let encoded = quant::encode(ty, &vec![0.0; len], &mut vec![0; bytes]);
            prop_assert_eq!(encoded.is_ok(), fits && ty.has_encoder());
        }
    }
}

#[test]
fn zeros_and_constants_survive() {
    for ty in ENCODED {
        assert!(round_trip(ty, &[0.0; 256]).iter().all(|&y| y == 0.0), "{ty}");
        for constant in [1.0, -1.0, 0.0123, -300.0] {
            check_bounds(ty, &[constant; 256]).unwrap();
        }
    }
}

#[test]
fn extreme_magnitudes_stay_finite() {
    for ty in ENCODED {
        let error = quant::encode(ty, &[f32::INFINITY; 256], &mut vec![0; ty.row_bytes(256).unwrap()]);
        let Err(FormatError::Unencodable { limit, .. }) = error else { panic!("{ty}: {error:?}") };
        for pattern in [[limit, limit], [-limit, -limit], [limit, -limit], [0.0, -limit], [limit, 1e-40]] {
            let decoded = round_trip(ty, &pattern.repeat(128));
            assert!(decoded.iter().all(|y| y.is_finite()), "{ty} {pattern:?}");
            check_bounds(ty, &pattern.repeat(128)).unwrap();
        }
        // Subnormal and barely normal values, alone and beside ordinary ones.
        for tiny in [f32::from_bits(1), 1e-40, f32::MIN_POSITIVE, 1e-30, 1e-9] {
            check_bounds(ty, &[tiny, -tiny].repeat(128)).unwrap();
            check_bounds(ty, &[tiny, 1.0, -tiny, 0.0].repeat(64)).unwrap();
        }
    }
}

#[test]
fn values_that_do_not_fit_are_named() {
    for ty in ENCODED {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = vec![0.5; 512];
            values[300] = bad;
            let mut blocks = vec![0xAA; ty.row_bytes(512).unwrap()];
            let error = quant::encode(ty, &values, &mut blocks).unwrap_err();
            assert!(matches!(error, FormatError::Unencodable { index: 300, .. }), "{ty}: {error}");
            assert!(blocks.iter().all(|&b| b == 0xAA), "{ty}: output touched");
        }
    }
    let error = quant::encode(QuantType::F16, &[65520.0], &mut [0; 2]).unwrap_err();
    assert!(matches!(error, FormatError::Unencodable { ty: QuantType::F16, .. }));
}

#[test]
fn formats_without_encoder_say_so() {
    for ty in QuantType::ALL.into_iter().filter(|ty| !ENCODED.contains(ty)) {
        assert!(!ty.has_encoder());
        let mut blocks = vec![0; ty.row_bytes(256).unwrap()];
        let error = quant::encode(ty, &[0.0; 256], &mut blocks).unwrap_err();
        assert!(matches!(error, FormatError::NoEncoder { .. }), "{ty}: {error}");
    }
    assert!(ENCODED.iter().all(|ty| ty.has_encoder()));
}

#[test]
fn ids_and_names_are_unique_and_invertible() {
    for ty in QuantType::ALL {
        assert_eq!(QuantType::from_ggml_id(ty.ggml_id()), Some(ty));
        assert_eq!(QuantType::from_name(ty.name()), Some(ty));
        assert_eq!(QuantType::from_name(&ty.name().to_uppercase()), Some(ty));
    }
    assert_eq!(QuantType::from_ggml_id(4), None);
    assert_eq!(QuantType::from_name("q4"), None);
    assert!(QuantType::F32.row_bytes(usize::MAX).is_err(), "the byte count does not fit");
    assert!(QuantType::Q4_0.row_bytes(33).is_err(), "not whole blocks");
}
