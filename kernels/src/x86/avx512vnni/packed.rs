//! Rows of stored panels.

use std::arch::x86_64::*;

use super::lanes::Zmm;
use crate::panel::build::StoredLanes;

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
