//! Panels from stored weights.

use super::lanes::Zmm;
use crate::panel::build::{self, Source};
use crate::panel::{Panel, ROWS};

/// A [`BuildFn`](crate::panel::BuildFn).
///
/// # Safety
/// As there; the CPU has the features of this tier.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn build<F: Source>(rows: &[*const u8; ROWS], groups: usize, panel: *mut Panel) {
    // SAFETY: as this function may run, the CPU has its features.
    let lanes = unsafe { Zmm::new() };
    // SAFETY: the contract is the same.
    unsafe { build::build::<F, Zmm>(lanes, rows, groups, panel) };
}
