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
use crate::quantized::GROUP;

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

    /// Sixteen signed bytes at an address, each a number.
    ///
    /// # Safety
    /// They can be read.
    #[inline(always)]
    unsafe fn signed_numbers(self, at: *const u8) -> Self::Floats {
        // SAFETY: the contract is the same.
        self.floats(unsafe { self.signed_bytes(at) })
    }

    /// Sixteen scales and minima of 6 bits, times `d` and `dmin`: the lower four bits of each side by side in the bytes
    /// at `lower`, the upper two in those at `upper`, in the upper half of a byte if `odd`.
    ///
    /// # Safety
    /// They can be read.
    #[inline(always)]
    unsafe fn six_bits(
        self,
        [lower, upper]: [*const u8; 2],
        odd: bool,
        [d, dmin]: [Self::Floats; 2],
    ) -> [Self::Floats; 2] {
        let (four, two) = (self.splat(0xf), self.splat(0x30));
        // SAFETY: by the contract.
        let lower = unsafe { self.bytes(lower) };
        // SAFETY: likewise.
        let upper = unsafe { self.bytes(upper) };
        let upper = if odd { self.shr(upper, 4) } else { upper };
        let scale = self.or(self.and(lower, four), self.and(self.shl(upper, 4), two));
        let min = self.or(self.shr(lower, 4), self.and(self.shl(upper, 2), two));
        [self.mul(d, self.floats(scale)), self.mul(dmin, self.floats(min))]
    }
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
    #[cfg(target_arch = "aarch64")]
    const STORED: bool = P::KIND.bits < 8;

    #[inline(always)]
    unsafe fn unit<L: StoredLanes, S: Sink<L>>(l: L, rows: &[*const u8; ROWS], index: usize, sink: &mut S) {
        // SAFETY: unit `index` of the panel.
        unsafe { P::unit(l, rows[0].wrapping_add(index * Self::BYTES), sink) };
    }
}

/// A group as it is stored.
pub(crate) struct StoredGroup<L: Lanes> {
    /// Where its four lines are, 64 bytes each: the lower four bits of two.
    pub(crate) lines: *const u8,
    /// What they have above, in their bits.
    pub(crate) planes: [L::Words; 2],
    /// Bits of a code, 4 to 6.
    pub(crate) bits: u32,
}

impl<L: StoredLanes> StoredGroup<L> {
    /// The codes of lines `line` and `line + 4`.
    ///
    /// # Safety
    /// They can be read.
    #[inline(always)]
    pub(super) unsafe fn codes(&self, l: L, line: usize) -> [L::Words; 2] {
        let Self { lines, planes, bits } = *self;
        // SAFETY: by the contract.
        let both = unsafe { l.line(lines.wrapping_add(line * LINE)) };
        let (nibble, eight) = (l.splat(0x0f0f_0f0f), l.splat(0x0808_0808));
        let mut low = l.and(both, nibble);
        let mut high = l.xor(l.and(l.shr(both, 4), nibble), eight);
        let t = line as i32;
        if bits == 5 {
            let fifth = l.splat(0x1010_1010);
            low = l.or(low, l.and(l.shl(planes[0], 4 - t), fifth));
            high = l.or(high, l.and(l.shr(planes[0], t), fifth));
        } else if bits == 6 {
            let two = l.splat(0x3030_3030);
            let upper = |plane| l.and(if t < 2 { l.shl(plane, 4 - 2 * t) } else { l.shr(plane, 2 * t - 4) }, two);
            low = l.or(low, upper(planes[0]));
            high = l.or(high, upper(planes[1]));
        }
        [low, high]
    }
}

/// The lines of group `g`, whose codes have `BITS` bits, 4 to 6.
///
/// # Safety
/// `group_bytes(BITS)` bytes can be read at `from`.
#[inline(always)]
unsafe fn lines<L: StoredLanes, S: Sink<L>, const BITS: u32>(l: L, g: usize, from: *const u8, sink: &mut S) {
    let mut planes = [l.splat(0); 2];
    for (p, plane) in planes.iter_mut().enumerate().take(BITS as usize - 4) {
        // SAFETY: planes follow the four lines.
        *plane = unsafe { l.line(from.wrapping_add((4 + p) * LINE)) };
    }
    let stored = StoredGroup { lines: from, planes, bits: BITS };
    sink.begin(l, 0, g);
    unrolled!(i in [0, 1, 2, 3] {
        // SAFETY: the four lines come first.
        unsafe { sink.stored(l, 0, g, i, &stored) };
    });
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
            unrolled!(i in [0, 1, 2, 3, 4, 5, 6, 7] {
                // SAFETY: a line of one of two groups.
                let found = unsafe { l.line(from.wrapping_add(g * CODES + i * LINE)) };
                sink.line(l, 0, g, i, l.xor(found, sign));
            });
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
    // SAFETY: the first 32 bytes.
    let d = unsafe { l.half_row(from) };
    // SAFETY: the next 32.
    let dmin = unsafe { l.half_row(from.wrapping_add(HALVES)) };
    for g in 0..BLOCK {
        let bytes = [from.wrapping_add(LOWER + g * ROWS), from.wrapping_add(UPPER + g / 2 * ROWS)];
        // SAFETY: one of eight rows of bytes, and one of the four that follow.
        let [low, min] = unsafe { l.six_bits(bytes, g % 2 == 1, [d, dmin]) };
        // SAFETY: one of the eight groups behind the head.
        unsafe { lines::<L, S, BITS>(l, g, from.wrapping_add(CODES + g * group_bytes(BITS)), sink) };
        sink.end(l, 0, g, Scales { low, high: low, min });
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
            let first = unsafe { l.signed_numbers(from.wrapping_add(SCALES + 2 * g * ROWS)) };
            // SAFETY: another.
            let second = unsafe { l.signed_numbers(from.wrapping_add(SCALES + (2 * g + 1) * ROWS)) };
            // SAFETY: one of the eight groups at the start.
            unsafe { lines::<L, S, 6>(l, g, from.wrapping_add(g * group_bytes(6)), sink) };
            let (low, high) = (l.mul(d, first), l.mul(d, second));
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
