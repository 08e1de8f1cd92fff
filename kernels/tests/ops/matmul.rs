//! Products with every weight format.

use halfbyte_formats::{Bytes, QuantType, quant};
use halfbyte_kernels::{Kernels, Tile, ops};

use crate::common::{ROUNDING, Rng, TINY, assert_close, for_each_isa, guarded, weight_types};

/// Roundings on the way of one product into the result: its own, one per earlier element of its lane, four in the tree,
/// and one in hand.
fn roundings(depth: usize) -> f64 {
    (depth.div_ceil(16) + 6) as f64
}

/// A product on `k`, with weights at an odd address.
pub(crate) fn product(k: &Kernels, ty: QuantType, rows: usize, depth: usize, data: &[u8], x: &[f32]) -> Vec<f32> {
    let odd: Vec<u8> = [0xa5].iter().chain(data).copied().collect();
    let bytes = Bytes::from(odd).slice(1..1 + data.len()).expect("inside");
    let w = k.pack(ty, rows, depth, bytes).expect("valid shape");
    let tokens = x.len() / depth;
    guarded(tokens * rows, |out| {
        let mut out = Tile::new(out, tokens, rows).expect("right length");
        ops::matmul(k, &w, 0..rows, x, &mut out).expect("right shapes");
    })
}

fn check(k: &Kernels, ty: QuantType, rows: usize, depth: usize, data: &[u8], x: &[f32]) {
    let mut weights = vec![0.0; rows * depth];
    quant::decode(ty, data, &mut weights).expect("whole blocks");
    let out = product(k, ty, rows, depth, data, x);
    let what = format!("{ty:?} {} rows={rows} depth={depth}", k.isa().name());
    let pairs = x.chunks(depth).flat_map(|x| weights.chunks(depth).map(move |w| (w, x)));
    assert_eq!(pairs.clone().count(), out.len());
    for (i, ((w, x), out)) in pairs.zip(out).enumerate() {
        let products = w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x));
        let magnitude: f64 = products.clone().map(f64::abs).sum();
        assert_close(&what, i, out, products.sum(), roundings(depth) * ROUNDING * magnitude + depth as f64 * TINY);
    }
}

/// Depths around the lanes (16) and the decoded piece (256) of the scalar kernels.
fn depths(ty: QuantType) -> Vec<usize> {
    match ty.block_len() {
        1 if cfg!(miri) => vec![1, 17],
        1 => vec![1, 2, 15, 16, 17, 31, 64, 255, 256, 257, 272, 600],
        len if cfg!(miri) => vec![len],
        len => [1, 2, 3, 7, 8, 9, 17].map(|n| n * len).to_vec(),
    }
}

/// Rows around the pair, tokens around the tile of eight.
fn shapes() -> &'static [(usize, usize)] {
    if cfg!(miri) {
        &[(0, 1), (3, 1)]
    } else {
        &[(0, 1), (1, 0), (1, 1), (2, 1), (3, 1), (5, 1), (1, 2), (2, 7), (3, 8), (2, 9), (5, 17)]
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

#[test]
fn infinite_input_shows() {
    for_each_isa(|k| {
        let mut rng = Rng(7);
        let data = rng.blocks(QuantType::Q8_0, 2);
        let mut x = rng.floats(64);
        x[40] = f32::NAN;
        assert!(product(k, QuantType::Q8_0, 1, 64, &data, &x)[0].is_nan());
    });
}

#[test]
fn no_depth_gives_zeros() {
    for_each_isa(|k| {
        let w = k.pack(QuantType::Q4_0, 3, 0, Bytes::from(vec![])).expect("empty rows");
        let out = guarded(6, |out| {
            ops::matmul(k, &w, 0..3, &[], &mut Tile::new(out, 2, 3).expect("six")).expect("zeros");
        });
        assert_eq!(out, [0.0; 6]);
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
            assert_eq!((w.rows(), w.depth(), w.ty(), w.data()), (rows, depth, ty, &*data));
            for (row, expected) in expected.chunks(depth).enumerate() {
                let out = guarded(depth, |out| ops::decode_row(&w, row, out).expect("a row"));
                assert_eq!(out, expected, "{ty:?} row {row}");
            }
        }
    });
}
