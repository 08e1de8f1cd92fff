//! Panels from stored weights, in pairs of rows and of lines:
//!
//! ```text
//! lines l, l + 1      row 0 | row 1 | … | row 15,  row 0 | row 1 | … | row 15          four inputs each
//! become              row 0, l | row 0, l + 1 | row 1, l | row 1, l + 1,  row 2, l | …    two rows by eight inputs, 16 bytes
//! ```
//! In panels with minima these and the scales are there twice, side by side, as a square of two rows by two tokens
//! needs them; without, doubling scales takes less time than loading twice as many.

use std::mem::offset_of;

use super::panel::{DOUBLED, doubled, paired};
use crate::aarch64::neon::build::build as in_lines;
use crate::aarch64::neon::intrinsics::*;
use crate::panel::build::Source;
use crate::panel::{Panel, ROWS};
use crate::quantized::LINES;

/// A [`BuildFn`](crate::panel::BuildFn), but for the order of codes.
///
/// # Safety
/// As there.
pub(super) unsafe fn build<F: Source>(rows: &[*const u8; ROWS], groups: usize, panel: *mut Panel) {
    // SAFETY: the contract is the same.
    unsafe { in_lines::<F>(rows, groups, panel) };
    for fields in DOUBLED.into_iter().filter(|_| F::KIND.mins) {
        for group in 0..groups {
            let places = fields.map(|field| panel.wrapping_byte_add(field).cast::<f32>().wrapping_add(group * ROWS));
            // SAFETY: numbers of the last eight rows, just written.
            let last = unsafe { doubled(places[0].wrapping_add(ROWS / 2)) };
            // SAFETY: those of the first.
            let first = unsafe { doubled(places[0]) };
            for (place, doubled) in places.into_iter().zip([first, last]) {
                for (i, doubled) in doubled.into_iter().enumerate() {
                    // SAFETY: four of the 16 numbers of a field of the panel, which nobody else uses.
                    unsafe { vst1q_f32(place.wrapping_add(4 * i), doubled) };
                }
            }
        }
    }
    // SAFETY: the codes of these groups were just written.
    unsafe { pair(panel, groups) };
}

/// Pairs the codes of `groups` groups.
///
/// # Safety
/// They are written, and nobody else uses them.
pub(in crate::aarch64) unsafe fn pair(panel: *mut Panel, groups: usize) {
    let codes: *mut u8 = panel.wrapping_byte_add(offset_of!(Panel, codes)).cast();
    for pair in 0..groups * LINES / 2 {
        let lines = codes.wrapping_add(pair * 8 * ROWS);
        let mut out = [vdupq_n_u8(0); ROWS / 2];
        for (i, out) in out.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            // SAFETY: four rows of each of two lines, just written.
            *out = unsafe { paired(lines.wrapping_add(16 * i)) };
        }
        for (i, out) in out.into_iter().enumerate() {
            // SAFETY: inside of the same two lines, which nobody else uses.
            unsafe { vst1q_u8(lines.wrapping_add(16 * i), out) };
        }
    }
}
