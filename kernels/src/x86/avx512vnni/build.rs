//! Panels from row-major blocks.

use super::lanes::Zmm;
use crate::panel::{Panel, ROWS, build};

/// A [`BuildFn`](crate::panel::BuildFn) for each format.
macro_rules! builders {
    ($($format:ident)*) => {$(
        #[doc = concat!("See [`build::", stringify!($format), "`].")]
        ///
        /// # Safety
        /// As there; the CPU has the features of this tier.
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
        pub(super) unsafe fn $format(rows: &[*const u8; ROWS], groups: usize, panel: *mut Panel) {
            // SAFETY: as this function may run, the CPU has its features.
            let lanes = unsafe { Zmm::new() };
            // SAFETY: the contract is the same.
            unsafe { build::$format(lanes, rows, groups, panel) };
        }
    )*};
}

builders!(q4_0 q5_0 q8_0 q4_k q5_k q6_k);
