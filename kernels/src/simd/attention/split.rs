//! Splits of what rows see: the pages of each in turn, and how they are merged.

use std::ops::Range;
use std::slice;

use super::KEYS;
use super::rows::{Row, State};
use crate::ops::AttentionGqa;
use crate::ops::attention::{KV_SPLIT, of_part, splits};
use crate::simd::exp::exp;
use crate::simd::{LANES, Simd};

/// How rows attend to one page of one type of cache.
pub(super) trait Page {
    /// Takes the scores of what the rows see of a page, and adds its share to their `max`, `sum` and `out`.
    ///
    /// # Safety
    /// `halves` are the keys and the values of a page, whose first position is `at`; what lies at `next`, any bytes,
    /// will be wanted soon. The rows' `q` and `out` are heads; they are at most [`super::BLOCK`], each sees something
    /// of the page, none ends or starts before the one above, and `seen` are the positions that one of them sees there.
    unsafe fn attend<S: Simd>(
        &self,
        s: S,
        halves: [&[u8]; 2],
        next: &[u8],
        at: usize,
        seen: Range<usize>,
        rows: &mut [Row],
    );
}

/// Attends from all rows, which see positions that neither start nor end before those of the row above, and writes what
/// their heads attend to.
///
/// # Safety
/// As for [`Page::attend`], the pages being those of `a`; `totals` are as many elements as `out` of all rows, unless
/// what they see lies in one split.
#[inline(always)]
pub(super) unsafe fn whole<S: Simd, P: Page>(
    s: S,
    page: &P,
    a: &AttentionGqa<'_>,
    kv_head: usize,
    rows: &mut [Row],
    totals: *mut f32,
) {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return };
    let dim = a.layout.head_dim;
    for split in splits(&(first.start..last.end)) {
        let positions = split * KV_SPLIT..(split + 1) * KV_SPLIT;
        let from = rows.iter().take_while(|row| row.end <= positions.start).count();
        let to = rows.iter().take_while(|row| row.start < positions.end).count();
        let rows = rows.get_mut(from..to).unwrap_or_default();
        // SAFETY: by the contract of this function.
        unsafe { pages(s, page, a, kv_head, positions.clone(), rows) };
        for (r, row) in rows.iter_mut().enumerate() {
            let last = row.end <= positions.end;
            // SAFETY: `out` is a head.
            let out = unsafe { slice::from_raw_parts_mut(row.out, dim) };
            let state = row.state(s);
            if last && row.before.is_none() {
                finish(out, state);
                continue;
            }
            let total = totals.wrapping_add((from + r) * dim);
            let merged = if let Some(before) = row.before {
                // SAFETY: the head of this row, written when its first split was over.
                let total = unsafe { slice::from_raw_parts_mut(total, dim) };
                let merged = merge(s, before, total, state, out);
                if last {
                    out.copy_from_slice(total);
                    finish(out, merged);
                }
                merged
            } else {
                // SAFETY: the head of this row, which is that of no other.
                unsafe { total.copy_from_nonoverlapping(row.out, dim) };
                state
            };
            if !last {
                out.fill(0.0);
                row.restart(merged);
            }
        }
    }
}

/// Online softmax over the pages of what rows see of `positions`, which are whole pages.
///
/// # Safety
/// As for [`whole`]; each row sees some of the positions.
#[inline(always)]
pub(super) unsafe fn pages<S: Simd, P: Page>(
    s: S,
    page: &P,
    a: &AttentionGqa<'_>,
    kv_head: usize,
    positions: Range<usize>,
    rows: &mut [Row],
) {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return };
    let (start, end) = (first.start.max(positions.start), last.end.min(positions.end));
    for tile in (start / KEYS * KEYS..end).step_by(KEYS) {
        let from = rows.iter().take_while(|row| row.end <= tile).count();
        let to = rows.iter().take_while(|row| row.start < tile + KEYS).count();
        let rows = rows.get_mut(from..to).unwrap_or_default();
        // The operation has seen the page; whoever has lost it since gets no result.
        let Some(halves) = a.halves(tile / KEYS, kv_head) else { return };
        let next = if tile + KEYS < end { a.both_halves(tile / KEYS + 1, kv_head).unwrap_or_default() } else { &[] };
        // SAFETY: the halves of this page; the rest by the contract of this function.
        unsafe { page.attend(s, halves, next, tile, start.max(tile)..end.min(tile + KEYS), rows) };
    }
}

/// Merges a split into those before it, whose sums are `total`.
#[inline(always)]
fn merge<S: Simd>(s: S, before: State, total: &mut [f32], split: State, sums: &[f32]) -> State {
    // Neither is NaN: what is not a number shows in the sums.
    let max = s.max(s.splat(before.max), s.splat(split.max));
    let (a, b) = (exp(s, s.sub(s.splat(before.max), max)), exp(s, s.sub(s.splat(split.max), max)));
    let sum = s.fma(s.splat(split.sum), b, s.mul(s.splat(before.sum), a));
    let (vectors, tail) = total.as_chunks_mut::<LANES>();
    let (added, added_tail) = sums.as_chunks::<LANES>();
    for (total, x) in vectors.iter_mut().zip(added) {
        s.store(s.fma(s.load(x), b, s.mul(s.load(total), a)), total);
    }
    if !tail.is_empty() {
        s.store_part(s.fma(s.load_part(added_tail, 0.0), b, s.mul(s.load_part(tail, 0.0), a)), tail);
    }
    State { max: lane(s, max), sum: lane(s, sum) }
}

/// `out /= l`
#[inline(always)]
fn finish(out: &mut [f32], state: State) {
    let factor = 1.0 / state.sum;
    for out in out {
        *out *= factor;
    }
}

/// Any lane of a vector whose lanes are the same.
#[inline(always)]
fn lane<S: Simd>(s: S, x: S::F32) -> f32 {
    let mut lanes = [0.0; LANES];
    s.store(x, &mut lanes);
    lanes[0]
}

/// See [`ops::attention_merge`](crate::ops::attention_merge).
#[inline(always)]
pub(crate) fn attention_merge<S: Simd>(s: S, head_dim: usize, parts: &[f32], out: &mut [f32]) {
    let heads = out.len() / head_dim;
    for (head, out) in out.chunks_exact_mut(head_dim).enumerate() {
        let mut merged = None;
        for part in parts.chunks_exact(heads * (head_dim + 2)) {
            let [sums, maxima, totals] = of_part(part, heads);
            let sums = sums.get(head * head_dim..(head + 1) * head_dim).unwrap_or_default();
            let state = State { max: maxima[head], sum: totals[head] };
            merged = Some(if let Some(before) = merged {
                merge(s, before, out, state, sums)
            } else {
                out.copy_from_slice(sums);
                state
            });
        }
        if let Some(merged) = merged {
            finish(out, merged);
        }
    }
}
