//! Sums of products in one fixed order: what makes a result independent of how work was split.
//!
//! Sixteen partial sums run over `k` in ascending order, number `k mod 16` taking element `k`; one fixed tree joins
//! them. Sixteen lanes are four vectors of the smallest SIMD width, enough independent chains to hide the latency of an
//! add.

use halfbyte_formats::quant::BlockFormat;

/// Partial sums of one dot product.
pub(super) const LANES: usize = 16;

/// Decoded weights on the stack: at most 256 elements, whole groups of [`LANES`].
pub(super) type Decoded = [[f32; LANES]; 256 / LANES];

/// Zeros, to be decoded into.
pub(super) const DECODED: Decoded = [[0.0; LANES]; 256 / LANES];

/// Decodes whole blocks of `F`, `blocks.len() / F::BYTES * F::LEN` elements.
#[inline(always)]
pub(super) fn decode_run<F: BlockFormat>(blocks: &[u8], out: &mut Decoded) {
    let out = out.as_flattened_mut();
    for (block, out) in blocks.chunks_exact(F::BYTES).zip(out.chunks_exact_mut(F::LEN)) {
        F::decode(block, out);
    }
}

/// Adds to the partial sums of `R` rows: `sums[r][k mod 16] += w[r][k] · x[k]` for `k < x.len() <= 256`, where `x`
/// starts at a multiple of 16 of its row.
///
/// Out of line: inlined into a loop over tokens, LLVM 21 pairs the lanes of different rows and shuffles (3.4 instead of
/// 17 GMAC/s on Zen 4).
#[inline(never)]
pub(super) fn accumulate<const R: usize>(sums: &mut [[f32; LANES]; R], w: &[Decoded; R], x: &[f32]) {
    // A copy the compiler keeps in registers.
    let mut acc = *sums;
    let (groups, tail) = x.as_chunks::<LANES>();
    for (i, x) in groups.iter().enumerate().take(256 / LANES) {
        for (acc, w) in acc.iter_mut().zip(w) {
            for ((acc, w), x) in acc.iter_mut().zip(&w[i]).zip(x) {
                *acc += w * x;
            }
        }
    }
    for (acc, w) in acc.iter_mut().zip(w) {
        for ((acc, w), x) in acc.iter_mut().zip(w.iter().skip(groups.len()).flatten()).zip(tail) {
            *acc += w * x;
        }
    }
    *sums = acc;
}

/// Joins the partial sums: neighbours at distance 8, then 4, 2, 1.
#[inline(always)]
pub(super) fn reduce(sums: &[f32; LANES]) -> f32 {
    let mut sums = *sums;
    for half in [8, 4, 2, 1] {
        let (low, high) = sums.split_at_mut(half);
        for (low, high) in low.iter_mut().zip(high) {
            *low += *high;
        }
    }
    let [sum, ..] = sums;
    sum
}
