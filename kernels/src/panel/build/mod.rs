//! Stored weights taken apart, written once for vectors of sixteen words, a word a row, of any instruction set.
//!
//! ```text
//! 16 bytes of 16 rows           four columns of 16 words            codes
//! row 0: a0 a1 a2 a3            a0 b0 c0 …   line 0 (low halves), line 4 (high halves)
//! row 1: b0 b1 b2 b3     ─▶     a1 b1 c1 …   line 1, line 5      ─▶  & 15, >> 4
//! …                             …
//! ```
//! Codes are taken apart after the transposition, sixteen rows at a time, and so are scales. A [`Source`] knows a
//! format, a [`Sink`] what becomes of it: a panel, or at once a product with one token. Everything here is
//! `#[inline(always)]`: a tier's `#[target_feature]` functions make it theirs. Loops over vectors are over indices, and
//! unrolled, by a macro where they are long; iterators over arrays of vectors went through memory, at a fifth of the
//! speed.

#![cfg_attr(
    not(target_arch = "aarch64"),
    expect(clippy::needless_range_loop, reason = "indices that are constants once loops are unrolled, see above")
)]

/// A loop. On Arm its variable is a constant in each round, whatever the compiler thinks of the length of its body, as
/// sinks choose instructions by it. On x86 the compiler decides: there are not the registers for all rounds of
/// row-major blocks.
macro_rules! unrolled {
    ($i:ident in [$($n:literal),*] $body:block) => {
        #[cfg(target_arch = "aarch64")]
        {
            $({
                let $i: usize = $n;
                $body
            })*
        }
        #[cfg(not(target_arch = "aarch64"))]
        for $i in 0..[$($n),*].len() $body
    };
}

mod k;
mod legacy;
mod packed;
mod q6_k;

use std::marker::PhantomData;
use std::mem::{MaybeUninit, offset_of};
use std::slice;

pub(crate) use packed::{Stored, StoredGroup, StoredLanes, StoredUnit};

use super::{GROUPS, Kind, Panel, ROWS};
use crate::quantized::LINES;

/// Vectors of sixteen words or `f32`, one a row. A value is the proof that this CPU has their instruction set.
pub(crate) trait Lanes: Copy {
    /// Sixteen words of 32 bits.
    type Words: Copy;
    /// Sixteen `f32`.
    type Floats: Copy;

    /// The 16 bytes at each address, transposed: vector `i` has word `i` of every row.
    ///
    /// # Safety
    /// They can be read.
    unsafe fn columns(self, at: [*const u8; ROWS]) -> [Self::Words; 4];

    /// The half-precision number in the lower half of each word.
    fn halves(self, words: Self::Words) -> Self::Floats;
    /// The same four bytes in each word.
    fn splat(self, bytes: u32) -> Self::Words;
    /// `a & b`
    fn and(self, a: Self::Words, b: Self::Words) -> Self::Words;
    /// `a | b`
    fn or(self, a: Self::Words, b: Self::Words) -> Self::Words;
    /// `a ^ b`
    fn xor(self, a: Self::Words, b: Self::Words) -> Self::Words;
    /// `a << n`
    fn shl(self, a: Self::Words, n: i32) -> Self::Words;
    /// `a >> n`, zeros from above.
    fn shr(self, a: Self::Words, n: i32) -> Self::Words;
    /// `a >> n`, copies of the sign from above.
    fn sar(self, a: Self::Words, n: i32) -> Self::Words;
    /// `a + b`
    #[cfg(target_arch = "x86_64")]
    fn add(self, a: Self::Words, b: Self::Words) -> Self::Words;
    /// The lower 32 bits of `a · b`.
    fn mul_words(self, a: Self::Words, b: Self::Words) -> Self::Words;
    /// Each signed word as a number.
    fn floats(self, words: Self::Words) -> Self::Floats;
    /// `x` in every lane.
    fn splat_float(self, x: f32) -> Self::Floats;
    /// `a · b`
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a · b + c`, rounded once.
    fn fma(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// `c - a · b`, rounded once.
    #[cfg(target_arch = "x86_64")]
    fn fnma(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// Writes a line.
    fn store(self, words: Self::Words, to: &mut Line);
    /// Writes scales.
    fn store_floats(self, floats: Self::Floats, to: &mut Scale);
    /// Whether no scale is zero, infinite or NaN.
    fn normal(self, scales: &[[f32; ROWS]]) -> bool;
}

/// A line of codes to be written.
pub(crate) type Line = MaybeUninit<[u8; 4 * ROWS]>;

/// Scales, or minima, of a group, to be written.
pub(crate) type Scale = MaybeUninit<[f32; ROWS]>;

/// What the lines of a group are multiplied with.
pub(crate) struct Scales<L: Lanes> {
    /// Of all inputs, or of the first 16.
    pub(crate) low: L::Floats,
    /// Of the last 16, where they have another one.
    pub(crate) high: L::Floats,
    /// Minima, where there are such.
    pub(crate) min: L::Floats,
}

impl<L: Lanes> Scales<L> {
    /// One scale for all inputs.
    #[inline(always)]
    fn one(scale: L::Floats) -> Self {
        Self { low: scale, high: scale, min: scale }
    }
}

/// Groups of a unit that are taken apart at the same time, at most.
pub(crate) const SLOTS: usize = 4;

/// What becomes of the groups of a unit.
///
/// Slots and lines are to be constants where these functions are called, if need be after loops are unrolled: sums of a
/// slot are then registers, and some sinks choose instructions by them.
pub(crate) trait Sink<L: Lanes> {
    /// Begins a group. Up to [`SLOTS`] of them may have begun and not ended, each in a slot of its own.
    fn begin(&mut self, l: L, slot: usize, group: usize);
    /// Takes a line of a group.
    fn line(&mut self, l: L, slot: usize, group: usize, line: usize, codes: L::Words);
    /// Takes lines `line` and `line + 4` of 4 to 6 bits as they are stored, `line < 4`; see `packed`.
    ///
    /// # Safety
    /// The lines of `stored` can be read.
    #[inline(always)]
    unsafe fn stored(&mut self, l: L, slot: usize, group: usize, line: usize, stored: &StoredGroup<L>)
    where
        L: StoredLanes,
    {
        // SAFETY: the contract is the same.
        let [low, high] = unsafe { stored.codes(l, line) };
        self.line(l, slot, group, line, low);
        self.line(l, slot, group, line + 4, high);
    }
    /// Ends a group, all lines of which were given; groups end in ascending order.
    fn end(&mut self, l: L, slot: usize, group: usize, scales: Scales<L>);
}

/// A format of weights, in units of some groups of 16 rows.
pub(crate) trait Source {
    /// What its groups have.
    const KIND: Kind;
    /// Groups of a unit, a divisor of [`GROUPS`].
    const GROUPS: usize;
    /// Bytes of a unit of all 16 rows.
    const BYTES: usize;
    /// Whether lines come as [`Sink::stored`].
    #[cfg(target_arch = "aarch64")]
    const STORED: bool = false;

    /// Hands over the groups of unit `index`.
    ///
    /// # Safety
    /// As for [`BuildFn`](super::BuildFn), for the groups of this unit.
    unsafe fn unit<L: StoredLanes, S: Sink<L>>(l: L, rows: &[*const u8; ROWS], index: usize, sink: &mut S);
}

/// Blocks of `F` in sixteen rows.
#[derive(Debug)]
pub(crate) struct RowMajor<F>(PhantomData<F>);

/// A [`BuildFn`](super::BuildFn).
///
/// # Safety
/// As there.
#[inline(always)]
pub(crate) unsafe fn build<F: Source, L: StoredLanes>(
    l: L,
    rows: &[*const u8; ROWS],
    groups: usize,
    panel: *mut Panel,
) {
    const { assert!(GROUPS.is_multiple_of(F::GROUPS)) };
    // SAFETY: `panel` can be written.
    let Unwritten { codes, scales, scales_high, mins, .. } = unsafe { Unwritten::of(panel) };
    let codes = codes.chunks_exact_mut(F::GROUPS).zip(scales.chunks_exact_mut(F::GROUPS));
    let others = scales_high.chunks_exact_mut(F::GROUPS).zip(mins.chunks_exact_mut(F::GROUPS));
    for (unit, ((codes, low), (high, mins))) in codes.zip(others).enumerate().take(groups.div_ceil(F::GROUPS)) {
        let mut sink = ToPanel { kind: F::KIND, codes, low, high, mins };
        // SAFETY: a unit with at least one of the groups.
        unsafe { F::unit(l, rows, unit, &mut sink) };
    }
    // SAFETY: what the kind has was written for all groups.
    unsafe { finish(l, F::KIND, groups, panel) };
}

/// The places of a unit in a panel.
struct ToPanel<'a> {
    kind: Kind,
    codes: &'a mut [[Line; LINES]],
    low: &'a mut [Scale],
    high: &'a mut [Scale],
    mins: &'a mut [Scale],
}

impl<L: Lanes> Sink<L> for ToPanel<'_> {
    #[inline(always)]
    fn begin(&mut self, _l: L, _slot: usize, _group: usize) {}

    #[inline(always)]
    fn line(&mut self, l: L, _slot: usize, group: usize, line: usize, codes: L::Words) {
        l.store(codes, &mut self.codes[group][line]);
    }

    #[inline(always)]
    fn end(&mut self, l: L, _slot: usize, group: usize, scales: Scales<L>) {
        l.store_floats(scales.low, &mut self.low[group]);
        if self.kind.halves {
            l.store_floats(scales.high, &mut self.high[group]);
        }
        if self.kind.mins {
            l.store_floats(scales.min, &mut self.mins[group]);
        }
    }
}

/// A [`Panel`] to be written.
#[repr(C, align(64))]
struct Unwritten {
    codes: [[Line; LINES]; GROUPS],
    scales: [Scale; GROUPS],
    scales_high: [Scale; GROUPS],
    mins: [Scale; GROUPS],
    #[cfg(target_arch = "aarch64")]
    spare: [Scale; GROUPS],
    normal: MaybeUninit<bool>,
}

const _: () = assert!(offset_of!(Unwritten, mins) == offset_of!(Panel, mins));
const _: () = assert!(offset_of!(Unwritten, normal) == offset_of!(Panel, normal));

impl Unwritten {
    /// # Safety
    /// `panel` can be written, and nobody else uses it as long as this borrow lasts.
    #[inline(always)]
    unsafe fn of<'a>(panel: *mut Panel) -> &'a mut Self {
        // SAFETY: the same fields at the same places, none of which has to be initialised; the rest is the contract.
        unsafe { &mut *panel.cast() }
    }
}

/// The addresses `offset` bytes further.
#[inline(always)]
fn at(rows: &[*const u8; ROWS], offset: usize) -> [*const u8; ROWS] {
    rows.map(|row| row.wrapping_add(offset))
}

/// Sets `normal`, and settles the scales that are not.
///
/// # Safety
/// All that `kind` has is written in `groups <= GROUPS` groups of `panel`, which nobody else uses.
#[inline(always)]
unsafe fn finish<L: Lanes>(l: L, kind: Kind, groups: usize, panel: *mut Panel) {
    // SAFETY: by the contract of this function.
    let written = unsafe { Unwritten::of(panel) };
    // SAFETY: the scales of these groups are initialised.
    let scales = unsafe { slice::from_raw_parts(written.scales.as_ptr().cast(), groups) };
    let mut normal = l.normal(scales);
    if kind.halves {
        // SAFETY: likewise, as the kind has them.
        let scales = unsafe { slice::from_raw_parts(written.scales_high.as_ptr().cast(), groups) };
        normal &= l.normal(scales);
    }
    written.normal.write(normal);
    if !normal {
        // SAFETY: by the contract of this function.
        unsafe { Panel::settle(panel, kind, groups) };
    }
}
