//! Row-major blocks to panels, written once for vectors of sixteen words, a word a row, of any instruction set.
//!
//! ```text
//! 16 bytes of 16 rows           four columns of 16 words            codes
//! row 0: a0 a1 a2 a3            a0 b0 c0 …   line 0 (low halves), line 4 (high halves)
//! row 1: b0 b1 b2 b3     ─▶     a1 b1 c1 …   line 1, line 5      ─▶  & 15, >> 4
//! …                             …
//! ```
//! Codes are taken apart after the transposition, sixteen rows at a time, and so are scales. Everything here is
//! `#[inline(always)]`: a tier's `#[target_feature]` functions make it theirs. Loops over vectors are over indices, which the
//! compiler unrolls; iterators over arrays of vectors went through memory, at a fifth of the speed.

mod k;
mod legacy;
mod packed;
mod q6_k;

use std::mem::{MaybeUninit, offset_of};
use std::slice;

pub(crate) use k::{q4_k, q5_k};
pub(crate) use legacy::{q4_0, q5_0, q8_0};
pub(crate) use packed::{BuildStored, StoredLanes};
pub(crate) use q6_k::q6_k;

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
    /// The lower 32 bits of `a · b`.
    fn mul_words(self, a: Self::Words, b: Self::Words) -> Self::Words;
    /// Each signed word as a number.
    fn floats(self, words: Self::Words) -> Self::Floats;
    /// `a · b`
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
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

/// A [`Panel`] to be written.
#[repr(C, align(64))]
struct Unwritten {
    codes: [[Line; LINES]; GROUPS],
    scales: [Scale; GROUPS],
    scales_high: [Scale; GROUPS],
    mins: [Scale; GROUPS],
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
