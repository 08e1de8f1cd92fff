//! Grouped-query attention, token by token: online softmax over tiles of 64 keys.
//!
//! ```text
//! for each token, for each tile j0..j1 of visible positions (j0 a multiple of 64, or the first visible one):
//!   s[h][j] = scale · q[h] · key[j]          each key decoded once for up to 8 heads
//!   m' = max(m, max_j s);  p = exp(s - m');  l = l · exp(m - m') + Σ p
//!   out[h] = out[h] · exp(m - m') + Σ_j p[j] · value[j]
//! out[h] /= l
//! ```
//! The sum over a tile is taken apart and then merged, so that rounding grows with the number of tiles, not of keys.

use std::ops::Range;

use halfbyte_formats::quant::{BlockFormat, F32};

use super::dot::{DECODED, Decoded, LANES, accumulate, decode_run, reduce};
use super::half::Half;
use super::softmax::{exp_sum, max};
use crate::ops::{AttentionGqa, Queries};
use crate::{KvType, Tile};

/// Positions of a tile.
const TILE: usize = 64;

/// Query heads that share a decoded key.
const HEADS: usize = 8;

/// Elements of a head decoded at a time.
const DIMS: usize = 256;

/// See [`ops::attention_gqa`](crate::ops::attention_gqa).
pub(super) fn attention_gqa(a: &AttentionGqa<'_>, kv_head: usize, q: Queries<'_>, out: &mut Tile<'_>) {
    let heads = HEADS * a.layout.head_dim;
    for token in 0..out.tokens() {
        let visible = a.visible(token);
        let q = q.data.get(token * q.stride..).unwrap_or_default();
        for (q, out) in q.chunks(heads).zip(out.row_mut(token).chunks_mut(heads)) {
            let q = q.get(..out.len()).unwrap_or_default();
            match a.layout.ty {
                KvType::F32 => heads_of::<F32>(a, kv_head, visible.clone(), q, out),
                KvType::F16 => heads_of::<Half>(a, kv_head, visible.clone(), q, out),
            }
        }
    }
}

/// At most [`HEADS`] query heads of a token over a cache of `E`.
fn heads_of<E: BlockFormat>(a: &AttentionGqa<'_>, kv_head: usize, visible: Range<usize>, q: &[f32], out: &mut [f32]) {
    let dim = a.layout.head_dim;
    let cell = dim * E::BYTES;
    let head = kv_head * a.layout.capacity;
    let mut scores = [[0.0; TILE]; HEADS];
    let mut maxima = [f32::NEG_INFINITY; HEADS];
    let mut sums = [0.0; HEADS];
    let mut decays = [0.0; HEADS];
    out.fill(0.0);

    let mut start = visible.start;
    while start < visible.end {
        let end = visible.end.min((start / TILE + 1) * TILE);
        let bytes = (head + start) * cell..(head + end) * cell;
        let keys = a.keys.get(bytes.clone()).unwrap_or_default();
        let values = a.values.get(bytes).unwrap_or_default();

        score::<E>(keys, q, dim, a.scale, &mut scores);
        let states = maxima.iter_mut().zip(&mut sums).zip(&mut decays);
        for (((top, sum), decay), scores) in states.zip(&mut scores).take(q.len() / dim) {
            let scores = scores.get_mut(..end - start).unwrap_or_default();
            let new = max(scores).max(*top);
            *decay = (*top - new).exp();
            *sum = *sum * f64::from(*decay) + exp_sum(scores, new);
            *top = new;
        }
        mix::<E>(values, dim, &scores, &decays, out);
        start = end;
    }
    for (out, sum) in out.chunks_exact_mut(dim).zip(sums) {
        let scale = (1.0 / sum) as f32;
        for out in out {
            *out *= scale;
        }
    }
}

/// `scores[h][j] = scale · q[h] · keys[j]`.
#[inline(always)]
fn score<E: BlockFormat>(keys: &[u8], q: &[f32], dim: usize, scale: f32, scores: &mut [[f32; TILE]; HEADS]) {
    let mut decoded = [DECODED];
    for (j, key) in keys.chunks_exact(dim * E::BYTES).enumerate().take(TILE) {
        let mut sums = [[[0.0; LANES]]; HEADS];
        for (piece, key) in key.chunks(DIMS * E::BYTES).enumerate() {
            let [piece_decoded] = &mut decoded;
            decode_run::<E>(key, piece_decoded);
            for (sums, q) in sums.iter_mut().zip(q.chunks_exact(dim)) {
                accumulate(sums, &decoded, q.chunks(DIMS).nth(piece).unwrap_or_default());
            }
        }
        for (scores, [sums]) in scores.iter_mut().zip(&sums).take(q.len() / dim) {
            scores[j] = reduce(sums) * scale;
        }
    }
}

/// `out[h] = out[h] · decays[h] + Σ_j weights[h][j] · values[j]`.
#[inline(always)]
fn mix<E: BlockFormat>(
    values: &[u8],
    dim: usize,
    weights: &[[f32; TILE]; HEADS],
    decays: &[f32; HEADS],
    out: &mut [f32],
) {
    let mut decoded: Decoded = DECODED;
    for piece in 0..dim.div_ceil(DIMS) {
        let mut sums = [DECODED; HEADS];
        for (j, value) in values.chunks_exact(dim * E::BYTES).enumerate().take(TILE) {
            let value = value.chunks(DIMS * E::BYTES).nth(piece).unwrap_or_default();
            decode_run::<E>(value, &mut decoded);
            let groups = (value.len() / E::BYTES).div_ceil(LANES);
            for (sums, weights) in sums.iter_mut().zip(weights).take(out.len() / dim) {
                let weight = weights[j];
                for (sums, value) in sums.iter_mut().zip(&decoded).take(groups) {
                    for (sum, value) in sums.iter_mut().zip(value) {
                        *sum += weight * value;
                    }
                }
            }
        }
        for ((out, sums), decay) in out.chunks_exact_mut(dim).zip(&sums).zip(decays) {
            let out = out.chunks_mut(DIMS).nth(piece).unwrap_or_default();
            for (out, sum) in out.iter_mut().zip(sums.as_flattened()) {
                *out = *out * decay + sum;
            }
        }
    }
}
