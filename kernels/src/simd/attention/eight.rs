//! Attention over keys and values of 8 bits, with the micro-kernels of quantised weights.
//!
//! ```text
//! rows: (token, query head), 32 at a time, in tiles of four
//! t = max |q| / 127;  q8 = round(q / t)                once; groups of small numbers are finer, see `crate::quantized`
//! for each page that one of the rows sees, ascending:
//!   s[row][key] = Σ_d q8[row][d] · k[key][d]           integer products; rows of the panels are keys
//!   x = s · key scale · scale · t;  m' = max(m, max x);  p = exp(x - m');  l = l · exp(m - m') + Σ p
//!   w = p · value scale;  u = max w / 254;  w8 = round(w · 254 / max w)
//!   y[d] = 127 · Σ_key v[key][d] + Σ_key (w8[row][key] - 127) · v[key][d]         rows of the panels are dimensions
//!   out[row][d] = out[row][d] · exp(m - m') + u · y[d]
//! out[row] /= l
//! ```
//! Weights are positive: less 127, they use all of a signed byte. What that adds is taken off once for all rows. All
//! these are integers below 2^24, so `y` is exact, and what a row does not see, which has weight zero, adds nothing,
//! whatever its value is: a row's bits depend on what it sees alone, and pages that lie behind cost other rows of its
//! tile nothing.
//!
//! This is over 400 lines: the steps of one page, which share a scratch and its proofs.

use std::marker::PhantomData;
use std::mem::{MaybeUninit, offset_of};
use std::ops::Range;
use std::{ptr, slice};

use super::ahead::Ahead;
use super::rows::Row;
use super::split::Page;
use crate::dispatch::table::QuantizeFn;
use crate::kv8::{LINE, MAX_DIM, largest};
use crate::ops::AttentionGqa;
use crate::ops::kv::KV_PAGE;
use crate::panel::{Kind, Micro, MicroFn, PANELS, Panel, ROWS, Sums};
use crate::quantized::{Field, GROUP, LINES, TILE, WORDS};
use crate::simd::exp::exp;
use crate::simd::{LANES, Simd};

/// Rows that attend together: what they need, and a panel, fit a first cache of 48 KiB at a head size of 128.
pub(super) const BLOCK: usize = 32;
/// Groups of a page.
const GROUPS: usize = KV_PAGE / GROUP;
/// Panels of a page's keys.
const KEY_PANELS: usize = KV_PAGE / ROWS;
/// Panels of keys multiplied at a time: half a page.
const PAIR: usize = 2;

/// What a tier multiplies numbers of 8 bits with.
pub(crate) trait Eight {
    /// For panels of [`KIND`].
    const MICRO: MicroFn;
    const QUANTIZE: QuantizeFn;
}

/// What is taken off a rounded weight, and the largest input.
const MIDDLE: f32 = 127.0;

/// A page of inputs that are [`MIDDLE`], of one token.
const MIDDLES: [u32; GROUPS * WORDS] = {
    let mut words = [u32::from_ne_bytes([MIDDLE as u8; 4]); GROUPS * WORDS];
    let sum = MIDDLE as i32 * GROUP as i32;
    let mut group = 0;
    while group < GROUPS {
        let first = group * WORDS;
        words[first + Field::NegatedSum.word(1, 0)] = (-sum).cast_unsigned();
        words[first + Field::NegatedSumLow.word(1, 0)] = (-sum / 2).cast_unsigned();
        words[first + Field::Exponent.word(1, 0)] = 0;
        words[first + Field::ScaledSum.word(1, 0)] = (sum as f32).to_bits();
        group += 1;
    }
    words
};

/// Codes around 128, with one scale a group, which is 1: scales of positions come later.
pub(crate) const KIND: Kind = Kind { bits: 8, zero_shift: 7, halves: false, mins: false };

/// Written before it is read, whatever part of it that is.
#[repr(C, align(64))]
pub(super) struct Scratch {
    panels: [MaybeUninit<Panel>; PANELS],
    /// Of each tile of rows the words of `dim / 32` groups.
    queries: [MaybeUninit<u32>; BLOCK * MAX_DIM / GROUP * WORDS],
    /// Of each tile the words of [`GROUPS`] groups.
    words: [MaybeUninit<u32>; BLOCK * GROUPS * WORDS],
    /// Of each tile the scores: `[pair][row][panel]`.
    scores: [MaybeUninit<Sums>; BLOCK * KEY_PANELS],
    /// Of one tile `[row][d]`.
    numbers: [MaybeUninit<f32>; TILE * MAX_DIM],
    /// Of the keys of a page, then of its values.
    scales: [MaybeUninit<f32>; 2 * KV_PAGE],
    /// Of one tile `[row][panel]`.
    sums: [MaybeUninit<Sums>; TILE * PANELS],
    /// Of each panel `127 · Σ_key v[key][d]`.
    middles: [MaybeUninit<Sums>; PANELS],
}

/// The rows of a head, in tiles of four, and the scratch, which nothing else uses meanwhile.
pub(super) struct Head<E> {
    dim: usize,
    scale: f32,
    /// Rows in all.
    rows: usize,
    panels: *mut Panel,
    queries: *mut u32,
    words: *mut u32,
    scores: *mut Sums,
    numbers: *mut f32,
    scales: *mut f32,
    sums: *mut Sums,
    middles: *mut Sums,
    eight: PhantomData<E>,
}

impl<E: Eight> Head<E> {
    /// Rounds the queries of at most [`BLOCK`] rows.
    ///
    /// # Safety
    /// `q` of each row is a head, of a size that [`kv8`](crate::kv8) allows; the CPU runs `E`; the scratch is not used
    /// otherwise while this value is.
    #[inline(always)]
    pub(super) unsafe fn new(a: &AttentionGqa<'_>, scratch: *mut Scratch, rows: &mut [Row]) -> Self {
        let field = |offset: usize| scratch.wrapping_byte_add(offset);
        let head = Self {
            dim: a.layout.head_dim,
            scale: a.scale,
            rows: rows.len(),
            panels: field(offset_of!(Scratch, panels)).cast(),
            queries: field(offset_of!(Scratch, queries)).cast(),
            words: field(offset_of!(Scratch, words)).cast(),
            scores: field(offset_of!(Scratch, scores)).cast(),
            numbers: field(offset_of!(Scratch, numbers)).cast(),
            scales: field(offset_of!(Scratch, scales)).cast(),
            sums: field(offset_of!(Scratch, sums)).cast(),
            middles: field(offset_of!(Scratch, middles)).cast(),
            eight: PhantomData,
        };
        for p in 0..PANELS {
            let scales: *mut [f32; ROWS] =
                head.panels.wrapping_add(p).wrapping_byte_add(offset_of!(Panel, scales)).cast();
            for group in 0..MAX_DIM / GROUP {
                // SAFETY: inside of a panel, which has room for more groups.
                unsafe { scales.wrapping_add(group).write([1.0; ROWS]) };
            }
        }
        // Exponents and scaled sums of weights stay zero.
        // SAFETY: room for a page of words of each row.
        unsafe { head.words.write_bytes(0, head.rows * GROUPS * WORDS) };
        for (tile, rows) in rows.chunks_mut(TILE).enumerate() {
            for (i, row) in rows.iter_mut().enumerate() {
                // SAFETY: a head.
                let q = unsafe { slice::from_raw_parts(row.q, head.dim) };
                let largest = largest(q);
                // Of numbers too small for that, or none, as they are; NaN and infinity stay.
                row.step = if largest < 127.0 * f32::MIN_POSITIVE { 1.0 } else { largest / 127.0 };
                for (d, x) in q.iter().enumerate() {
                    // A quotient might be rounded to more.
                    let x = (x / row.step).clamp(-127.0, 127.0);
                    // SAFETY: there is room for four heads.
                    unsafe { head.numbers.wrapping_add(i * head.dim + d).write(x) };
                }
            }
            // SAFETY: so many numbers were just written; there is room for as many words.
            let poisoned = unsafe { head.round(rows.len(), head.queries_of(tile)) };
            for (_, row) in rows.iter_mut().enumerate().filter(|(i, _)| poisoned >> i & 1 == 1) {
                row.sum[0] = f32::NAN;
            }
        }
        head
    }

    /// Rounds the numbers of `n` rows; a bit is set for each that cannot be.
    ///
    /// # Safety
    /// So many heads are there, and room for their words; the CPU runs `E`.
    #[inline(always)]
    unsafe fn round(&self, n: usize, words: *mut u32) -> u32 {
        // SAFETY: by the contract of this function.
        let x = unsafe { slice::from_raw_parts(self.numbers, n * self.dim) };
        let (room, len): (*mut MaybeUninit<u32>, _) = (words.cast(), self.dim / GROUP * WORDS * n);
        // SAFETY: likewise.
        let room = unsafe { slice::from_raw_parts_mut(room, len) };
        room.fill(MaybeUninit::new(0));
        // SAFETY: just initialised.
        let words = unsafe { slice::from_raw_parts_mut(words, room.len()) };
        // SAFETY: `n` tokens of whole groups, and their words.
        unsafe { (E::QUANTIZE)(x, self.dim, n, words) }
    }

    /// Rows of a tile.
    #[inline(always)]
    fn len(&self, tile: usize) -> usize {
        TILE.min(self.rows - tile * TILE)
    }

    #[inline(always)]
    fn queries_of(&self, tile: usize) -> *mut u32 {
        self.queries.wrapping_add(tile * TILE * (self.dim / GROUP) * WORDS)
    }

    #[inline(always)]
    fn words_of(&self, tile: usize) -> *mut u32 {
        self.words.wrapping_add(tile * TILE * GROUPS * WORDS)
    }

    #[inline(always)]
    fn scores_of(&self, tile: usize) -> *mut Sums {
        self.scores.wrapping_add(tile * TILE * KEY_PANELS)
    }
}

impl<E: Eight> Page for Head<E> {
    #[inline(always)]
    unsafe fn attend<S: Simd>(
        &self,
        s: S,
        halves: [&[u8]; 2],
        next: &[u8],
        at: usize,
        seen: Range<usize>,
        rows: &mut [Row],
    ) {
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return };
        let (from, tiles) = (first.number, first.number / TILE..last.number / TILE + 1);
        let seen = seen.start - at..seen.end - at;
        let [keys, values] = halves.map(<[u8]>::as_ptr);
        let products = KEY_PANELS / PAIR + (self.dim / ROWS).div_ceil(PANELS);
        let steps = products * (1 + tiles.len()) + tiles.len();
        let mut ahead = Ahead::new(s, next, steps);
        // SAFETY: half a page of keys; `new` rounded the queries of these tiles.
        unsafe { self.score(keys, seen.clone(), tiles.clone(), &mut ahead) };
        for (half, scales) in [keys, values].into_iter().zip([self.scales, self.scales.wrapping_add(KV_PAGE)]) {
            let halves: *const [u8; 2 * LANES] = half.wrapping_add(KV_PAGE * self.dim).cast();
            for column in 0..KEY_PANELS {
                // SAFETY: scales follow the codes.
                let x = s.load_f16(unsafe { &*halves.wrapping_add(column) });
                // SAFETY: room for a page of them.
                unsafe { s.store_at(x, scales.wrapping_add(column * LANES)) };
            }
        }
        for tile in tiles.clone() {
            ahead.ask();
            let begin = tile * TILE;
            let of_tile = begin.max(from)..(begin + self.len(tile)).min(from + rows.len());
            let first = of_tile.start - begin;
            let rows = rows.get_mut(of_tile.start - from..of_tile.end - from).unwrap_or_default();
            // SAFETY: `score` is done, and the scales are there.
            unsafe { self.weigh(s, at, tile, first, rows) };
        }
        // SAFETY: half a page of values; all weights of these tiles are rounded.
        unsafe { self.mix(s, values, seen, tiles, rows, &mut ahead) };
    }
}

impl<E: Eight> Head<E> {
    /// Scores of the pairs of panels that `seen` lies in, from the page's start; zeros elsewhere.
    ///
    /// # Safety
    /// `keys` is half a page; the queries of `tiles` are rounded.
    #[inline(always)]
    unsafe fn score<S: Simd>(
        &self,
        keys: *const u8,
        seen: Range<usize>,
        tiles: Range<usize>,
        ahead: &mut Ahead<'_, S>,
    ) {
        let groups = self.dim / GROUP;
        for tile in tiles.clone() {
            // SAFETY: the tile's own.
            unsafe { self.scores_of(tile).write_bytes(0, KEY_PANELS * self.len(tile)) };
        }
        for pair in seen.start / (PAIR * ROWS)..seen.end.div_ceil(PAIR * ROWS) {
            ahead.ask();
            for p in 0..PAIR {
                // SAFETY: a panel of keys.
                unsafe { self.copy(keys.wrapping_add((PAIR * pair + p) * ROWS * self.dim), p, groups) };
            }
            for tile in tiles.clone() {
                let n = self.len(tile);
                let out = self.scores_of(tile).wrapping_add(pair * PAIR * n);
                ahead.ask();
                // SAFETY: two panels were copied, for as many groups as the queries have.
                unsafe { self.multiply(PAIR, groups, self.queries_of(tile), n, out) };
            }
        }
    }

    /// Turns the scores of a tile into words: weights, times the scales of the values, in units, less [`MIDDLE`], which
    /// makes it that of zero for what a row does not see. `rows` are those from number `first` of the tile on; of
    /// others the words are zeros.
    ///
    /// Every step is done for all rows before the next: one row's steps wait for each other.
    ///
    /// # Safety
    /// The tile has scores and these rows; the scales of the page are there.
    #[inline(always)]
    unsafe fn weigh<S: Simd>(&self, s: S, at: usize, tile: usize, first: usize, rows: &mut [Row]) {
        let (n, zero) = (self.len(tile), s.splat(0.0));
        let keep = |x: S::F32, row: &Row, column: usize| {
            let (seen, before) = (row.within(at), (column * LANES) as i32);
            if seen.len() == KV_PAGE { x } else { s.keep(x, seen.start as i32 - before, seen.end as i32 - before) }
        };
        let scales = |of: usize, column: usize| {
            // SAFETY: sixteen scales of the page.
            unsafe { s.load_at(self.scales.wrapping_add(of * KV_PAGE + column * LANES)) }
        };
        // Of each row its weights, and the largest of what they are made from.
        let mut all = [([zero; KEY_PANELS], zero); TILE];
        let (_, seeing) = all.split_at_mut(first);
        for ((i, row), (x, top)) in (first..).zip(&*rows).zip(&mut *seeing) {
            let scale = s.splat(self.scale * row.step);
            *top = s.splat(f32::NEG_INFINITY);
            for (column, x) in x.iter_mut().enumerate() {
                let scores = self.scores_of(tile).wrapping_add((column / PAIR * n + i) * PAIR + column % PAIR);
                // SAFETY: scores of a vector of positions.
                let scores = unsafe { s.load_at(scores.cast()) };
                *x = keep(s.mul(scores, s.mul(scales(0, column), scale)), row, column);
                // A NaN is passed over here, and shows in the weights.
                *top = s.max(*x, *top);
            }
        }
        for (row, (x, top)) in rows.iter_mut().zip(&mut *seeing) {
            row.grow(s, s.largest(*top));
            let (max, mut sum) = (s.splat(row.max), zero);
            *top = zero;
            for (column, x) in x.iter_mut().enumerate() {
                let power = exp(s, s.sub(*x, max));
                sum = s.add(sum, power);
                // The scale of a value that is not seen may be anything. `max` gives its second argument for NaN.
                *x = s.max(zero, keep(s.mul(power, scales(1, column)), row, column));
                *top = s.max(*x, *top);
            }
            s.store(s.fma(s.load(&row.sum), s.splat(row.decay), sum), &mut row.sum);
        }
        for (row, (x, top)) in rows.iter_mut().zip(&mut *seeing) {
            let (largest, units) = (s.largest(*top), 2.0 * MIDDLE);
            // If the largest weight is next to nothing, all are rounded to zero.
            let nothing = largest < units * f32::MIN_POSITIVE;
            let inverse = if nothing { 1.0 } else { units / largest };
            row.unit = if nothing { 1.0 } else { largest * (1.0 / units) };
            for x in x {
                let units = s.round(s.mul(*x, s.splat(inverse)));
                // A product might be rounded to more than twice the middle.
                *x = s.min(s.splat(MIDDLE), s.sub(units, s.splat(MIDDLE)));
            }
        }
        for (i, (weights, _)) in all.iter().enumerate().take(n) {
            for (group, weights) in weights.as_chunks::<{ GROUP / LANES }>().0.iter().enumerate() {
                // SAFETY: one of the words of this group.
                let put = |field: Field, word: u32| unsafe {
                    self.words_of(tile).wrapping_add(group * n * WORDS + field.word(n, i)).write(word)
                };
                let mut sum = zero;
                for (part, &x) in weights.iter().enumerate() {
                    sum = s.add(sum, x);
                    for (line, codes) in s.bytes(x).as_chunks().0.iter().enumerate() {
                        put(Field::Line(part * LANES / 4 + line), u32::from_ne_bytes(*codes));
                    }
                }
                let sum = s.sum(sum);
                put(Field::NegatedSum, (-sum as i32).cast_unsigned());
                if sum.is_nan()
                    && let Some(row) = i.checked_sub(first).and_then(|row| rows.get_mut(row))
                {
                    row.sum[0] = f32::NAN;
                }
            }
        }
    }

    /// `out = out · decay + Σ weight · value` over the groups that `seen` lies in.
    ///
    /// # Safety
    /// `values` is half a page; the weights of all rows of `tiles` are rounded, of which `rows` see some; their `out`
    /// are heads.
    #[inline(always)]
    unsafe fn mix<S: Simd>(
        &self,
        s: S,
        values: *const u8,
        seen: Range<usize>,
        tiles: Range<usize>,
        rows: &[Row],
        ahead: &mut Ahead<'_, S>,
    ) {
        let groups = seen.start / GROUP..seen.end.div_ceil(GROUP);
        let all = self.dim / ROWS;
        let from = rows.first().map_or(0, |row| row.number);
        for panel in (0..all).step_by(PANELS) {
            ahead.ask();
            let count = PANELS.min(all - panel);
            for p in 0..count {
                let codes = values.wrapping_add(((panel + p) * GROUPS + groups.start) * LINES * LINE);
                // SAFETY: groups of a panel of values.
                unsafe { self.copy(codes, p, groups.len()) };
            }
            // SAFETY: room for so many sums.
            unsafe { self.middles.write_bytes(0, count) };
            // SAFETY: so many panels and groups were copied; a page of words is there.
            unsafe { self.multiply(count, groups.len(), MIDDLES.as_ptr(), 1, self.middles) };
            for tile in tiles.clone() {
                let n = self.len(tile);
                let place = |i: usize, p: usize| self.sums.wrapping_add(i * count + p).cast::<f32>();
                let row = |i: usize| (tile * TILE + i).checked_sub(from).and_then(|row| rows.get(row));
                for i in 0..n {
                    // SAFETY: `count` of `n * count` sums, and as many.
                    unsafe { ptr::copy_nonoverlapping(self.middles, self.sums.wrapping_add(i * count), count) };
                }
                ahead.ask();
                let words = self.words_of(tile).wrapping_add(groups.start * n * WORDS);
                // SAFETY: so many panels and groups were copied; the words of these groups are there.
                unsafe { self.multiply(count, groups.len(), words, n, self.sums) };
                for i in 0..n {
                    let Some(row) = row(i) else { continue };
                    let (decay, unit) = (s.splat(row.decay), s.splat(row.unit));
                    for p in 0..count {
                        let at = row.out.wrapping_add((panel + p) * LANES);
                        // SAFETY: one of `n * count` sums.
                        let x = unsafe { s.load_at(place(i, p)) };
                        // SAFETY: sixteen elements of a head.
                        let out = s.mul(unsafe { s.load_at(at) }, decay);
                        // SAFETY: the same.
                        unsafe { s.store_at(s.fma(x, unit, out), at) };
                    }
                }
            }
        }
    }

    /// Copies the codes of a panel into panel number `p`.
    ///
    /// # Safety
    /// The lines of `groups` groups are there, at most [`MAX_DIM`] inputs; `p < PANELS`.
    #[inline(always)]
    unsafe fn copy(&self, codes: *const u8, p: usize, groups: usize) {
        let to = self.panels.wrapping_add(p).wrapping_byte_add(offset_of!(Panel, codes)).cast::<u8>();
        // SAFETY: by the contract; a panel has room for more.
        unsafe { ptr::copy_nonoverlapping(codes, to, groups * LINES * LINE) };
    }

    /// Adds the products of the first panels and a tile.
    ///
    /// # Safety
    /// As [`MicroFn`]: `count` panels have codes of `groups` groups; the words and sums are there.
    #[inline(always)]
    unsafe fn multiply(&self, count: usize, groups: usize, input: *const u32, tokens: usize, out: *mut Sums) {
        let micro = Micro { kind: KIND, panels: self.panels, count, normal: true, groups, input, tokens, out };
        // SAFETY: by the contract; scales are ones.
        unsafe { (E::MICRO)(&micro) };
    }
}
