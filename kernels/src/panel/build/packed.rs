//! Panels that are stored as such: their lines only have to be taken apart.
//!
//! ```text
//! stored line l     low = line & 15                     high = (line >> 4 & 15) ^ 8        lines l, l + 4
//! plane, b bits     low |= plane >> b t & mask << 4     t = l mod (8 / b)
//! ```
//! Nothing is transposed: bytes of a stored line are those of the line multiplied. Layouts are in `pack`.

use std::marker::PhantomData;

use halfbyte_formats::quant::{Q4_0, Q4_K, Q5_0, Q5_K, Q6_K, Q8_0};

use super::{Lanes, Scales, Sink, Source};
use crate::pack::{PanelFormat, U4, group_bytes};
use crate::panel::{Kind, ROWS};
use crate::quantized::{GROUP, LINES};

/// Bytes of a line.
const LINE: usize = 4 * ROWS;
/// Bytes of the scales of a group, f16.
const HALVES: usize = 2 * ROWS;

/// What stored panels need besides [`Lanes`].
pub(crate) trait StoredLanes: Lanes {
    /// Sixteen words at an address.
    ///
    /// # Safety
    /// 64 bytes can be read there.
    unsafe fn line(self, at: *const u8) -> Self::Words;
    /// Sixteen half-precision numbers at an address.
    ///
    /// # Safety
    /// 32 bytes can be read there.
    unsafe fn half_row(self, at: *const u8) -> Self::Floats;
    /// Sixteen bytes at an address, each a word.
    ///
    /// # Safety
    /// They can be read.
    unsafe fn bytes(self, at: *const u8) -> Self::Words;
    /// Sixteen signed bytes at an address, each a word.
    ///
    /// # Safety
    /// They can be read.
    unsafe fn signed_bytes(self, at: *const u8) -> Self::Words;
}

/// A format of stored panels.
pub(crate) trait StoredUnit {
    /// Hands over the groups of the unit at `from`.
    ///
    /// # Safety
    /// It can be read.
    unsafe fn unit<L: StoredLanes, S: Sink<L>>(l: L, from: *const u8, sink: &mut S);
}

/// Stored panels of `P`.
#[derive(Debug)]
pub(crate) struct Stored<P>(PhantomData<P>);

impl<P: PanelFormat> Source for Stored<P> {
    const KIND: Kind = P::KIND;
    const GROUPS: usize = P::PANEL.unit_len() / GROUP;
    const BYTES: usize = P::PANEL.unit_bytes();

    #[inline(always)]
    unsafe fn unit<L: StoredLanes, S: Sink<L>>(l: L, rows: &[*const u8; ROWS], index: usize, sink: &mut S) {
        // SAFETY: unit `index` of the panel.
        unsafe { P::unit(l, rows[0].wrapping_add(index * Self::BYTES), sink) };
    }
}

/// The lines of group `g`, whose codes have `BITS` bits, 4 to 6.
///
/// # Safety
/// `group_bytes(BITS)` bytes can be read at `from`.
#[inline(always)]
unsafe fn lines<L: StoredLanes, S: Sink<L>, const BITS: u32>(l: L, g: usize, from: *const u8, sink: &mut S) {
    let (nibble, eight) = (l.splat(0x0f0f_0f0f), l.splat(0x0808_0808));
    let mut planes = [l.splat(0); 2];
    for (p, plane) in planes.iter_mut().enumerate().take(BITS as usize - 4) {
        // SAFETY: planes follow the four lines.
        *plane = unsafe { l.line(from.wrapping_add((4 + p) * LINE)) };
    }
    sink.begin(l, 0, g);
    for i in 0..4 {
        // SAFETY: one of the four lines.
        let both = unsafe { l.line(from.wrapping_add(i * LINE)) };
        let mut low = l.and(both, nibble);
        let mut high = l.xor(l.and(l.shr(both, 4), nibble), eight);
        let t = i as i32;
        if BITS == 5 {
            let fifth = l.splat(0x1010_1010);
            low = l.or(low, l.and(l.shl(planes[0], 4 - t), fifth));
            high = l.or(high, l.and(l.shr(planes[0], t), fifth));
        } else if BITS == 6 {
            let two = l.splat(0x3030_3030);
            let upper = |plane| l.and(if t < 2 { l.shl(plane, 4 - 2 * t) } else { l.shr(plane, 2 * t - 4) }, two);
            low = l.or(low, upper(planes[0]));
            high = l.or(high, upper(planes[1]));
        }
        sink.line(l, 0, g, i, low);
        sink.line(l, 0, g, i + 4, high);
    }
}

/// A unit of two groups, then their scales: Q4_0 and Q5_0.
///
/// # Safety
/// Such a unit, of `BITS` bits, can be read at `from`.
#[inline(always)]
unsafe fn pair<L: StoredLanes, S: Sink<L>, const BITS: u32>(l: L, from: *const u8, sink: &mut S) {
    for g in 0..2 {
        // SAFETY: one of two groups.
        unsafe { lines::<L, S, BITS>(l, g, from.wrapping_add(g * group_bytes(BITS)), sink) };
        // SAFETY: its scales are behind both groups.
        let d = unsafe { l.half_row(from.wrapping_add(2 * group_bytes(BITS) + g * HALVES)) };
        sink.end(l, 0, g, Scales::one(d));
    }
}

impl StoredUnit for Q4_0 {
    #[inline(always)]
    unsafe fn unit<L: StoredLanes, S: Sink<L>>(l: L, from: *const u8, sink: &mut S) {
        // SAFETY: the contract is the same.
        unsafe { pair::<L, S, 4>(l, from, sink) };
    }
}

impl StoredUnit for Q5_0 {
    #[inline(always)]
    unsafe fn unit<L: StoredLanes, S: Sink<L>>(l: L, from: *const u8, sink: &mut S) {
        // SAFETY: the contract is the same.
        unsafe { pair::<L, S, 5>(l, from, sink) };
    }
}

impl StoredUnit for Q8_0 {
    #[inline(always)]
    unsafe fn unit<L: StoredLanes, S: Sink<L>>(l: L, from: *const u8, sink: &mut S) {
        const CODES: usize = GROUP * ROWS;
        let sign = l.splat(0x8080_8080);
        for g in 0..2 {
            sink.begin(l, 0, g);
            for i in 0..LINES {
                // SAFETY: a line of one of two groups.
                let found = unsafe { l.line(from.wrapping_add(g * CODES + i * LINE)) };
                sink.line(l, 0, g, i, l.xor(found, sign));
            }
            // SAFETY: its scales are behind both groups.
            let d = unsafe { l.half_row(from.wrapping_add(2 * CODES + g * HALVES)) };
            sink.end(l, 0, g, Scales::one(d));
        }
    }
}

/// A unit of a head of scales and minima, then eight groups: Q4_K and Q5_K.
///
/// # Safety
/// Such a unit, of `BITS` bits, can be read at `from`.
#[inline(always)]
unsafe fn k<L: StoredLanes, S: Sink<L>, const BITS: u32>(l: L, from: *const u8, sink: &mut S) {
    const BLOCK: usize = 8;
    const LOWER: usize = 2 * HALVES;
    const UPPER: usize = LOWER + BLOCK * ROWS;
    const CODES: usize = UPPER + BLOCK / 2 * ROWS;
    let (four, two) = (l.splat(0xf), l.splat(0x30));
    // SAFETY: the first 32 bytes.
    let d = unsafe { l.half_row(from) };
    // SAFETY: the next 32.
    let dmin = unsafe { l.half_row(from.wrapping_add(HALVES)) };
    for g in 0..BLOCK {
        // SAFETY: one of eight rows of bytes.
        let lower = unsafe { l.bytes(from.wrapping_add(LOWER + g * ROWS)) };
        // SAFETY: one of the four that follow.
        let upper = unsafe { l.bytes(from.wrapping_add(UPPER + g / 2 * ROWS)) };
        let upper = if g % 2 == 0 { upper } else { l.shr(upper, 4) };
        let scale = l.or(l.and(lower, four), l.and(l.shl(upper, 4), two));
        let min = l.or(l.shr(lower, 4), l.and(l.shl(upper, 2), two));
        // SAFETY: one of the eight groups behind the head.
        unsafe { lines::<L, S, BITS>(l, g, from.wrapping_add(CODES + g * group_bytes(BITS)), sink) };
        let low = l.mul(d, l.floats(scale));
        sink.end(l, 0, g, Scales { low, high: low, min: l.mul(dmin, l.floats(min)) });
    }
}

impl StoredUnit for Q4_K {
    #[inline(always)]
    unsafe fn unit<L: StoredLanes, S: Sink<L>>(l: L, from: *const u8, sink: &mut S) {
        // SAFETY: the contract is the same.
        unsafe { k::<L, S, 4>(l, from, sink) };
    }
}

impl StoredUnit for Q5_K {
    #[inline(always)]
    unsafe fn unit<L: StoredLanes, S: Sink<L>>(l: L, from: *const u8, sink: &mut S) {
        // SAFETY: the contract is the same.
        unsafe { k::<L, S, 5>(l, from, sink) };
    }
}

impl StoredUnit for Q6_K {
    #[inline(always)]
    unsafe fn unit<L: StoredLanes, S: Sink<L>>(l: L, from: *const u8, sink: &mut S) {
        const BLOCK: usize = 8;
        const SCALES: usize = BLOCK * group_bytes(6);
        // SAFETY: the last 32 bytes.
        let d = unsafe { l.half_row(from.wrapping_add(SCALES + 2 * BLOCK * ROWS)) };
        for g in 0..BLOCK {
            // SAFETY: one of 16 rows of bytes before them.
            let first = unsafe { l.signed_bytes(from.wrapping_add(SCALES + 2 * g * ROWS)) };
            // SAFETY: another.
            let second = unsafe { l.signed_bytes(from.wrapping_add(SCALES + (2 * g + 1) * ROWS)) };
            // SAFETY: one of the eight groups at the start.
            unsafe { lines::<L, S, 6>(l, g, from.wrapping_add(g * group_bytes(6)), sink) };
            let (low, high) = (l.mul(d, l.floats(first)), l.mul(d, l.floats(second)));
            sink.end(l, 0, g, Scales { low, high, min: low });
        }
    }
}

impl<const G: usize, const ZEROS: bool> StoredUnit for U4<G, ZEROS> {
    #[inline(always)]
    unsafe fn unit<L: StoredLanes, S: Sink<L>>(l: L, from: *const u8, sink: &mut S) {
        const UNIT: usize = 4;
        const SCALES: usize = UNIT * group_bytes(4);
        for g in 0..UNIT {
            // SAFETY: one of four groups.
            unsafe { lines::<L, S, 4>(l, g, from.wrapping_add(g * group_bytes(4)), sink) };
            let shared = g * GROUP / G;
            // SAFETY: the scales of this group, behind all groups.
            let d = unsafe { l.half_row(from.wrapping_add(SCALES + shared * HALVES)) };
            let mut min = d;
            if ZEROS {
                let zeros = SCALES + UNIT * GROUP / G * HALVES;
                // SAFETY: its zero points, behind all scales.
                let zero = unsafe { l.bytes(from.wrapping_add(zeros + shared * ROWS)) };
                min = l.mul(d, l.floats(zero));
            }
            sink.end(l, 0, g, Scales { low: d, high: d, min });
        }
    }
}
