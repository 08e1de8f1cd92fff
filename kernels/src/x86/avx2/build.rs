//! Panels from stored weights.

use super::lanes::Ymm;
use crate::panel::build::{self, Source};
use crate::panel::{Panel, ROWS};

/// A [`BuildFn`](crate::panel::BuildFn).
///
/// # Safety
/// As there; the CPU has the features of this tier.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn build<F: Source>(rows: &[*const u8; ROWS], groups: usize, panel: *mut Panel) {
    // SAFETY: as this function may run, the CPU has its features.
    let lanes = unsafe { Ymm::new() };
    // SAFETY: the contract is the same.
    unsafe { build::build::<F, Ymm>(lanes, rows, groups, panel) };
}
