//! Panels from stored ones.

use std::arch::x86_64::*;

use halfbyte_formats::quant::PanelType;

use super::lanes::Zmm;
use crate::pack::{OfFormat, PanelFormat, of_format};
use crate::panel::build::StoredLanes;
use crate::panel::{BuildFn, Panel, ROWS};

/// The function that builds from panels of `ty`.
pub(super) fn build(ty: PanelType) -> BuildFn {
    struct Build;
    impl OfFormat for Build {
        type Output = BuildFn;

        fn of<P: PanelFormat>(self) -> BuildFn {
            stored::<P>
        }
    }
    of_format(ty, Build)
}

/// A [`BuildFn`] for panels of `P`.
///
/// # Safety
/// As there; the CPU has the features of this tier.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn stored<P: PanelFormat>(rows: &[*const u8; ROWS], groups: usize, panel: *mut Panel) {
    // SAFETY: as this function may run, the CPU has its features.
    let lanes = unsafe { Zmm::new() };
    // SAFETY: the contract is the same.
    unsafe { P::build(lanes, rows[0], groups, panel) };
}

impl StoredLanes for Zmm {
    #[inline(always)]
    unsafe fn line(self, at: *const u8) -> Self::Words {
        // SAFETY: by the contract of this function, and `self`.
        unsafe { _mm512_loadu_si512(at.cast()) }
    }

    #[inline(always)]
    unsafe fn half_row(self, at: *const u8) -> Self::Floats {
        // SAFETY: by the contract of this function, and `self`.
        unsafe { half_row(at) }
    }

    #[inline(always)]
    unsafe fn bytes(self, at: *const u8) -> Self::Words {
        // SAFETY: by the contract of this function, and `self`.
        unsafe { bytes(at) }
    }

    #[inline(always)]
    unsafe fn signed_bytes(self, at: *const u8) -> Self::Words {
        // SAFETY: by the contract of this function, and `self`.
        unsafe { signed_bytes(at) }
    }
}

/// See [`StoredLanes::half_row`].
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn half_row(at: *const u8) -> __m512 {
    // SAFETY: by the contract of this function.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(at.cast()) })
}

/// See [`StoredLanes::bytes`].
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn bytes(at: *const u8) -> __m512i {
    // SAFETY: by the contract of this function.
    _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(at.cast()) })
}

/// See [`StoredLanes::signed_bytes`].
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn signed_bytes(at: *const u8) -> __m512i {
    // SAFETY: by the contract of this function.
    _mm512_cvtepi8_epi32(unsafe { _mm_loadu_si128(at.cast()) })
}
