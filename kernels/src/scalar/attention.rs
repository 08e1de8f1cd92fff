//! Grouped-query attention, token by token: online softmax over tiles of 64 keys, splits of 1024 merged one by one.
//!
//! ```text
//! for each token, for each split, for each tile j0..j1 of visible positions (j0 a multiple of 64, or the first visible one):
//!   s[h][j] = scale · q[h] · key[j]          each key decoded once for up to 8 heads
//!   m' = max(m, max_j s);  p = exp(s - m');  l = l · exp(m - m') + Σ p
//!   out[h] = out[h] · exp(m - m') + Σ_j p[j] · value[j]
//! ```
//! The sum over a tile is taken apart and then merged, so that rounding grows with the number of tiles, not of keys.

use std::marker::PhantomData;
use std::ops::Range;

use halfbyte_formats::quant::{BlockFormat, F32};

use super::dot::{DECODED, Decoded, LANES, accumulate, decode_run, reduce};
use super::half::Half;
use super::softmax::{exp_sum, max};
use crate::ops::attention::{of_part, of_part_mut, splits, within};
use crate::ops::kv::{KV_PAGE as TILE, MAX_HEAD_DIM};
use crate::ops::{AttentionGqa, Queries};
use crate::{KvPart, KvType, Tile, kv8};

/// Query heads that share a decoded key.
const HEADS: usize = 8;

/// Elements of a head decoded at a time.
const DIMS: usize = 256;

/// What is known of a head besides its sums: the largest score, and the sum of the weights.
#[derive(Clone, Copy)]
struct State {
    max: f32,
    sum: f32,
}

/// Nothing is known.
const STATE: State = State { max: f32::NEG_INFINITY, sum: 0.0 };

/// Elements of as many heads as go together.
fn group(head_dim: usize) -> usize {
    HEADS.min(MAX_HEAD_DIM / head_dim).max(1) * head_dim
}

/// See [`ops::attention_gqa`](crate::ops::attention_gqa).
pub(super) fn attention_gqa(a: &AttentionGqa<'_>, kv_head: usize, q: Queries<'_>, out: &mut Tile<'_>) {
    let heads = group(a.layout.head_dim);
    for token in 0..out.tokens() {
        let visible = a.visible(token);
        let q = q.data.get(token * q.stride..).unwrap_or_default();
        for (q, out) in q.chunks(heads).zip(out.row_mut(token).chunks_mut(heads)) {
            attend(a, kv_head, &visible, q.get(..out.len()).unwrap_or_default(), out);
        }
    }
}

/// A group of query heads of a token.
fn attend(a: &AttentionGqa<'_>, kv_head: usize, visible: &Range<usize>, q: &[f32], out: &mut [f32]) {
    let dim = a.layout.head_dim;
    let mut sums = [0.0; MAX_HEAD_DIM];
    let sums = sums.get_mut(..out.len()).unwrap_or_default();
    let mut merged = [STATE; HEADS];
    for (n, split) in splits(visible).enumerate() {
        if n == 0 {
            merged = heads_of(a, kv_head, within(visible, split), q, out);
            continue;
        }
        let states = heads_of(a, kv_head, within(visible, split), q, sums);
        let heads = out.chunks_exact_mut(dim).zip(sums.chunks_exact(dim));
        for ((merged, state), (out, sums)) in merged.iter_mut().zip(states).zip(heads) {
            merge(merged, out, state, sums);
        }
    }
    for (out, state) in out.chunks_exact_mut(dim).zip(merged) {
        finish(out, state);
    }
}

/// Merges a split into those before it.
fn merge(merged: &mut State, out: &mut [f32], split: State, sums: &[f32]) {
    let max = max(&[merged.max, split.max]);
    let (a, b) = ((merged.max - max).exp(), (split.max - max).exp());
    *merged = State { max, sum: merged.sum * a + split.sum * b };
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = *out * a + *sum * b;
    }
}

/// `out /= l`
fn finish(out: &mut [f32], state: State) {
    let scale = 1.0 / state.sum;
    for out in out {
        *out *= scale;
    }
}

/// See [`ops::attention_part`](crate::ops::attention_part).
pub(super) fn attention_part(a: &AttentionGqa<'_>, kv_head: usize, split: usize, q: &[f32], part: &mut [f32]) {
    let dim = a.layout.head_dim;
    let (heads, positions) = (group(dim), within(&a.visible(0), split));
    let [sums, maxima, totals] = of_part_mut(part, q.len() / dim);
    let places = maxima.chunks_mut(heads / dim).zip(totals.chunks_mut(heads / dim));
    for ((q, sums), (maxima, totals)) in q.chunks(heads).zip(sums.chunks_mut(heads)).zip(places) {
        let states = heads_of(a, kv_head, positions.clone(), q, sums);
        for ((max, total), state) in maxima.iter_mut().zip(totals).zip(states) {
            (*max, *total) = (state.max, state.sum);
        }
    }
}

/// See [`ops::attention_merge`](crate::ops::attention_merge).
pub(super) fn attention_merge(head_dim: usize, parts: &[f32], out: &mut [f32]) {
    let heads = out.len() / head_dim;
    for (head, out) in out.chunks_exact_mut(head_dim).enumerate() {
        let mut merged = None;
        for part in parts.chunks_exact(heads * (head_dim + 2)) {
            let [sums, maxima, totals] = of_part(part, heads);
            let state = State { max: maxima[head], sum: totals[head] };
            let sums = sums.get(head * head_dim..(head + 1) * head_dim).unwrap_or_default();
            if let Some(merged) = &mut merged {
                merge(merged, out, state, sums);
            } else {
                out.copy_from_slice(sums);
                merged = Some(state);
            }
        }
        finish(out, merged.unwrap_or(STATE));
    }
}

/// A group of query heads over positions of one split: their states, and in `out` their sums.
fn heads_of(
    a: &AttentionGqa<'_>,
    kv_head: usize,
    positions: Range<usize>,
    q: &[f32],
    out: &mut [f32],
) -> [State; HEADS] {
    match a.layout.ty {
        KvType::F32 => heads_of_type::<Plain<F32>>(a, kv_head, positions, q, out),
        KvType::F16 => heads_of_type::<Plain<Half>>(a, kv_head, positions, q, out),
        KvType::Int8 => heads_of_type::<Int8>(a, kv_head, positions, q, out),
    }
}

/// How a half is stored.
trait Stored {
    /// Decodes elements `d..` of a position, at most [`DIMS`].
    fn decode(half: &[u8], part: KvPart, dim: usize, slot: usize, d: usize, out: &mut Decoded);
}

/// Elements one after the other.
struct Plain<E>(PhantomData<E>);

impl<E: BlockFormat> Stored for Plain<E> {
    #[inline(always)]
    fn decode(half: &[u8], _: KvPart, dim: usize, slot: usize, d: usize, out: &mut Decoded) {
        let elements = slot * dim + d..slot * dim + dim.min(d + DIMS);
        decode_run::<E>(half.get(elements.start * E::BYTES..elements.end * E::BYTES).unwrap_or_default(), out);
    }
}

/// Codes and scales.
struct Int8;

impl Stored for Int8 {
    fn decode(half: &[u8], part: KvPart, dim: usize, slot: usize, _: usize, out: &mut Decoded) {
        kv8::decode(half, part, slot, out.as_flattened_mut().get_mut(..dim).unwrap_or_default());
    }
}

const _: () = assert!(kv8::MAX_DIM <= DIMS);

/// [`heads_of`] over a cache of `E`.
fn heads_of_type<E: Stored>(
    a: &AttentionGqa<'_>,
    kv_head: usize,
    positions: Range<usize>,
    q: &[f32],
    out: &mut [f32],
) -> [State; HEADS] {
    let dim = a.layout.head_dim;
    let mut scores = [[0.0; TILE]; HEADS];
    let mut maxima = [f32::NEG_INFINITY; HEADS];
    let mut sums = [0.0; HEADS];
    let mut decays = [0.0; HEADS];
    out.fill(0.0);

    let mut start = positions.start;
    while start < positions.end {
        let page = start / TILE;
        let end = positions.end.min((page + 1) * TILE);
        let slots = start - page * TILE..end - page * TILE;
        let [keys, values] = a.halves(page, kv_head).unwrap_or_default();
        score::<E>(keys, slots.clone(), q, dim, a.scale, &mut scores);
        let states = maxima.iter_mut().zip(&mut sums).zip(&mut decays);
        for (((top, sum), decay), scores) in states.zip(&mut scores).take(q.len() / dim) {
            let scores = scores.get_mut(..end - start).unwrap_or_default();
            let new = max(scores).max(*top);
            *decay = (*top - new).exp();
            *sum = *sum * f64::from(*decay) + exp_sum(scores, new);
            *top = new;
        }
        mix::<E>(values, slots, dim, &scores, &decays, out);
        start = end;
    }
    let mut states = [STATE; HEADS];
    for ((state, max), sum) in states.iter_mut().zip(maxima).zip(sums) {
        *state = State { max, sum: sum as f32 };
    }
    states
}

/// `scores[h][j] = scale · q[h] · keys[slots[j]]`.
#[inline(always)]
fn score<E: Stored>(
    keys: &[u8],
    slots: Range<usize>,
    q: &[f32],
    dim: usize,
    scale: f32,
    scores: &mut [[f32; TILE]; HEADS],
) {
    let mut decoded = [DECODED];
    for (j, slot) in slots.enumerate() {
        let mut sums = [[[0.0; LANES]]; HEADS];
        for (piece, d) in (0..dim).step_by(DIMS).enumerate() {
            let [piece_decoded] = &mut decoded;
            E::decode(keys, KvPart::Keys, dim, slot, d, piece_decoded);
            for (sums, q) in sums.iter_mut().zip(q.chunks_exact(dim)) {
                accumulate(sums, &decoded, q.chunks(DIMS).nth(piece).unwrap_or_default());
            }
        }
        for (scores, [sums]) in scores.iter_mut().zip(&sums).take(q.len() / dim) {
            scores[j] = reduce(sums) * scale;
        }
    }
}

/// `out[h] = out[h] · decays[h] + Σ_j weights[h][j] · values[slots[j]]`.
#[inline(always)]
fn mix<E: Stored>(
    values: &[u8],
    slots: Range<usize>,
    dim: usize,
    weights: &[[f32; TILE]; HEADS],
    decays: &[f32; HEADS],
    out: &mut [f32],
) {
    let mut decoded: Decoded = DECODED;
    for (piece, d) in (0..dim).step_by(DIMS).enumerate() {
        let mut sums = [DECODED; HEADS];
        let groups = DIMS.min(dim - d).div_ceil(LANES);
        for (j, slot) in slots.clone().enumerate() {
            E::decode(values, KvPart::Values, dim, slot, d, &mut decoded);
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
