//! Panels from stored weights, in pairs of rows and of lines as in the tier below; minima stay in their place.

use crate::aarch64::i8mm::build::pair;
use crate::aarch64::neon::build::build as in_lines;
use crate::panel::build::Source;
use crate::panel::{Panel, ROWS};

/// A [`BuildFn`](crate::panel::BuildFn), but for the order of codes.
///
/// # Safety
/// As there.
pub(super) unsafe fn build<F: Source>(rows: &[*const u8; ROWS], groups: usize, panel: *mut Panel) {
    // SAFETY: the contract is the same.
    unsafe { in_lines::<F>(rows, groups, panel) };
    // SAFETY: the codes of these groups were just written.
    unsafe { pair(panel, groups) };
}
