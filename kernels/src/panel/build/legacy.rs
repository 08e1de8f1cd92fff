//! Q4_0, Q5_0, Q8_0: blocks of one group, whose scale comes first.

use halfbyte_formats::quant::{BlockFormat, Q4_0, Q5_0, Q8_0};

use super::{Lanes, Unwritten, at, finish};
use crate::panel::{Kind, Panel, ROWS};

/// A [`BuildFn`](crate::panel::BuildFn).
///
/// # Safety
/// As there.
#[inline(always)]
pub(crate) unsafe fn q4_0<L: Lanes>(l: L, rows: &[*const u8; ROWS], groups: usize, panel: *mut Panel) {
    // SAFETY: `panel` can be written.
    let Unwritten { codes, scales, .. } = unsafe { Unwritten::of(panel) };
    let nibble = l.splat(0x0f0f_0f0f);
    for (group, (lines, scale)) in codes.iter_mut().zip(scales).enumerate().take(groups) {
        let block = at(rows, Q4_0::BYTES * group);
        // SAFETY: the first 16 of the 18 bytes of block `group < groups`.
        let [d, ..] = unsafe { l.columns(block) };
        l.store_floats(l.halves(d), scale);
        // SAFETY: the last 16.
        let found = unsafe { l.columns(at(&block, 2)) };
        for i in 0..4 {
            l.store(l.and(found[i], nibble), &mut lines[i]);
            l.store(l.and(l.shr(found[i], 4), nibble), &mut lines[i + 4]);
        }
    }
    // SAFETY: scales and codes of these groups were written.
    unsafe { finish(l, Kind::of::<Q4_0>(), groups, panel) };
}

/// A [`BuildFn`](crate::panel::BuildFn).
///
/// # Safety
/// As there.
#[inline(always)]
pub(crate) unsafe fn q5_0<L: Lanes>(l: L, rows: &[*const u8; ROWS], groups: usize, panel: *mut Panel) {
    // SAFETY: `panel` can be written.
    let Unwritten { codes, scales, .. } = unsafe { Unwritten::of(panel) };
    let (nibble, fifth) = (l.splat(0x0f0f_0f0f), l.splat(0x1010_1010));
    // Bits 0 to 3 of a word, times this, are bits 4, 12, 20 and 28.
    let (four, spread) = (l.splat(15), l.splat(0x0204_0810));
    for (group, (lines, scale)) in codes.iter_mut().zip(scales).enumerate().take(groups) {
        let block = at(rows, Q5_0::BYTES * group);
        // SAFETY: the first 16 of the 22 bytes of block `group < groups`.
        let [d, ..] = unsafe { l.columns(block) };
        l.store_floats(l.halves(d), scale);
        // SAFETY: bytes 2 to 18, of which the first four are the fifth bits.
        let [mut bits, ..] = unsafe { l.columns(at(&block, 2)) };
        // SAFETY: the last 16.
        let found = unsafe { l.columns(at(&block, 6)) };
        for (line, to) in lines.iter_mut().enumerate() {
            let codes = l.and(l.shr(found[line % 4], line as i32 / 4 * 4), nibble);
            let fifths = l.and(l.mul_words(l.and(bits, four), spread), fifth);
            l.store(l.or(codes, fifths), to);
            bits = l.shr(bits, 4);
        }
    }
    // SAFETY: scales and codes of these groups were written.
    unsafe { finish(l, Kind::of::<Q5_0>(), groups, panel) };
}

/// A [`BuildFn`](crate::panel::BuildFn).
///
/// # Safety
/// As there.
#[inline(always)]
pub(crate) unsafe fn q8_0<L: Lanes>(l: L, rows: &[*const u8; ROWS], groups: usize, panel: *mut Panel) {
    // SAFETY: `panel` can be written.
    let Unwritten { codes, scales, .. } = unsafe { Unwritten::of(panel) };
    let sign = l.splat(0x8080_8080);
    for (group, (lines, scale)) in codes.iter_mut().zip(scales).enumerate().take(groups) {
        let block = at(rows, Q8_0::BYTES * group);
        // SAFETY: the first 16 of the 34 bytes of block `group < groups`.
        let [d, ..] = unsafe { l.columns(block) };
        l.store_floats(l.halves(d), scale);
        for (half, lines) in lines.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            // SAFETY: the next 16, and the last 16.
            let found = unsafe { l.columns(at(&block, 2 + 16 * half)) };
            for i in 0..4 {
                l.store(l.xor(found[i], sign), &mut lines[i]);
            }
        }
    }
    // SAFETY: scales and codes of these groups were written.
    unsafe { finish(l, Kind::of::<Q8_0>(), groups, panel) };
}
