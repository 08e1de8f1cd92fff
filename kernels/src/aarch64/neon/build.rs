//! Panels from stored weights.

use super::lanes::Neon;
use crate::panel::build::{self, Source};
use crate::panel::{Panel, ROWS};

/// A [`BuildFn`](crate::panel::BuildFn).
///
/// # Safety
/// As there.
pub(in crate::aarch64) unsafe fn build<F: Source>(rows: &[*const u8; ROWS], groups: usize, panel: *mut Panel) {
    // SAFETY: the contract is the same.
    unsafe { build::build::<F, Neon>(Neon, rows, groups, panel) };
}
