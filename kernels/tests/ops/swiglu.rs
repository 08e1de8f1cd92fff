//! The first half of a feed-forward layer in one step, against its steps one by one.

use halfbyte_formats::{Bytes, QuantType, quant};
use halfbyte_kernels::ops::{self, Store};
use halfbyte_kernels::{
    ActivationType, Activations, Kernels, PackedMatrix, QuantTile, Tile, pack_rows, quantized_words,
};

use crate::common::{GROUPED, Rng, for_each_isa, packed, quantized};

/// More than one block of 96, with a shorter last one; whole units of panels.
const ROWS: usize = if cfg!(miri) { 64 } else { 128 };

/// Where windows meet.
const CUT: usize = 32;

/// Gate and up, as stored in other files or in panels.
fn matrices(k: &Kernels, ty: QuantType, depth: usize, in_panels: bool) -> [PackedMatrix; 2] {
    [1, 2].map(|seed| {
        let data = Rng(seed).blocks(ty, ROWS * depth / ty.block_len());
        if !in_panels {
            return packed(k, ty, ROWS, depth, &data);
        }
        let to = quant::PanelType::of(ty).expect("has panels");
        let mut out = vec![0; to.matrix_bytes(ROWS, depth).expect("whole units")];
        let row_bytes = data.len() / ROWS;
        let panels = out.chunks_mut(to.matrix_bytes(1, depth).expect("whole units"));
        for (rows, panel) in data.chunks(16 * row_bytes).zip(panels) {
            pack_rows(ty, depth, rows, panel).expect("right lengths");
        }
        k.packed(to, ROWS, depth, Bytes::from(out)).expect("valid shape")
    })
}

/// Two products, the activation, the rounding.
fn step_by_step(k: &Kernels, w: &[PackedMatrix; 2], x: &[u32], tokens: usize) -> Box<[u32]> {
    let [mut gate, up] = [&w[0], &w[1]].map(|w| {
        let mut out = vec![0.0; tokens * ROWS];
        let mut tile = Tile::new(&mut out, tokens, ROWS).expect("right length");
        ops::matmul(k, w, 0..ROWS, Activations::Q8(x), Store::Set, &mut tile).expect("right shapes");
        out
    });
    ops::silu_mul(k, &mut gate, &up).expect("the same length");
    quantized(k, &gate, ROWS)
}

/// The same bits, for all rows at once and for windows of them.
fn check(ty: QuantType, depth: usize, tokens: usize) {
    for_each_isa(|k| {
        for w in [true, false].map(|in_panels| matrices(k, ty, depth, in_panels)) {
            if w[0].activations() == ActivationType::F32 {
                continue;
            }
            let what = format!("{ty:?} {:?} {} {tokens} tokens", w[0].layout(), k.isa().name());
            let x = quantized(k, &Rng(tokens as u64).floats(tokens * depth), depth);
            let expected = step_by_step(k, &w, &x, tokens);
            let mut found = vec![0x5a5a_5a5a; expected.len()];
            let mut tile = QuantTile::new(&mut found, tokens, ROWS).expect("right length");
            ops::swiglu(k, [&w[0], &w[1]], 0..ROWS, &x, &mut tile).expect("right shapes");
            assert!(found == *expected, "{what}");

            // Windows of one batch, of which the first call writes no more than its own.
            let mut found = vec![0x5a5a_5a5a; expected.len()];
            QuantTile::new(&mut found, tokens, ROWS).expect("right length");
            for rows in [CUT..ROWS, 0..CUT] {
                let groups = rows.start / 32..rows.end / 32;
                // SAFETY: the words of so many tokens, of which this window is in use only.
                let mut window = unsafe { QuantTile::from_raw(found.as_mut_ptr(), tokens, ROWS, groups) };
                ops::swiglu(k, [&w[0], &w[1]], rows, &x, &mut window).expect("right shapes");
            }
            assert!(found == *expected, "{what}: in two windows");
        }
    });
}

#[test]
fn is_its_steps() {
    for ty in GROUPED.into_iter().take(if cfg!(miri) { 1 } else { 6 }) {
        for tokens in [1, 4, 5, 33].into_iter().take(if cfg!(miri) { 1 } else { 4 }) {
            check(ty, if cfg!(miri) { 64 } else { 256 }, tokens);
        }
    }
}

/// More tokens than are computed at a time (128 of few, 512), and more inputs than a panel has (512).
#[cfg(not(miri))]
#[test]
fn many_tokens() {
    for tokens in [128, 129, 517] {
        check(QuantType::Q4_0, 64, tokens);
    }
    check(QuantType::Q6_K, 768, 517);
}

/// Of inputs that are none, there can be more rows than can be gone through.
#[test]
fn no_tokens_take_no_time() {
    const MOST: usize = usize::MAX - 31;
    for_each_isa(|k| {
        let w = k.packed(quant::PanelType::Q4_0, MOST, 0, Bytes::from(Vec::new())).expect("valid shape");
        let mut tile = QuantTile::new(&mut [], 0, MOST).expect("no words");
        ops::swiglu(k, [&w, &w], 0..MOST, &[], &mut tile).expect("right shapes");
    });
}

/// A token of no use stays so, and one whose products are too large becomes so; others do not change.
#[test]
fn bad_tokens_show() {
    let (depth, tokens) = (64, 6);
    for_each_isa(|k| {
        let w = matrices(k, QuantType::Q4_0, depth, true);
        let mut x = Rng(3).floats(tokens * depth);
        let ordinary = after(k, &step_by_step(k, &w, &quantized(k, &x, depth), tokens), tokens);
        x[2 * depth + 5] = f32::NAN;
        x[4 * depth..5 * depth].iter_mut().for_each(|x| *x *= 1e25);
        let mut found = vec![0; quantized_words(tokens, ROWS).expect("whole groups")];
        let mut tile = QuantTile::new(&mut found, tokens, ROWS).expect("right length");
        ops::swiglu(k, [&w[0], &w[1]], 0..ROWS, &quantized(k, &x, depth), &mut tile).expect("right shapes");
        for (token, (found, ordinary)) in after(k, &found, tokens).iter().zip(&ordinary).enumerate() {
            let bad = [2, 4].contains(&token);
            let right = if bad { found.is_nan() } else { found.to_bits() == ordinary.to_bits() };
            assert!(right, "{}, token {token}: {found} beside {ordinary}", k.isa().name());
        }
    });
}

/// The next product: one row.
fn after(k: &Kernels, words: &[u32], tokens: usize) -> Vec<f32> {
    let down = Bytes::from(vec![0x3c; 16 * ROWS / 64 * 36]);
    let down = k.packed(quant::PanelType::Q4_0, 1, ROWS, down).expect("valid shape");
    let mut out = vec![0.0; tokens];
    let mut tile = Tile::new(&mut out, tokens, 1).expect("right length");
    ops::matmul(k, &down, 0..1, Activations::Q8(words), Store::Set, &mut tile).expect("right shapes");
    assert!(out.iter().all(|x| *x != 0.0));
    out
}
