//! What attention knows of each query head of each token: a row.

use std::mem::MaybeUninit;
use std::ops::Range;
use std::slice;

use super::KEYS;
use crate::Tile;
use crate::ops::{AttentionGqa, Queries};
use crate::simd::exp::exp;
use crate::simd::{LANES, Simd};

/// A query head of a token, and what is known of its result.
pub(super) struct Row {
    /// Its number among those that attend together.
    pub(super) number: usize,
    pub(super) q: *const f32,
    pub(super) out: *mut f32,
    /// Visible positions.
    pub(super) start: usize,
    pub(super) end: usize,
    /// Largest score so far.
    pub(super) max: f32,
    /// What the present tile multiplies earlier results by.
    pub(super) decay: f32,
    /// What the numbers that its query is rounded to are multiples of, if it is.
    pub(super) step: f32,
    /// What the weights of the present tile are multiples of, if they are rounded.
    pub(super) unit: f32,
    /// Sum of the weights so far, in parts.
    pub(super) sum: [f32; LANES],
    /// Of the splits before the present one, if it has seen any.
    pub(super) before: Option<State>,
}

/// What is known of a row's splits besides its sums: the largest score, and the sum of the weights.
#[derive(Clone, Copy)]
pub(super) struct State {
    pub(super) max: f32,
    pub(super) sum: f32,
}

impl Row {
    /// Nothing is known, besides what it sees.
    #[inline(always)]
    fn new(number: usize, q: *const f32, out: &mut [f32], seen: &Range<usize>) -> Self {
        out.fill(0.0);
        let (out, start, end) = (out.as_mut_ptr(), seen.start, seen.end);
        let (max, sum) = (f32::NEG_INFINITY, [0.0; LANES]);
        Self { number, q, out, start, end, max, decay: 0.0, step: 1.0, unit: 1.0, sum, before: None }
    }

    /// What is known of the present split.
    #[inline(always)]
    pub(super) fn state<S: Simd>(&self, s: S) -> State {
        State { max: self.max, sum: s.sum(s.load(&self.sum)) }
    }

    /// Nothing is known of the next split; `before` is of those before it.
    #[inline(always)]
    pub(super) fn restart(&mut self, before: State) {
        (self.max, self.sum, self.before) = (f32::NEG_INFINITY, [0.0; LANES], Some(before));
    }

    /// Takes the largest score of a tile into account, -∞ if there is none: sets `max` and `decay`.
    #[inline(always)]
    pub(super) fn grow<S: Simd>(&mut self, s: S, top: f32) {
        self.decay = 1.0;
        if top > self.max {
            let mut lanes = [0.0; LANES];
            s.store(exp(s, s.splat(self.max - top)), &mut lanes);
            (self.max, self.decay) = (top, lanes[0]);
        }
    }

    /// The keys of `tile..tile + KEYS` that it sees, counted from `tile`.
    pub(super) fn within(&self, tile: usize) -> Range<usize> {
        self.start.max(tile) - tile..self.end.min(tile + KEYS).max(tile) - tile
    }
}

/// Rows `range` of all `tokens · heads`, nothing being known yet; zeros in `out`.
#[inline(always)]
pub(super) fn rows<'a>(
    a: &AttentionGqa<'_>,
    q: Queries<'_>,
    range: Range<usize>,
    out: &mut Tile<'_>,
    room: &'a mut [MaybeUninit<Row>],
) -> &'a mut [Row] {
    let dim = a.layout.head_dim;
    let heads = out.rows() / dim;
    let mut places = room.iter_mut();
    let mut n = 0;
    for token in range.start / heads..range.end.div_ceil(heads) {
        let skip = if n == 0 { range.start % heads } else { 0 };
        let seen = a.visible(token);
        let outs = out.row_mut(token).chunks_exact_mut(dim).enumerate().skip(skip);
        for ((head, out), place) in outs.take(range.len() - n).zip(&mut places) {
            let q = q.data.as_ptr().wrapping_add(token * q.stride + head * dim);
            place.write(Row::new(n, q, out, &seen));
            n += 1;
        }
    }
    // SAFETY: the first `n` of them were just written.
    unsafe { slice::from_raw_parts_mut(room.as_mut_ptr().cast(), n) }
}

/// The query heads of one token, nothing being known yet; zeros in `out`.
#[inline(always)]
pub(super) fn rows_of_part<'a>(
    a: &AttentionGqa<'_>,
    q: &[f32],
    out: &mut [f32],
    room: &'a mut [MaybeUninit<Row>],
) -> &'a mut [Row] {
    let (dim, seen) = (a.layout.head_dim, a.visible(0));
    let mut n = 0;
    for ((q, out), place) in q.chunks_exact(dim).zip(out.chunks_exact_mut(dim)).zip(room.iter_mut()) {
        place.write(Row::new(n, q.as_ptr(), out, &seen));
        n += 1;
    }
    // SAFETY: the first `n` of them were just written.
    unsafe { slice::from_raw_parts_mut(room.as_mut_ptr().cast(), n) }
}

/// What the first and the last of some rows see of a tile.
#[inline(always)]
pub(super) fn ends(rows: &[Row], tile: usize) -> [Range<usize>; 2] {
    [rows.first(), rows.last()].map(|row| row.map_or(0..0, |row| row.within(tile)))
}

/// Rows in blocks of about the same number, at most `S::ROWS`, each with the number of its first row.
#[inline(always)]
pub(super) fn blocks<S: Simd>(rows: &[Row]) -> impl Iterator<Item = (usize, &[Row])> {
    let size = rows.len().div_ceil(rows.len().div_ceil(S::ROWS).max(1)).max(1);
    rows.chunks(size).enumerate().map(move |(i, rows)| (i * size, rows))
}
