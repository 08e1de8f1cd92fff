//! Rows of stored panels.

use std::arch::x86_64::*;

use super::lanes::Ymm;
use crate::panel::build::StoredLanes;

impl StoredLanes for Ymm {
    #[inline(always)]
    unsafe fn line(self, at: *const u8) -> Self::Words {
        // SAFETY: by the contract of this function, and `self`.
        unsafe { line(at) }
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

/// See [`StoredLanes::line`].
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn line(at: *const u8) -> [__m256i; 2] {
    // SAFETY: the first 32 bytes; by the contract of this function.
    let first = unsafe { _mm256_loadu_si256(at.cast()) };
    // SAFETY: the last 32.
    [first, unsafe { _mm256_loadu_si256(at.wrapping_add(32).cast()) }]
}

/// See [`StoredLanes::half_row`].
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn half_row(at: *const u8) -> [__m256; 2] {
    // SAFETY: the first eight numbers; by the contract of this function.
    let first = unsafe { _mm_loadu_si128(at.cast()) };
    // SAFETY: the last eight.
    let last = unsafe { _mm_loadu_si128(at.wrapping_add(16).cast()) };
    [_mm256_cvtph_ps(first), _mm256_cvtph_ps(last)]
}

/// See [`StoredLanes::bytes`].
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn bytes(at: *const u8) -> [__m256i; 2] {
    // SAFETY: by the contract of this function.
    let bytes = unsafe { _mm_loadu_si128(at.cast()) };
    [_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_unpackhi_epi64(bytes, bytes))]
}

/// See [`StoredLanes::signed_bytes`].
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn signed_bytes(at: *const u8) -> [__m256i; 2] {
    // SAFETY: by the contract of this function.
    let bytes = unsafe { _mm_loadu_si128(at.cast()) };
    [_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(bytes, bytes))]
}
