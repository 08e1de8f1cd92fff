//! Products of weights with activations as they are.
//!
//! ```text
//! gemv, plain elements:  4 rows at a time, straight from memory
//! otherwise, for 36 tokens:
//!   for 8 rows:
//!     for 512 inputs:    decode them (16 KiB, stay in the first cache)
//!       for 4 rows by 6 tokens (fewer with smaller registers):  one vector of each row by one of each token
//!     join the lanes
//! ```
//! A (row, token) has sixteen partial sums, number `k mod 16` running over ascending `k` by fma, and one tree joins
//! them; the last vector of a row is filled up with zeros. So its bits depend neither on the rows and tokens beside it
//! nor on the way.

use std::marker::PhantomData;
use std::ops::Range;
use std::{array, ptr};

use super::{LANES, Plain, Simd};
use crate::Tile;
use crate::pack::WeightRows;

/// Elements of a row that are decoded at a time; every block length divides it.
const PIECE: usize = 512;
/// Rows decoded at a time.
const ROWS: usize = 8;
/// Tokens that share a decoded piece.
pub(crate) const TOKENS: usize = 36;
/// Rows that a product straight from memory reads side by side.
const STREAMS: usize = 4;

/// Most rows, and tokens, of [`Dots`] on any instruction set.
pub(crate) const MOST: (usize, usize) = (4, 6);

/// A format to be decoded.
pub(crate) trait Decode {
    /// Elements of a block.
    const LEN: usize;
    /// Bytes of a block.
    const BYTES: usize;

    /// Decodes whole blocks.
    fn decode<S: Simd>(s: S, blocks: &[u8], out: &mut [f32]);
}

/// Plain elements.
pub(crate) struct Elements<E>(PhantomData<E>);

impl<E: Plain> Decode for Elements<E> {
    const LEN: usize = 1;
    const BYTES: usize = E::BYTES;

    #[inline(always)]
    fn decode<S: Simd>(s: S, blocks: &[u8], out: &mut [f32]) {
        let (vectors, tail) = out.as_chunks_mut::<LANES>();
        let mut blocks = blocks.chunks(LANES * E::BYTES);
        for (out, block) in vectors.iter_mut().zip(&mut blocks) {
            // SAFETY: whole vectors come before the tail.
            s.store(unsafe { E::load_at(s, block.as_ptr()) }, out);
        }
        if let Some(block) = blocks.next() {
            s.store_part(E::load_part(s, block), tail);
        }
    }
}

/// Products of several rows and tokens, lane by lane.
pub(crate) struct Dots {
    /// Where the inputs of each of the rows begin.
    pub(crate) w: [*const f32; MOST.0],
    /// Where those of each of the tokens begin.
    pub(crate) x: [*const f32; MOST.1],
    /// Vectors of a row.
    pub(crate) steps: usize,
    /// Sums of row `r` and token `t`: a vector at `sums[r * stride + 16 t]`.
    pub(crate) sums: *mut f32,
    pub(crate) stride: usize,
    pub(crate) rows: usize,
    pub(crate) tokens: usize,
}

/// Adds `R` by `T` products to their sums.
///
/// # Safety
/// `d.rows == R` and `d.tokens == T`, within [`MOST`]; there are `16 · d.steps` inputs of each, and the sums, of which
/// nobody else knows.
#[inline(always)]
pub(crate) unsafe fn dots<S: Simd, const R: usize, const T: usize>(s: S, d: &Dots) {
    let at = |r: usize, t: usize| d.sums.wrapping_add(r * d.stride + t * LANES);
    let mut sums = [[s.splat(0.0); T]; R];
    for (r, sums) in sums.iter_mut().enumerate() {
        for (t, sum) in sums.iter_mut().enumerate() {
            // SAFETY: sums of row `r < R` and token `t < T`.
            *sum = unsafe { s.load_at(at(r, t)) };
        }
    }
    for step in 0..d.steps {
        let mut w = [s.splat(0.0); R];
        for (w, from) in w.iter_mut().zip(d.w) {
            // SAFETY: vector `step < steps` of one of `R` rows.
            *w = unsafe { s.load_at(from.wrapping_add(step * LANES)) };
        }
        for t in 0..T {
            // SAFETY: vector `step < steps` of one of `T` tokens.
            let x = unsafe { s.load_at(d.x[t].wrapping_add(step * LANES)) };
            for (sums, w) in sums.iter_mut().zip(w) {
                sums[t] = s.fma(w, x, sums[t]);
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (t, sum) in sums.iter().enumerate() {
            // SAFETY: as above.
            unsafe { s.store_at(*sum, at(r, t)) };
        }
    }
}

/// A [`MatmulFn`](crate::dispatch::table::MatmulFn) that decodes pieces of [`ROWS`] rows, each for at most `T` tokens.
///
/// # Safety
/// The shapes are as there.
#[inline(always)]
pub(crate) unsafe fn decoded<S: Simd, D: Decode, const T: usize>(
    s: S,
    w: WeightRows<'_>,
    depth: usize,
    x: &[f32],
    out: &mut Tile<'_>,
) {
    const { assert!(PIECE.is_multiple_of(D::LEN)) };
    let mut pieces = [[0.0; PIECE]; ROWS];
    for (tile, x) in x.chunks(T * depth).enumerate() {
        for (block, w_rows) in w.data.chunks(ROWS * w.row_bytes).enumerate() {
            let mut sums = [[[0.0; LANES]; T]; ROWS];
            for start in (0..depth).step_by(PIECE) {
                let end = depth.min(start + PIECE);
                let bytes = start / D::LEN * D::BYTES..end / D::LEN * D::BYTES;
                for (piece, row) in pieces.iter_mut().zip(w_rows.chunks_exact(w.row_bytes)) {
                    let (inside, beyond) = piece.split_at_mut(end - start);
                    let blocks = row.get(bytes.clone()).unwrap_or_default();
                    if T == 1 {
                        // Memory is what takes time: the same piece of the next rows.
                        let next = blocks.as_ptr().wrapping_add(ROWS * w.row_bytes);
                        (0..blocks.len()).step_by(64).for_each(|at| s.prefetch(next.wrapping_add(at)));
                    }
                    D::decode(s, blocks, inside);
                    beyond.iter_mut().take(LANES).for_each(|x| *x = 0.0);
                }
                let rows = pieces.get(..w_rows.len() / w.row_bytes).unwrap_or_default();
                // SAFETY: `end - start <= PIECE`, `end <= depth`, and `x` is whole tokens.
                unsafe { add_products(s, rows, x, depth, start..end, &mut sums) };
            }
            for token in 0..x.len() / depth {
                let out = out.row_mut(tile * T + token).iter_mut().skip(block * ROWS);
                for (out, sums) in out.zip(&sums) {
                    *out = s.sum(s.load(&sums[token]));
                }
            }
        }
    }
}

/// Adds the products of decoded `rows` with inputs `range` of all tokens `x: (tokens, depth)`.
///
/// # Safety
/// The range lies in the depth, and is of at most [`PIECE`] inputs.
#[inline(always)]
unsafe fn add_products<S: Simd, const T: usize>(
    s: S,
    rows: &[[f32; PIECE]],
    x: &[f32],
    depth: usize,
    range: Range<usize>,
    sums: &mut [[[f32; LANES]; T]; ROWS],
) {
    let tokens = T.min(x.len() / depth);
    let steps = range.len() / LANES;
    let sums = sums.as_mut_ptr().cast::<f32>();
    // About the same number of tokens each time.
    let most = tokens.div_ceil(tokens.div_ceil(S::DOTS.1).max(1)).max(1);
    for token in (0..tokens).step_by(most) {
        let group = most.min(tokens - token);
        let input = |t: usize| x.get((token + t) * depth..).and_then(|x| x.get(range.clone())).unwrap_or_default();
        let inputs: [&[f32]; MOST.1] = array::from_fn(|t| if t < group { input(t) } else { &[] });
        // Where a row of plain elements ends within a vector.
        let mut last = [[0.0; LANES]; MOST.1];
        for (last, input) in last.iter_mut().zip(&inputs) {
            s.store(s.load_part(input.get(steps * LANES..).unwrap_or_default(), 0.0), last);
        }
        for row in (0..rows.len()).step_by(S::DOTS.0) {
            let decoded = |r: usize| rows.get(row + r).map_or(ptr::null(), |row| row.as_ptr());
            let whole = Dots {
                w: array::from_fn(decoded),
                x: inputs.map(|x| x.as_ptr()),
                steps,
                sums: sums.wrapping_add((row * T + token) * LANES),
                stride: T * LANES,
                rows: S::DOTS.0.min(rows.len() - row),
                tokens: group,
            };
            // SAFETY: pointers to as many rows and inputs, with `steps` whole vectors of each; `sums` has `ROWS` rows
            // of `T`.
            unsafe { s.dots(&whole) };
            if range.len() > steps * LANES {
                let w = whole.w.map(|w| w.wrapping_add(steps * LANES));
                let part = Dots { w, x: last.each_ref().map(|x| x.as_ptr()), steps: 1, ..whole };
                // SAFETY: as above; past its inputs, a decoded row has zeros up to a whole vector.
                unsafe { s.dots(&part) };
            }
        }
    }
}

/// A [`MatmulFn`](crate::dispatch::table::MatmulFn) for one token and plain elements, which are not stored in between.
///
/// # Safety
/// The shapes are as there.
#[inline(always)]
pub(crate) unsafe fn gemv<S: Simd, E: Plain>(s: S, w: WeightRows<'_>, x: &[f32], out: &mut Tile<'_>) {
    let mut blocks = w.data.chunks_exact(STREAMS * w.row_bytes);
    let mut outs = out.row_mut(0).chunks_exact_mut(STREAMS);
    for (block, out) in (&mut blocks).zip(&mut outs) {
        // SAFETY: as many whole rows; the other shapes are those of the contract.
        unsafe { streams::<S, E, STREAMS>(s, block, x, out) };
    }
    for (row, out) in blocks.remainder().chunks_exact(w.row_bytes).zip(outs.into_remainder().chunks_exact_mut(1)) {
        // SAFETY: as above.
        unsafe { streams::<S, E, 1>(s, row, x, out) };
    }
}

/// `R` rows by one token; asks for the rows after them, line by line as these are read.
///
/// # Safety
/// `w` has `R` rows of `x.len()` elements.
#[inline(always)]
unsafe fn streams<S: Simd, E: Plain, const R: usize>(s: S, w: &[u8], x: &[f32], out: &mut [f32]) {
    let row_bytes = x.len() * E::BYTES;
    let mut sums = [s.splat(0.0); R];
    let (vectors, tail) = x.as_chunks::<LANES>();
    let tail_at = vectors.len() * LANES * E::BYTES;
    debug_assert!(w.len() == R * row_bytes);
    let mut at = w.as_ptr();
    for x in vectors {
        let x = s.load(x);
        for (r, sum) in sums.iter_mut().enumerate() {
            let at = at.wrapping_add(r * row_bytes);
            s.prefetch(at.wrapping_add(R * row_bytes));
            // SAFETY: a whole vector of row `r`: one of `x`, and they have the same number.
            *sum = s.fma(unsafe { E::load_at(s, at) }, x, *sum);
        }
        at = at.wrapping_add(LANES * E::BYTES);
    }
    if !tail.is_empty() {
        let x = s.load_part(tail, 0.0);
        for (sum, row) in sums.iter_mut().zip(w.chunks_exact(row_bytes)) {
            *sum = s.fma(E::load_part(s, row.get(tail_at..).unwrap_or_default()), x, *sum);
        }
    }
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = s.sum(sum);
    }
}
