//! What attention knows of each query head of each token: a row.

use std::mem::MaybeUninit;
use std::ops::Range;
use std::slice;

use super::KEYS;
use crate::Tile;
use crate::ops::{AttentionGqa, Queries};
use crate::simd::{LANES, Simd};

/// A query head of a token, and what is known of its result.
pub(super) struct Row {
    pub(super) q: *const f32,
    pub(super) out: *mut f32,
    /// Visible positions.
    pub(super) start: usize,
    pub(super) end: usize,
    /// Largest score so far.
    pub(super) max: f32,
    /// What the present tile multiplies earlier results by.
    pub(super) decay: f32,
    /// Sum of the weights so far, in parts.
    pub(super) sum: [f32; LANES],
}

impl Row {
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
        let Range { start, end } = a.visible(token);
        let outs = out.row_mut(token).chunks_exact_mut(dim).enumerate().skip(skip);
        for ((head, out), place) in outs.take(range.len() - n).zip(&mut places) {
            out.fill(0.0);
            let q = q.data.as_ptr().wrapping_add(token * q.stride + head * dim);
            let out = out.as_mut_ptr();
            place.write(Row { q, out, start, end, max: f32::NEG_INFINITY, decay: 0.0, sum: [0.0; LANES] });
            n += 1;
        }
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
