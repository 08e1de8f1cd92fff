//! One tile of attention over plain elements: the keys and values of a page.

use std::array;
use std::marker::PhantomData;
use std::mem::offset_of;
use std::ops::Range;
use std::{ptr, slice};

use super::ahead::Ahead;
use super::rows::{Row, blocks, ends};
use super::split::Page;
use super::{DIMS, KEYS, Tiles};
use crate::ops::AttentionGqa;
use crate::simd::exp::exp;
use crate::simd::product::{Product, multiply};
use crate::simd::{LANES, Plain, Simd, Single};

/// One head of a page whose halves are `[position][d]`, elements of `E`, and the scratch, which nothing else uses
/// meanwhile.
pub(super) struct Head<E> {
    dim: usize,
    scale: f32,
    tile: *mut f32,
    scores: *mut f32,
    sums: *mut f32,
    element: PhantomData<E>,
}

impl<E: Plain> Head<E> {
    /// Nothing else uses `tiles`, wherever this value may.
    #[inline(always)]
    pub(super) fn new(a: &AttentionGqa<'_>, tiles: *mut Tiles) -> Self {
        let field = |offset: usize| tiles.wrapping_byte_add(offset).cast();
        Self {
            dim: a.layout.head_dim,
            scale: a.scale,
            tile: field(offset_of!(Tiles, tile)),
            scores: field(offset_of!(Tiles, scores)),
            sums: field(offset_of!(Tiles, sums)),
            element: PhantomData,
        }
    }
}

impl<E: Plain> Page for Head<E> {
    #[inline(always)]
    unsafe fn attend<S: Simd>(
        &self,
        s: S,
        [keys, values]: [&[u8]; 2],
        next: &[u8],
        at: usize,
        seen: Range<usize>,
        rows: &mut [Row],
    ) {
        let mut ahead = Ahead::new(s, next, KEYS / LANES * self.dim.div_ceil(LANES));
        // SAFETY: by the contract of this function.
        unsafe { self.score(s, keys.as_ptr(), at, seen.clone(), rows, &mut ahead) };
        // SAFETY: each row has its scores.
        unsafe { self.weigh(s, at, rows) };
        // SAFETY: each row has its weights.
        unsafe { self.mix(s, values.as_ptr(), at, seen, rows) };
    }
}

impl<E: Plain> Head<E> {
    /// Scores of what the rows see of a tile, and of whatever else lies in the same vectors.
    ///
    /// # Safety
    /// As [`attend`](Page::attend); `from` is the half of the keys.
    #[inline(always)]
    unsafe fn score<S: Simd>(
        &self,
        s: S,
        from: *const u8,
        tile: usize,
        keys: Range<usize>,
        rows: &[Row],
        ahead: &mut Ahead<'_, S>,
    ) {
        for piece in (0..self.dim).step_by(DIMS) {
            let dims = piece..self.dim.min(piece + DIMS);
            // SAFETY: the same contract.
            unsafe { self.transpose(s, from, keys.start - tile..keys.end - tile, dims.clone(), ahead) };
            for (at, rows) in blocks::<S>(rows) {
                let [start, end] = ends(rows, tile).map(|row| row.start..row.end);
                let product = Product {
                    a: array::from_fn(|r| rows.get(r).map_or(ptr::null(), |row| row.q.wrapping_add(piece))),
                    b: self.tile.cast(),
                    b_stride: KEYS * Single::BYTES,
                    depth: dims.len(),
                    out: self.scores.wrapping_add(at * KEYS),
                    out_stride: KEYS,
                    rows: rows.len(),
                    add: piece > 0,
                };
                // SAFETY: `q` are heads, `transpose` filled `dims` of these columns; the scores of these rows are ours.
                unsafe { multiply::<S, Single>(s, product, start.start / LANES..end.end.div_ceil(LANES)) };
            }
        }
    }

    /// `tile[d][key]` for `dims` and the vectors that `keys`, counted from the tile, lie in, any key where there is
    /// none.
    ///
    /// # Safety
    /// As [`score`](Self::score); at most [`DIMS`] of the dimensions of a head.
    #[inline(always)]
    unsafe fn transpose<S: Simd>(
        &self,
        s: S,
        from: *const u8,
        keys: Range<usize>,
        dims: Range<usize>,
        ahead: &mut Ahead<'_, S>,
    ) {
        for column in keys.start / LANES..keys.end.div_ceil(LANES) {
            for d in dims.clone().step_by(LANES) {
                ahead.ask();
                let mut lines = [s.splat(0.0); LANES];
                for (key, line) in (column * LANES..).zip(&mut lines) {
                    // SAFETY: the half has `keys`.
                    *line = unsafe { self.element(s, from, key.clamp(keys.start, keys.end - 1), d) };
                }
                let to = self.tile.wrapping_add((d - dims.start) * KEYS + column * LANES);
                for (i, line) in s.transpose(lines).into_iter().enumerate() {
                    // SAFETY: `d - dims.start + i < DIMS`, as that is a multiple of 16: inside of the tile.
                    unsafe { s.store_at(line, to.wrapping_add(i * KEYS)) };
                }
            }
        }
    }

    /// Sixteen elements of a key or value from `d` on, zeros past the end of the head.
    ///
    /// # Safety
    /// The half has the key; `d < self.dim`.
    #[inline(always)]
    unsafe fn element<S: Simd>(&self, s: S, from: *const u8, key: usize, d: usize) -> S::F32 {
        let at = self.at(from, key, d);
        if self.dim - d >= LANES {
            // SAFETY: sixteen elements of a head.
            unsafe { E::load_at(s, at) }
        } else {
            // SAFETY: the last elements of a head.
            E::load_part(s, unsafe { slice::from_raw_parts(at, (self.dim - d) * E::BYTES) })
        }
    }

    /// Turns scores into weights `exp(s - max)`, zero where a row does not see the key.
    ///
    /// # Safety
    /// As [`attend`](Page::attend); `scores` has those of the rows.
    #[inline(always)]
    unsafe fn weigh<S: Simd>(&self, s: S, tile: usize, rows: &mut [Row]) {
        for (at, row) in rows.iter_mut().enumerate() {
            let seen = row.within(tile);
            let columns = seen.start / LANES..seen.end.div_ceil(LANES);
            let score = |column: usize| self.scores.wrapping_add(at * KEYS + column * LANES);
            let mut top = s.splat(f32::NEG_INFINITY);
            for column in columns.clone() {
                // SAFETY: scores of this row.
                let x = s.mul(unsafe { s.load_at(score(column)) }, s.splat(self.scale));
                let first = (column * LANES) as i32;
                let x = s.keep(x, seen.start as i32 - first, seen.end as i32 - first);
                // SAFETY: as above.
                unsafe { s.store_at(x, score(column)) };
                // A NaN is passed over here, and shows in the weights.
                top = s.max(x, top);
            }
            row.grow(s, s.largest(top));
            let max = s.splat(row.max);
            let mut sum = s.splat(0.0);
            for column in columns {
                // SAFETY: as above.
                let weight = exp(s, s.sub(unsafe { s.load_at(score(column)) }, max));
                // SAFETY: as above.
                unsafe { s.store_at(weight, score(column)) };
                sum = s.add(sum, weight);
            }
            s.store(s.fma(s.load(&row.sum), s.splat(row.decay), sum), &mut row.sum);
        }
    }

    /// `out = out · decay + Σ weight · value` over a tile.
    ///
    /// # Safety
    /// As [`attend`](Page::attend); `from` is the half of the values, `scores` has the weights of the rows.
    #[inline(always)]
    unsafe fn mix<S: Simd>(&self, s: S, from: *const u8, tile: usize, keys: Range<usize>, rows: &[Row]) {
        for piece in (0..self.dim).step_by(DIMS) {
            let dims = piece..self.dim.min(piece + DIMS);
            // Straight from the cache, if a head is whole vectors: widening values twice costs less than writing them
            // once.
            let direct = rows.len() <= 2 * S::ROWS && self.dim.is_multiple_of(LANES);
            if !direct {
                // SAFETY: the same contract.
                unsafe { self.copy(s, from, keys.start - tile..keys.end - tile, dims.clone()) };
            }
            let columns = dims.len().div_ceil(LANES);
            for (at, rows) in blocks::<S>(rows) {
                if direct {
                    let values = Values { from: self.at(from, 0, piece), stride: self.dim * E::BYTES, columns };
                    // SAFETY: the half has `keys`, in whole vectors.
                    unsafe { self.sum::<S, E>(s, tile, values, at, rows) };
                } else {
                    let values = Values { from: self.tile.cast(), stride: DIMS * Single::BYTES, columns };
                    // SAFETY: the tile has `keys`, in whole vectors.
                    unsafe { self.sum::<S, Single>(s, tile, values, at, rows) };
                }
                for (r, row) in rows.iter().enumerate() {
                    // SAFETY: `dims` of a head.
                    let out = unsafe { slice::from_raw_parts_mut(row.out.wrapping_add(piece), dims.len()) };
                    // SAFETY: `sum` has filled as many whole vectors of row `r < ROWS`.
                    unsafe { merge(s, out, row.decay, self.sums.wrapping_add(r * DIMS)) };
                }
            }
        }
    }

    /// `tile[key][d]` for `keys`, counted from the tile, and `dims`, up to a whole vector.
    ///
    /// # Safety
    /// As [`transpose`](Self::transpose).
    #[inline(always)]
    unsafe fn copy<S: Simd>(&self, s: S, from: *const u8, keys: Range<usize>, dims: Range<usize>) {
        for key in keys {
            for d in dims.clone().step_by(LANES) {
                let to = self.tile.wrapping_add(key * DIMS + d - dims.start);
                // SAFETY: the half has `keys`.
                let x = unsafe { self.element(s, from, key, d) };
                // SAFETY: inside of the tile, as `key < KEYS` and `d - dims.start < DIMS`, a multiple of 16.
                unsafe { s.store_at(x, to) };
            }
        }
    }

    /// `sums[r][d] = Σ weight · value` over what each row sees of a tile: first what only the first rows see, row by
    /// row, then what all see, then what only the last see.
    ///
    /// # Safety
    /// As [`mix`](Self::mix); at most `S::ROWS` rows, the first being number `at` of the scores, and there are values,
    /// of `V`, of all that they see.
    #[inline(always)]
    unsafe fn sum<S: Simd, V: Plain>(&self, s: S, tile: usize, values: Values, at: usize, rows: &[Row]) {
        let product = |r: usize, n: usize, keys: Range<usize>, add: bool| {
            let product = Product {
                a: array::from_fn(|i| self.scores.wrapping_add((at + r + i) * KEYS + keys.start).cast_const()),
                b: values.from.wrapping_add(keys.start * values.stride),
                b_stride: values.stride,
                depth: keys.len(),
                out: self.sums.wrapping_add(r * DIMS),
                out_stride: DIMS,
                rows: n,
                add,
            };
            // SAFETY: rows `r..r + n` have weights of `keys`, which have values; `add` follows a first part.
            unsafe { multiply::<S, V>(s, product, 0..values.columns) };
        };
        let [first, last] = ends(rows, tile);
        let common = last.start..first.end;
        let apart = common.is_empty() || first.start < last.start;
        if apart {
            for (r, row) in rows.iter().enumerate() {
                let seen = row.within(tile);
                product(r, 1, seen.start..if common.is_empty() { seen.end } else { common.start }, false);
            }
        }
        if !common.is_empty() {
            product(0, rows.len(), common.clone(), apart);
            for (r, row) in rows.iter().enumerate() {
                let seen = row.within(tile);
                if seen.end > common.end {
                    product(r, 1, common.end..seen.end, true);
                }
            }
        }
    }

    /// Where element `d` of a key or value is.
    #[inline(always)]
    fn at(&self, from: *const u8, key: usize, d: usize) -> *const u8 {
        from.wrapping_add((key * self.dim + d) * E::BYTES)
    }
}

/// Values of a tile.
#[derive(Clone, Copy)]
struct Values {
    /// The first key's.
    from: *const u8,
    /// Bytes from one key's to the next.
    stride: usize,
    /// Vectors of a key.
    columns: usize,
}

/// `out = out · decay + sums`
///
/// # Safety
/// `sums` has `out.len()` elements, rounded up to a whole vector.
#[inline(always)]
unsafe fn merge<S: Simd>(s: S, out: &mut [f32], decay: f32, sums: *const f32) {
    let decay = s.splat(decay);
    let (groups, tail) = out.as_chunks_mut::<LANES>();
    let mut sums = sums;
    for out in groups {
        // SAFETY: a vector of `sums` for each one of `out`.
        let sum = unsafe { s.load_at(sums) };
        s.store(s.fma(s.load(out), decay, sum), out);
        sums = sums.wrapping_add(LANES);
    }
    if !tail.is_empty() {
        // SAFETY: the last vector.
        let sum = unsafe { s.load_at(sums) };
        s.store_part(s.fma(s.load_part(tail, 0.0), decay, sum), tail);
    }
}
