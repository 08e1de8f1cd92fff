//! Bit-equality with ggml: seeded blocks and values, expected results from `scripts/quant_golden.py`.
//!
//! Only hashes and the first two blocks are stored; both sides grow the data from the same SplitMix64.

use halfbyte_formats::{QuantType, quant};

const GOLDEN: &str = include_str!("golden/quant.txt");
const BLOCKS: usize = 10_000;
/// Blocks of the comparison of K-quant encoders.
const GAUSSIAN_BLOCKS: usize = 2_000;
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn words(seed: u64) -> impl Iterator<Item = u64> {
    (1u64..).map(move |i| mix(seed.wrapping_add(i.wrapping_mul(STEP))))
}

fn digest(values: impl Iterator<Item = u64>) -> u64 {
    let terms = values.zip(1u64..).map(|(v, i)| mix(v.wrapping_add(i.wrapping_mul(STEP))));
    terms.fold(0, u64::wrapping_add)
}

fn random_blocks(ty: QuantType) -> Vec<u8> {
    let bytes = words(u64::from(ty.ggml_id())).flat_map(u64::to_le_bytes);
    bytes.take(BLOCKS * ty.block_bytes()).collect()
}

/// Near-Gaussian integers below 2^18 in magnitude: eight 16-bit lanes added up and centred.
fn integers(seed: u64, count: usize) -> Vec<f32> {
    let mut words = words(seed);
    let mut lanes = || {
        let word = words.next().unwrap();
        (0..4).map(|i| (word >> (16 * i) & 0xffff) as i32).sum::<i32>()
    };
    (0..count).map(|_| (lanes() + lanes() - 8 * 32767 - 4) as f32).collect()
}

/// Blocks of every magnitude; each 97th is zero, each 97th (offset one) constant.
fn spread_values(ty: QuantType) -> Vec<f32> {
    let mut values = integers(1000 + u64::from(ty.ggml_id()), BLOCKS * ty.block_len());
    for (index, block) in values.chunks_exact_mut(ty.block_len()).enumerate() {
        match index % 97 {
            0 => block.fill(0.0),
            1 => block.fill(block[0]),
            _ => {}
        }
        let exponent = -((index % 40) as i32) - 3;
        block.iter_mut().for_each(|x| *x *= 2f32.powi(exponent));
    }
    values
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

/// (format, hash, first two blocks) of every line of one kind.
fn expectations(kind: &str) -> Vec<(QuantType, u64, &'static str)> {
    let lines = GOLDEN.lines().filter(|line| line.starts_with(kind));
    let fields = lines.map(|line| line.split(' ').collect::<Vec<_>>());
    fields
        .map(|f| {
            let ty = QuantType::from_name(f[1]).unwrap();
            (ty, u64::from_str_radix(f[2], 16).unwrap(), f[3])
        })
        .collect()
}

#[test]
fn decoding_is_bit_equal_to_ggml() {
    let expected = expectations("decode");
    assert_eq!(expected.len(), 15);
    for (ty, hash, first) in expected {
        let blocks = random_blocks(ty);
        let mut values = vec![0.0; BLOCKS * ty.block_len()];
        quant::decode(ty, &blocks, &mut values).unwrap();
        let bits = |x: &f32| if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() };
        for (i, bytes) in hex(first).chunks_exact(4).enumerate() {
            let want = f32::from_be_bytes(bytes.try_into().unwrap());
            assert_eq!(bits(&values[i]), bits(&want), "{ty} element {i}: {} != {want}", values[i]);
        }
        assert_eq!(digest(values.iter().map(|x| u64::from(bits(x)))), hash, "{ty}");
    }
}

#[test]
fn encoding_is_bit_equal_to_ggml() {
    let expected = expectations("encode");
    assert_eq!(expected.len(), 5);
    for (ty, hash, first) in expected {
        let values = spread_values(ty);
        let mut blocks = vec![0; BLOCKS * ty.block_bytes()];
        quant::encode(ty, &values, &mut blocks).unwrap();
        assert_eq!(blocks[..2 * ty.block_bytes()], hex(first), "{ty}");
        assert_eq!(digest(blocks.iter().map(|&b| u64::from(b))), hash, "{ty}");
    }
}

/// Our scale search against the figures of ggml's encoders on the same values: never worse, in both measures.
#[test]
fn k_quant_errors_are_not_above_ggml() {
    for name in ["q4_k", "q6_k"] {
        let line = GOLDEN.lines().find(|l| l.starts_with(&format!("error {name} ")));
        let figures: Vec<f64> = line.unwrap().split(' ').skip(2).map(|f| f.parse().unwrap()).collect();
        let ty = QuantType::from_name(name).unwrap();

        let mut values = integers(2000 + u64::from(ty.ggml_id()), GAUSSIAN_BLOCKS * 256);
        values.iter_mut().for_each(|x| *x /= 131_072.0);
        let mut blocks = vec![0; GAUSSIAN_BLOCKS * ty.block_bytes()];
        quant::encode(ty, &values, &mut blocks).unwrap();
        let mut decoded = vec![0.0; values.len()];
        quant::decode(ty, &blocks, &mut decoded).unwrap();

        let (mut plain, mut weighted, mut norm) = (0.0, 0.0, 0.0);
        for (x, y) in values.chunks_exact(32).zip(decoded.chunks_exact(32)) {
            let rms = (x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / 32.0).sqrt();
            for (&x, &y) in x.iter().zip(y) {
                let (x, error) = (f64::from(x), (f64::from(y) - f64::from(x)).powi(2));
                let w = if ty == QuantType::Q4_K { rms + x.abs() } else { x * x };
                plain += error;
                weighted += w * error;
                norm += w * x * x;
            }
        }
        let (plain, weighted) = ((plain / values.len() as f64).sqrt(), (weighted / norm).sqrt());
        println!("{name}: rmse {plain:.6} (ggml {:.6}), weighted {weighted:.6} (ggml {:.6})", figures[0], figures[1]);
        assert!(plain <= figures[0], "{name}: rmse {plain} above {}", figures[0]);
        assert!(weighted <= figures[1], "{name}: weighted {weighted} above {}", figures[1]);
    }
}

#[test]
fn every_half_precision_number_decodes_exactly() {
    let stored: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let mut decoded = vec![0.0; 1 << 16];
    quant::decode(QuantType::F16, &stored, &mut decoded).unwrap();
    for (bits, y) in (0..=u16::MAX).zip(decoded) {
        let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
        let magnitude = match exponent {
            0 => fraction * 2f64.powi(-24),
            31 if fraction == 0.0 => f64::INFINITY,
            31 => f64::NAN,
            _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
        };
        let expected = if bits >> 15 == 1 { -magnitude } else { magnitude };
        assert!(f64::from(y) == expected || y.is_nan() && expected.is_nan(), "{bits:#06x}: {y} != {expected}");
        assert!(y.is_nan() || y.is_sign_negative() == (bits >> 15 == 1), "{bits:#06x}");
    }
}

/// Subnormal scales (E = 0, 1) and products beyond the largest number (E near 255) included.
#[test]
fn every_mxfp4_number_decodes_exactly() {
    // The magnitudes of E2M1: two with exponent 0 (0, 0.5), then 1 and 1.5 times 2^0, 2^1, 2^2.
    let magnitudes = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    for exponent in 0..=255u8 {
        let nibbles: Vec<u8> = (0..16).map(|j| j | (15 - j) << 4).collect();
        let mut decoded = [0.0; 32];
        quant::decode(QuantType::MXFP4, &[&[exponent], &nibbles[..]].concat(), &mut decoded).unwrap();
        for (e, y) in decoded.into_iter().enumerate() {
            let nibble = if e < 16 { e } else { 31 - e };
            let magnitude = magnitudes[nibble % 8] * 2f64.powi(i32::from(exponent) - 127);
            let expected = if nibble < 8 { magnitude } else { -magnitude };
            let expected = if magnitude > f64::from(f32::MAX) { expected * f64::INFINITY } else { expected };
            assert!(f64::from(y) == expected, "E = {exponent}, element {e}: {y:e} != {expected:e}");
        }
    }
}

#[test]
fn signed_bytes_decode_to_integers() {
    let stored: Vec<u8> = (0..=255).collect();
    let mut decoded = vec![0.0; 256];
    quant::decode(QuantType::I8, &stored, &mut decoded).unwrap();
    assert!((0..=255u8).zip(decoded).all(|(b, y)| y == f32::from(b as i8)));
}
