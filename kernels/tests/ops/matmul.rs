//! Products with every weight format.

use halfbyte_formats::{Bytes, QuantType, quant};
use halfbyte_kernels::ops::{self, Store};
use halfbyte_kernels::{ActivationType, Activations, Isa, Kernels, PackLayout, PackedMatrix, Tile};

use crate::common::{
    GROUPED, ROUNDING, Rng, TINY, assert_close, bits, for_each_isa, groups, guarded, guarded_in_place, packed, product,
    product_into, weight_types,
};

/// Roundings on the way of one product of an unrounded activation into the result: its own, one per earlier element of
/// its lane, four in the tree, and one in hand.
fn roundings_f32(depth: usize) -> f64 {
    (depth.div_ceil(16) + 6) as f64
}

/// Sums of integers are exact; a group is then added by one rounded operation, by two if it has two scales or a
/// minimum. One in hand.
fn roundings_q8(depth: usize) -> f64 {
    (2 * depth.div_ceil(32) + 1) as f64
}

/// Largest input that is multiplied.
const LARGEST: f64 = 127.0 * (1u128 << 96) as f64;

/// The definition of 8-bit activations, in `f64`: for 32 inputs the smallest power of two, at least 2^-96, with which
/// all lie within ±127; ties to even. `None` if the token's results are NaN.
fn rounded(x: &[f32]) -> Option<Vec<f64>> {
    let mut out = Vec::new();
    for group in x.chunks(32) {
        let group: Vec<f64> = group.iter().map(|x| f64::from(*x)).collect();
        if group.iter().any(|x| x.is_nan() || x.abs() > LARGEST) {
            return None;
        }
        let largest = group.iter().fold(0.0, |max: f64, x| max.max(x.abs()));
        let scale = (-96..=96).map(|e| 2f64.powi(e)).find(|scale| largest <= 127.0 * scale).expect("not too large");
        out.extend(group.iter().map(|x| (x / scale).round_ties_even() * scale));
    }
    Some(out)
}

/// One element in `f64`, and how far from it the kernel may be.
fn expected(ty: QuantType, activations: ActivationType, w: &[u8], x: &[f32]) -> (f64, f64) {
    let depth = x.len();
    if activations == ActivationType::F32 {
        let mut weights = vec![0.0; depth];
        quant::decode(ty, w, &mut weights).expect("whole blocks");
        let products = weights.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x));
        let magnitude: f64 = products.clone().map(f64::abs).sum();
        return (products.sum(), roundings_f32(depth) * ROUNDING * magnitude + depth as f64 * TINY);
    }
    let (Some(x), Some((groups, zero))) = (rounded(x), groups(ty, w)) else { return (f64::NAN, 0.0) };
    let (mut sum, mut magnitude) = (0.0, 0.0);
    for (group, x) in groups.iter().zip(x.chunks(32)) {
        for (e, (code, x)) in group.codes.iter().zip(x).enumerate() {
            let scaled = f64::from(group.scales[e / 16]) * (f64::from(*code) - f64::from(zero)) * x;
            let min = f64::from(group.min) * x;
            sum += scaled - min;
            magnitude += scaled.abs() + min.abs();
        }
    }
    (sum, roundings_q8(depth) * ROUNDING * magnitude + depth as f64 * TINY)
}

fn check(k: &Kernels, ty: QuantType, rows: usize, depth: usize, data: &[u8], x: &[f32]) {
    let w = packed(k, ty, rows, depth, data);
    let out = product(k, &w, 0..rows, x);
    let what = format!("{ty:?} {} rows={rows} depth={depth}", k.isa().name());
    let row_bytes = depth / ty.block_len() * ty.block_bytes();
    let pairs = x.chunks(depth).flat_map(|x| data.chunks(row_bytes).map(move |w| (w, x)));
    assert_eq!(pairs.clone().count(), out.len());
    for (i, ((row, x), out)) in pairs.zip(out).enumerate() {
        let (expected, bound) = expected(ty, w.activations(), row, x);
        assert_close(&what, i, out, expected, bound);
    }
}

/// Depths around the lanes (16) and the decoded piece (256) of the scalar kernels, and the full panel (512) of the
/// others.
fn depths(ty: QuantType) -> Vec<usize> {
    match ty.block_len() {
        1 if cfg!(miri) => vec![1, 17],
        1 => vec![1, 2, 15, 16, 17, 31, 64, 255, 256, 257, 272, 600],
        len if cfg!(miri) => vec![len],
        32 => [1, 2, 15, 16, 17, 33].map(|n| n * 32).to_vec(),
        len => [1, 2, 3, 5].map(|n| n * len).to_vec(),
    }
}

/// Rows around the pair, the panel (16) and the three panels; tokens around the tile (4, 8).
fn shapes() -> &'static [(usize, usize)] {
    if cfg!(miri) {
        &[(0, 1), (3, 1)]
    } else {
        &[(0, 1), (1, 0), (1, 1), (2, 1), (16, 2), (17, 3), (3, 4), (49, 5), (32, 6), (2, 7), (33, 8), (48, 9), (5, 17)]
    }
}

#[test]
fn agrees_with_f64() {
    for_each_isa(|k| {
        for ty in weight_types() {
            for depth in depths(ty) {
                for &(rows, tokens) in shapes() {
                    let mut rng = Rng((rows * 1000 + tokens * 100 + depth) as u64);
                    let data = rng.blocks(ty, rows * depth / ty.block_len());
                    let x = rng.floats(tokens * depth);
                    check(k, ty, rows, depth, &data, &x);
                }
            }
        }
    });
}

/// More tokens than share a built panel (512), and more inputs than it has (512).
#[cfg(not(miri))]
#[test]
fn many_tokens() {
    for_each_isa(|k| {
        for ty in GROUPED {
            let (rows, depth, mut rng) = (2, 768, Rng(21));
            let data = rng.blocks(ty, rows * depth / ty.block_len());
            let x = rng.floats(517 * depth);
            let w = packed(k, ty, rows, depth, &data);
            let found = product(k, &w, 0..rows, &x);
            // Of all tokens: what a few get, which is held against `f64` elsewhere.
            let few: Vec<f32> = x.chunks(17 * depth).flat_map(|x| product(k, &w, 0..rows, x)).collect();
            assert_eq!(bits(&found), bits(&few), "{ty:?} {}", k.isa().name());
            // Of the first, and of those on both sides of the edge, here.
            for token in [0, 511, 512, 516] {
                for (row, weights) in data.chunks(data.len() / rows).enumerate() {
                    let (expected, bound) = expected(ty, w.activations(), weights, &x[token * depth..][..depth]);
                    assert_close("many tokens", token, found[token * rows + row], expected, bound);
                }
            }
        }
    });
}

/// The same byte everywhere: subnormal scales (0x01, 0x81), the largest (0x7b, 0xfb), every quant at its limits.
#[test]
fn extreme_blocks() {
    for_each_isa(|k| {
        for ty in weight_types() {
            let fills = [0xfb, 0x00, 0x01, 0x7b, 0x80, 0x81];
            for fill in fills.into_iter().take(if cfg!(miri) { 1 } else { 6 }) {
                let depth = 256;
                let data = vec![fill; 2 * depth / ty.block_len() * ty.block_bytes()];
                // Alternating signs: the sums of the largest single-precision weights stay finite.
                let x: Vec<f32> = (0..2 * depth).map(|i| [0.5, -0.25, 1e-39, -0.5, 0.25][i % 5]).collect();
                check(k, ty, 2, depth, &data, &x);
            }
        }
    });
}

/// Where the half-precision scale of a block is.
fn scale_at(ty: QuantType) -> usize {
    if ty == QuantType::Q6_K { 208 } else { 0 }
}

/// Every code at its largest, every activation at its own: sums of 16 bits would overflow here.
#[test]
fn largest_products() {
    for_each_isa(|k| {
        for ty in GROUPED {
            for (fill, sign) in [(0xff, 1.0), (0xff, -1.0), (0x7f, 1.0), (0x00, -1.0), (0x80, 1.0)] {
                let mut block = vec![fill; ty.block_bytes()];
                block[scale_at(ty)..][..2].copy_from_slice(&0x3c00u16.to_le_bytes());
                if matches!(ty, QuantType::Q4_K | QuantType::Q5_K) {
                    block[2..4].copy_from_slice(&0x3c00u16.to_le_bytes());
                }
                let x: Vec<f32> = (0..2 * ty.block_len())
                    .map(|i| if i < ty.block_len() || i % 2 == 0 { 127.0 * sign } else { -127.0 * sign })
                    .collect();
                check(k, ty, 1, ty.block_len(), &block, &x);
            }
        }
    });
}

/// Three rows in which one block has another scale; the first bytes of its codes stay.
fn with_scale(ty: QuantType, depth: usize, row: usize, bits: u16) -> Box<[u8]> {
    let mut data = Rng(9).blocks(ty, 3 * depth / ty.block_len());
    let row_bytes = data.len() / 3;
    data[row * row_bytes + ty.block_bytes() + scale_at(ty)..][..2].copy_from_slice(&bits.to_le_bytes());
    data
}

#[test]
fn zero_scales() {
    for_each_isa(|k| {
        for ty in GROUPED {
            let depth = 3 * ty.block_len();
            for bits in [0x0000, 0x8000] {
                check(k, ty, 3, depth, &with_scale(ty, depth, 1, bits), &Rng(10).floats(5 * depth));
            }
            check(k, ty, 1, depth, &vec![0; 3 * ty.block_bytes()], &Rng(10).floats(5 * depth));
        }
    });
}

/// A scale that is no number shows in its row, and changes nothing elsewhere.
#[test]
fn infinite_scales() {
    for_each_isa(|k| {
        for ty in GROUPED {
            let depth = 3 * ty.block_len();
            let x = Rng(10).floats(5 * depth);
            let results = |data: &[u8]| product(k, &packed(k, ty, 3, depth, data), 0..3, &x);
            let ordinary = results(&with_scale(ty, depth, 1, 0x3c00));
            for bits in [0x7c00, 0xfc00, 0x7e00, 0x7c01] {
                let found = results(&with_scale(ty, depth, 1, bits));
                for (i, (found, ordinary)) in found.iter().zip(&ordinary).enumerate() {
                    let same = found.to_bits() == ordinary.to_bits();
                    assert!(if i % 3 == 1 { !found.is_finite() } else { same }, "{ty:?} {bits:x} {i}: {found}");
                }
            }
        }
    });
}

/// An input that is not finite, or too large to be rounded, makes NaN of its token, whatever the weights.
#[test]
fn bad_inputs_show() {
    for_each_isa(|k| {
        for ty in weight_types() {
            let (rows, depth) = (3, 256);
            let w = packed(k, ty, rows, depth, &Rng(7).blocks(ty, rows * depth / ty.block_len()));
            let x = Rng(8).floats(5 * depth);
            let ordinary = product(k, &w, 0..rows, &x);
            let too_large = (LARGEST as f32).next_up();
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, too_large, -too_large, f32::MAX] {
                for at in [3 * depth, 3 * depth + 40, 4 * depth - 1] {
                    let mut x = x.clone();
                    x[at] = bad;
                    let found = product(k, &w, 0..rows, &x);
                    for (i, (found, ordinary)) in found.iter().zip(&ordinary).enumerate() {
                        if i / rows != 3 {
                            assert_eq!(found.to_bits(), ordinary.to_bits(), "{ty:?} {bad}: element {i}");
                        } else if w.activations() == ActivationType::Q8 {
                            assert!(found.is_nan(), "{ty:?} {bad}: element {i} is {found}");
                        } else {
                            assert!(bad.is_finite() || !found.is_finite(), "{ty:?} {bad}: element {i} is {found}");
                        }
                    }
                }
            }
        }
    });
}

/// The ends of what can be rounded: the largest and the smallest scale, ties, numbers that round to zero.
#[test]
fn extreme_inputs() {
    let largest = LARGEST as f32;
    let tie = [127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, -126.5, 0.49999997, 0.50000006];
    let tiny = [127.0 * 2f32.powi(-96), 2f32.powi(-97), 1.5 * 2f32.powi(-96), 1e-45, -1e-38, f32::MIN_POSITIVE];
    let inputs: [&[f32]; 8] = [
        &[largest, -largest, largest / 256.0, 1.0, -1e-40],
        &tie,
        &tiny,
        &[0.0, -0.0],
        &[127.00001, 1.0],
        &[126.99999, 1.0],
        &[1e-45],
        &[2f32.powi(-96), -2f32.powi(-97)],
    ];
    for_each_isa(|k| {
        for ty in GROUPED {
            let data = Rng(5).blocks(ty, 4);
            for x in inputs {
                let x: Vec<f32> = x.iter().cycle().take(2 * ty.block_len()).copied().collect();
                check(k, ty, 2, 2 * ty.block_len(), &data, &x);
            }
        }
    });
}

/// Every tier that rounds activations gives the same bits.
#[test]
fn tiers_agree() {
    for ty in GROUPED {
        for (rows, depth, tokens) in [(3, 256, 1), (50, 1280, 7), (16, 512, 4)] {
            let mut rng = Rng(depth as u64);
            let data = rng.blocks(ty, rows * depth / ty.block_len());
            let x = rng.floats(tokens * depth);
            let mut first = None;
            for isa in Isa::available() {
                let k = Kernels::with_isa(isa).expect("available");
                let w = packed(&k, ty, rows, depth, &data);
                if w.activations() == ActivationType::Q8 {
                    let found = bits(&product(&k, &w, 0..rows, &x));
                    assert_eq!(&found, first.get_or_insert_with(|| found.clone()), "{ty:?} {}", isa.name());
                }
            }
        }
    }
}

/// Adding is setting, then one rounded sum.
#[test]
fn added_products() {
    let shapes: &[_] = if cfg!(miri) { &[(3, 1)] } else { &[(3, 1), (65, 9), (130, 4)] };
    for_each_isa(|k| {
        for ty in weight_types() {
            for &(rows, tokens) in shapes {
                let depth = 256;
                let mut rng = Rng(rows as u64);
                let w = packed(k, ty, rows, depth, &rng.blocks(ty, rows * depth / ty.block_len()));
                let (x, before) = (rng.floats(tokens * depth), rng.floats(tokens * rows));
                let set = product(k, &w, 0..rows, &x);
                let expected: Vec<f32> = before.iter().zip(&set).map(|(before, product)| before + product).collect();
                let found = guarded_in_place(&before, |out| product_into(k, &w, 0..rows, &x, Store::Add, out));
                assert_eq!(bits(&found), bits(&expected), "{ty:?} {rows} rows {tokens} tokens");
            }
        }
    });
}

#[test]
fn no_depth() {
    for_each_isa(|k| {
        let w = k.pack(QuantType::Q4_0, 3, 0, Bytes::from(vec![])).expect("empty rows");
        let multiply = |w: &PackedMatrix, store, out: &mut [f32]| {
            let x = match w.activations() {
                ActivationType::F32 => Activations::F32(&[]),
                ActivationType::Q8 => Activations::Q8(&[0; 2]),
            };
            ops::matmul(k, w, 0..3, x, store, &mut Tile::new(out, 2, 3).expect("six")).expect("an empty sum");
        };
        assert_eq!(guarded(6, |out| multiply(&w, Store::Set, out)), [0.0; 6]);
        assert_eq!(guarded_in_place(&[1.0; 6], |out| multiply(&w, Store::Add, out)), [1.0; 6]);
    });
}

#[test]
fn decoded_rows() {
    for_each_isa(|k| {
        for ty in weight_types() {
            let (rows, depth) = (3, 256);
            let data = Rng(3).blocks(ty, rows * depth / ty.block_len());
            let mut expected = vec![0.0; rows * depth];
            quant::decode(ty, &data, &mut expected).expect("whole blocks");
            let w = k.pack(ty, rows, depth, Bytes::from(data.to_vec())).expect("valid shape");
            assert_eq!((w.rows(), w.depth(), w.layout(), w.data()), (rows, depth, PackLayout::RowMajor(ty), &*data));
            for (row, expected) in expected.chunks(depth).enumerate() {
                let out = guarded(depth, |out| ops::decode_row(&w, row, out).expect("a row"));
                assert_eq!(out, expected, "{ty:?} row {row}");
            }
        }
    });
}
