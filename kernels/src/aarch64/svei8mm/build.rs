//! Panels from stored weights, in pairs of rows and of lines as in the tier below.
//!
//! Minima or, where there are none, scales are there again, twice side by side as pairs of tokens need them: 32 numbers
//! a group, from the scales of second halves on, which only formats have that do without.

use std::mem::offset_of;

use crate::aarch64::i8mm::build::pair;
use crate::aarch64::i8mm::panel::doubled;
use crate::aarch64::neon::build::build as in_lines;
use crate::aarch64::neon::intrinsics::*;
use crate::panel::build::Source;
use crate::panel::{GROUPS, Panel, ROWS, Sums};

// There is room for twice as many, up to the end of the minima; those of a group are read before they are overwritten.
const _: () = assert!(offset_of!(Panel, mins) - offset_of!(Panel, scales_high) == size_of::<[Sums; GROUPS]>());

/// A [`BuildFn`](crate::panel::BuildFn), but for the order of codes and what is there twice.
///
/// # Safety
/// As there.
pub(super) unsafe fn build<F: Source>(rows: &[*const u8; ROWS], groups: usize, panel: *mut Panel) {
    // SAFETY: the contract is the same.
    unsafe { in_lines::<F>(rows, groups, panel) };
    // SAFETY: the codes of these groups were just written.
    unsafe { pair(panel, groups) };
    let from = if F::KIND.mins { offset_of!(Panel, mins) } else { offset_of!(Panel, scales) };
    let from: *const f32 = panel.wrapping_byte_add(from).cast();
    let to: *mut f32 = panel.wrapping_byte_add(offset_of!(Panel, scales_high)).cast();
    for group in (0..groups).filter(|_| !F::KIND.halves) {
        let from = from.wrapping_add(group * ROWS);
        // SAFETY: the first eight rows' numbers of a group, just written.
        let first = unsafe { doubled(from) };
        // SAFETY: those of the last eight.
        let last = unsafe { doubled(from.wrapping_add(ROWS / 2)) };
        for (i, doubled) in first.into_iter().chain(last).enumerate() {
            // SAFETY: see the assertion; nobody else uses the panel.
            unsafe { vst1q_f32(to.wrapping_add(group * 2 * ROWS + 4 * i), doubled) };
        }
    }
}
