//! The contract that lets a runtime split work as it likes: bit-equal results for any split.

use halfbyte_formats::{Bytes, QuantType};
use halfbyte_kernels::{Kernels, PackedMatrix, Tile, ops};
#[cfg(not(miri))]
use halfbyte_kernels::{KvLayout, KvType};
use proptest::prelude::*;

use crate::common::{Rng, bits, for_each_isa, guarded, weight_types};

fn rows_of(k: &Kernels, w: &PackedMatrix, rows: std::ops::Range<usize>, x: &[f32]) -> Vec<f32> {
    let (tokens, n) = (x.len() / w.depth(), rows.len());
    guarded(tokens * n, |out| {
        ops::matmul(k, w, rows, x, &mut Tile::new(out, tokens, n).expect("right length")).expect("right shapes");
    })
}

fn packed(k: &Kernels, ty: QuantType, rows: usize, depth: usize, rng: &mut Rng) -> PackedMatrix {
    let data = rng.blocks(ty, rows * depth / ty.block_len());
    k.pack(ty, rows, depth, Bytes::from(data.into_vec())).expect("valid shape")
}

/// Computes the product of `tokens` tokens cut at `row` and `token` in four parts, and compares with the whole.
fn split_is_invisible(k: &Kernels, ty: QuantType, shape: (usize, usize, usize), cut: (usize, usize), seed: u64) {
    let (rows, depth, tokens) = shape;
    let mut rng = Rng(seed);
    let w = packed(k, ty, rows, depth, &mut rng);
    let x = rng.floats(tokens * depth);
    let whole = rows_of(k, &w, 0..rows, &x);
    for range in [0..cut.0, cut.0..rows] {
        for tokens in [0..cut.1, cut.1..tokens] {
            let part = rows_of(k, &w, range.clone(), &x[tokens.start * depth..tokens.end * depth]);
            let expected: Vec<f32> =
                tokens.clone().flat_map(|t| whole[t * rows..(t + 1) * rows][range.clone()].to_vec()).collect();
            assert_eq!(bits(&part), bits(&expected), "{ty:?} {shape:?}: rows {range:?}, tokens {tokens:?}");
        }
    }
}

#[test]
fn batch_and_rows() {
    let shapes: &[_] = if cfg!(miri) { &[(2, 256, 2)] } else { &[(5, 256, 3), (8, 768, 20), (3, 1024, 9)] };
    for_each_isa(|k| {
        for ty in weight_types() {
            for &(rows, depth, tokens) in shapes {
                let cuts = [(rows / 2, tokens / 2), (0, 1), (1, 0), (rows - 1, tokens - 1)];
                for cut in cuts.into_iter().take(if cfg!(miri) { 1 } else { 4 }) {
                    split_is_invisible(k, ty, (rows, depth, tokens), cut, 11);
                }
            }
        }
    });
}

/// Neighbour tokens, even bad ones, change nothing.
#[test]
fn neighbours_do_not_matter() {
    for_each_isa(|k| {
        let mut rng = Rng(5);
        let w = packed(k, QuantType::Q4_0, 3, 64, &mut rng);
        let token = rng.floats(64);
        let alone = rows_of(k, &w, 0..3, &token);
        let batch: Vec<f32> = [&[f32::NAN; 64], &*token, &[f32::MAX; 64]].concat();
        assert_eq!(bits(&rows_of(k, &w, 0..3, &batch)[3..6]), bits(&alone));
    });
}

/// An element's result is that of any position: vectors and their tails compute alike.
/// Not under miri, which varies the last bit of `exp` on purpose.
#[cfg(not(miri))]
#[test]
fn element_wise_operations_in_any_split() {
    for_each_isa(|k| {
        let mut rng = Rng(9);
        let (x, y) = (rng.floats(67), rng.floats(67));
        let mut whole = x.to_vec();
        ops::silu_mul(k, &mut whole, &y).expect("same length");
        for at in 0..=x.len() {
            let mut parts = x.to_vec();
            let (left, right) = parts.split_at_mut(at);
            ops::silu_mul(k, left, &y[..at]).expect("same length");
            ops::silu_mul(k, right, &y[at..]).expect("same length");
            assert_eq!(bits(&parts), bits(&whole), "cut at {at}");
        }
    });
}

/// A query head's result does not depend on the heads computed with it.
/// Not under miri, which varies the last bit of `exp` on purpose.
#[cfg(not(miri))]
#[test]
fn attention_heads_in_any_split() {
    for_each_isa(|k| {
        let (dim, heads, len) = (80, 9, 70);
        let layout = KvLayout { ty: KvType::F16, kv_heads: 1, head_dim: dim, capacity: len };
        let mut rng = Rng(13);
        let mut cache = || {
            let mut bytes = vec![0; layout.len_bytes().expect("small")];
            for pos in 0..len {
                ops::kv_append(k, &layout, &mut bytes, pos, &rng.floats(dim)).expect("fits");
            }
            bytes
        };
        let (keys, values) = (cache(), cache());
        let q = rng.floats(heads * dim);
        let a = ops::AttentionGqa { layout: &layout, keys: &keys, values: &values, visible: 3..len, scale: 0.3 };
        let attend = |q: &[f32]| guarded(q.len(), |out| ops::attention_gqa(k, &a, 0, q, out).expect("right shapes"));
        let whole = attend(&q);
        for (q, whole) in q.chunks(dim).zip(whole.chunks(dim)) {
            assert_eq!(bits(&attend(q)), bits(whole));
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 1 } else { 48 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_split(
        ty in 0..12usize, rows in 1..7usize, blocks in 1..4usize, tokens in 1..12usize,
        row in 0..7usize, token in 0..12usize, seed: u64,
    ) {
        let ty = QuantType::ALL[ty];
        let depth = blocks * ty.block_len().max(21);
        let depth = depth - depth % ty.block_len();
        for_each_isa(|k| split_is_invisible(k, ty, (rows, depth, tokens), (row.min(rows), token.min(tokens)), seed));
    }
}
