//! The contract that lets a runtime split work as it likes: bit-equal results for any split.

use halfbyte_formats::QuantType;
use halfbyte_kernels::Kernels;
#[cfg(not(miri))]
use halfbyte_kernels::ops::Queries;
#[cfg(not(miri))]
use halfbyte_kernels::{KV_PAGE, KvLayout, KvPart, KvType, Tile, ops};
use proptest::prelude::*;

#[cfg(not(miri))]
use crate::common::guarded;
use crate::common::{Rng, bits, cases, for_each_isa, packed, product, weight_types};

/// Computes the product of `tokens` tokens cut at `row` and `token` in four parts, and compares with the whole.
fn split_is_invisible(k: &Kernels, ty: QuantType, shape: (usize, usize, usize), cut: (usize, usize), seed: u64) {
    let (rows, depth, tokens) = shape;
    let mut rng = Rng(seed);
    let w = packed(k, ty, rows, depth, &rng.blocks(ty, rows * depth / ty.block_len()));
    let x = rng.floats(tokens * depth);
    let whole = product(k, &w, 0..rows, &x);
    for range in [0..cut.0, cut.0..rows] {
        for tokens in [0..cut.1, cut.1..tokens] {
            let part = product(k, &w, range.clone(), &x[tokens.start * depth..tokens.end * depth]);
            let expected: Vec<f32> =
                tokens.clone().flat_map(|t| whole[t * rows..(t + 1) * rows][range.clone()].to_vec()).collect();
            assert_eq!(bits(&part), bits(&expected), "{ty:?} {shape:?}: rows {range:?}, tokens {tokens:?}");
        }
    }
}

#[test]
fn batch_and_rows() {
    let shapes: &[_] = if cfg!(miri) { &[(2, 256, 2)] } else { &[(5, 256, 3), (8, 768, 20), (50, 1024, 9)] };
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
        for ty in weight_types() {
            let mut rng = Rng(5);
            let w = packed(k, ty, 3, 256, &rng.blocks(ty, 3 * 256 / ty.block_len()));
            let token = rng.floats(256);
            let alone = product(k, &w, 0..3, &token);
            let batch: Vec<f32> = [&[f32::NAN; 256], &*token, &[f32::MAX; 256]].concat();
            assert_eq!(bits(&product(k, &w, 0..3, &batch)[3..6]), bits(&alone), "{ty:?}");
        }
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
        let (dim, heads, len) = (80, 9, 70usize);
        let layout = KvLayout { ty: KvType::F16, kv_heads: 1, head_dim: dim };
        let mut rng = Rng(13);
        let mut pages = vec![vec![0; layout.page_bytes().expect("small")]; len.div_ceil(KV_PAGE)];
        for pos in 0..len {
            let (keys, values) = pages[pos / KV_PAGE].split_at_mut(layout.half_bytes().expect("small"));
            for (part, half) in [(KvPart::Keys, keys), (KvPart::Values, values)] {
                ops::kv_append(k, &layout, part, half, pos % KV_PAGE, &rng.floats(dim)).expect("fits");
            }
        }
        let q = rng.floats(heads * dim);
        let window = Some(len - 3);
        let a = ops::AttentionGqa { layout: &layout, pages: &pages, pos: len - 1, window, scale: 0.3 };
        let attend = |q: &[f32]| {
            let rows = q.len();
            guarded(rows, |out| {
                let mut out = Tile::new(out, 1, rows).expect("right length");
                ops::attention_gqa(k, &a, 0, Queries { data: q, stride: rows }, &mut out).expect("right shapes");
            })
        };
        let whole = attend(&q);
        for (q, whole) in q.chunks(dim).zip(whole.chunks(dim)) {
            assert_eq!(bits(&attend(q)), bits(whole));
        }
    });
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_split(
        ty in 0..QuantType::ALL.len(), rows in 1..50usize, blocks in 1..4usize, tokens in 1..12usize,
        row in 0..50usize, token in 0..12usize, seed: u64,
    ) {
        let Some(ty) = weight_types().find(|found| *found == QuantType::ALL[ty]) else { return Ok(()) };
        let depth = blocks * ty.block_len().max(21);
        let depth = depth - depth % ty.block_len();
        for_each_isa(|k| split_is_invisible(k, ty, (rows, depth, tokens), (row.min(rows), token.min(tokens)), seed));
    }
}
