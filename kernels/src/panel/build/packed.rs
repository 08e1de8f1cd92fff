//! Panels that are stored as such: their lines only have to be taken apart.
//!
//! ```text
//! stored line l     low = line & 15                     high = (line >> 4 & 15) ^ 8        lines l, l + 4
//! plane, b bits     low |= plane >> b t & mask << 4     t = l mod (8 / b)
//! ```
//! Nothing is transposed: bytes of a stored line are those of the line multiplied. Layouts are in `pack`.

use halfbyte_formats::quant::{PanelType, Q4_0, Q4_K, Q5_0, Q5_K, Q6_K, Q8_0};

use super::{Lanes, Line, Unwritten, finish};
use crate::pack::{PanelFormat, U4, group_bytes};
use crate::panel::{Panel, ROWS};
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

/// How panels of a format are built from stored ones.
pub(crate) trait BuildStored {
    /// A [`BuildFn`](crate::panel::BuildFn) for the panel at `from`.
    ///
    /// # Safety
    /// As there.
    unsafe fn build<L: StoredLanes>(l: L, from: *const u8, groups: usize, panel: *mut Panel);
}

/// A group whose codes have `BITS` bits, 4 to 6.
///
/// # Safety
/// `group_bytes(BITS)` bytes can be read at `from`.
#[inline(always)]
unsafe fn group<L: StoredLanes, const BITS: u32>(l: L, from: *const u8, lines: &mut [Line; LINES]) {
    let (nibble, eight) = (l.splat(0x0f0f_0f0f), l.splat(0x0808_0808));
    let mut planes = [l.splat(0); 2];
    for (p, plane) in planes.iter_mut().enumerate().take(BITS as usize - 4) {
        // SAFETY: planes follow the four lines.
        *plane = unsafe { l.line(from.wrapping_add((4 + p) * LINE)) };
    }
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
        l.store(low, &mut lines[i]);
        l.store(high, &mut lines[4 + i]);
    }
}

/// Units of two groups, then their scales: Q4_0 and Q5_0.
///
/// # Safety
/// As for [`BuildStored::build`], `P` being one of these, of `BITS` bits.
#[inline(always)]
unsafe fn pairs<P: PanelFormat, L: StoredLanes, const BITS: u32>(
    l: L,
    from: *const u8,
    groups: usize,
    panel: *mut Panel,
) {
    // SAFETY: `panel` can be written.
    let Unwritten { codes, scales, .. } = unsafe { Unwritten::of(panel) };
    for (g, (lines, scale)) in codes.iter_mut().zip(scales).enumerate().take(groups) {
        let unit = from.wrapping_add(g / 2 * P::PANEL.unit_bytes());
        // SAFETY: a group of unit `g / 2`.
        unsafe { group::<L, BITS>(l, unit.wrapping_add(g % 2 * group_bytes(BITS)), lines) };
        // SAFETY: its scales are behind both groups.
        let d = unsafe { l.half_row(unit.wrapping_add(2 * group_bytes(BITS) + g % 2 * HALVES)) };
        l.store_floats(d, scale);
    }
    // SAFETY: scales and codes of these groups were written.
    unsafe { finish(l, P::KIND, groups, panel) };
}

impl BuildStored for Q4_0 {
    #[inline(always)]
    unsafe fn build<L: StoredLanes>(l: L, from: *const u8, groups: usize, panel: *mut Panel) {
        // SAFETY: the contract is the same.
        unsafe { pairs::<Self, L, 4>(l, from, groups, panel) };
    }
}

impl BuildStored for Q5_0 {
    #[inline(always)]
    unsafe fn build<L: StoredLanes>(l: L, from: *const u8, groups: usize, panel: *mut Panel) {
        // SAFETY: the contract is the same.
        unsafe { pairs::<Self, L, 5>(l, from, groups, panel) };
    }
}

impl BuildStored for Q8_0 {
    #[inline(always)]
    unsafe fn build<L: StoredLanes>(l: L, from: *const u8, groups: usize, panel: *mut Panel) {
        const CODES: usize = GROUP * ROWS;
        // SAFETY: `panel` can be written.
        let Unwritten { codes, scales, .. } = unsafe { Unwritten::of(panel) };
        let sign = l.splat(0x8080_8080);
        for (g, (lines, scale)) in codes.iter_mut().zip(scales).enumerate().take(groups) {
            let unit = from.wrapping_add(g / 2 * PanelType::Q8_0.unit_bytes());
            for (i, line) in lines.iter_mut().enumerate() {
                // SAFETY: a line of a group of unit `g / 2`.
                let found = unsafe { l.line(unit.wrapping_add(g % 2 * CODES + i * LINE)) };
                l.store(l.xor(found, sign), line);
            }
            // SAFETY: its scales are behind both groups.
            let d = unsafe { l.half_row(unit.wrapping_add(2 * CODES + g % 2 * HALVES)) };
            l.store_floats(d, scale);
        }
        // SAFETY: scales and codes of these groups were written.
        unsafe { finish(l, Self::KIND, groups, panel) };
    }
}

/// Units of a head of scales and minima, then eight groups: Q4_K and Q5_K.
///
/// # Safety
/// As for [`BuildStored::build`], `P` being one of these, of `BITS` bits.
#[inline(always)]
unsafe fn k<P: PanelFormat, L: StoredLanes, const BITS: u32>(l: L, from: *const u8, groups: usize, panel: *mut Panel) {
    const BLOCK: usize = 8;
    const LOWER: usize = 2 * HALVES;
    const UPPER: usize = LOWER + BLOCK * ROWS;
    const CODES: usize = UPPER + BLOCK / 2 * ROWS;
    // SAFETY: `panel` can be written.
    let Unwritten { codes, scales, mins, .. } = unsafe { Unwritten::of(panel) };
    let (four, two) = (l.splat(0xf), l.splat(0x30));
    let units = codes.as_chunks_mut::<BLOCK>().0.iter_mut().zip(scales.as_chunks_mut::<BLOCK>().0);
    let units = units.zip(mins.as_chunks_mut::<BLOCK>().0).take(groups.div_ceil(BLOCK));
    for (u, ((codes, scales), mins)) in units.enumerate() {
        let unit = from.wrapping_add(u * P::PANEL.unit_bytes());
        // SAFETY: the first 32 bytes of unit `u`.
        let d = unsafe { l.half_row(unit) };
        // SAFETY: the next 32.
        let dmin = unsafe { l.half_row(unit.wrapping_add(HALVES)) };
        for g in 0..BLOCK {
            // SAFETY: one of eight rows of bytes.
            let lower = unsafe { l.bytes(unit.wrapping_add(LOWER + g * ROWS)) };
            // SAFETY: one of the four that follow.
            let upper = unsafe { l.bytes(unit.wrapping_add(UPPER + g / 2 * ROWS)) };
            let upper = if g % 2 == 0 { upper } else { l.shr(upper, 4) };
            let scale = l.or(l.and(lower, four), l.and(l.shl(upper, 4), two));
            let min = l.or(l.shr(lower, 4), l.and(l.shl(upper, 2), two));
            l.store_floats(l.mul(d, l.floats(scale)), &mut scales[g]);
            l.store_floats(l.mul(dmin, l.floats(min)), &mut mins[g]);
            // SAFETY: one of the eight groups behind the head.
            unsafe { group::<L, BITS>(l, unit.wrapping_add(CODES + g * group_bytes(BITS)), &mut codes[g]) };
        }
    }
    // SAFETY: scales, minima and codes of these groups were written.
    unsafe { finish(l, P::KIND, groups, panel) };
}

impl BuildStored for Q4_K {
    #[inline(always)]
    unsafe fn build<L: StoredLanes>(l: L, from: *const u8, groups: usize, panel: *mut Panel) {
        // SAFETY: the contract is the same.
        unsafe { k::<Self, L, 4>(l, from, groups, panel) };
    }
}

impl BuildStored for Q5_K {
    #[inline(always)]
    unsafe fn build<L: StoredLanes>(l: L, from: *const u8, groups: usize, panel: *mut Panel) {
        // SAFETY: the contract is the same.
        unsafe { k::<Self, L, 5>(l, from, groups, panel) };
    }
}

impl BuildStored for Q6_K {
    #[inline(always)]
    unsafe fn build<L: StoredLanes>(l: L, from: *const u8, groups: usize, panel: *mut Panel) {
        const BLOCK: usize = 8;
        const SCALES: usize = BLOCK * group_bytes(6);
        // SAFETY: `panel` can be written.
        let Unwritten { codes, scales, scales_high, .. } = unsafe { Unwritten::of(panel) };
        let units = codes.as_chunks_mut::<BLOCK>().0.iter_mut().zip(scales.as_chunks_mut::<BLOCK>().0);
        let units = units.zip(scales_high.as_chunks_mut::<BLOCK>().0).take(groups.div_ceil(BLOCK));
        for (u, ((codes, low), high)) in units.enumerate() {
            let unit = from.wrapping_add(u * PanelType::Q6_K.unit_bytes());
            // SAFETY: the last 32 bytes of unit `u`.
            let d = unsafe { l.half_row(unit.wrapping_add(SCALES + 2 * BLOCK * ROWS)) };
            for g in 0..BLOCK {
                // SAFETY: one of 16 rows of bytes before them.
                let first = unsafe { l.signed_bytes(unit.wrapping_add(SCALES + 2 * g * ROWS)) };
                // SAFETY: another.
                let second = unsafe { l.signed_bytes(unit.wrapping_add(SCALES + (2 * g + 1) * ROWS)) };
                l.store_floats(l.mul(d, l.floats(first)), &mut low[g]);
                l.store_floats(l.mul(d, l.floats(second)), &mut high[g]);
                // SAFETY: one of the eight groups at the start.
                unsafe { group::<L, 6>(l, unit.wrapping_add(g * group_bytes(6)), &mut codes[g]) };
            }
        }
        // SAFETY: both scales and the codes of these groups were written.
        unsafe { finish(l, Self::KIND, groups, panel) };
    }
}

impl<const G: usize, const ZEROS: bool> BuildStored for U4<G, ZEROS> {
    #[inline(always)]
    unsafe fn build<L: StoredLanes>(l: L, from: *const u8, groups: usize, panel: *mut Panel) {
        const UNIT: usize = 4;
        const SCALES: usize = UNIT * group_bytes(4);
        // SAFETY: `panel` can be written.
        let Unwritten { codes, scales, mins, .. } = unsafe { Unwritten::of(panel) };
        for (g, (lines, (scale, min))) in codes.iter_mut().zip(scales.iter_mut().zip(mins)).enumerate().take(groups) {
            let unit = from.wrapping_add(g / UNIT * Self::PANEL.unit_bytes());
            // SAFETY: a group of unit `g / 4`.
            unsafe { group::<L, 4>(l, unit.wrapping_add(g % UNIT * group_bytes(4)), lines) };
            let shared = g % UNIT * GROUP / G;
            // SAFETY: the scales of this group, behind all groups.
            let d = unsafe { l.half_row(unit.wrapping_add(SCALES + shared * HALVES)) };
            l.store_floats(d, scale);
            if ZEROS {
                let zeros = SCALES + UNIT * GROUP / G * HALVES;
                // SAFETY: its zero points, behind all scales.
                let zero = unsafe { l.bytes(unit.wrapping_add(zeros + shared * ROWS)) };
                l.store_floats(l.mul(d, l.floats(zero)), min);
            }
        }
        // SAFETY: what this kind has was written for these groups.
        unsafe { finish(l, Self::KIND, groups, panel) };
    }
}
