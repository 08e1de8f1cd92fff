//! Sixteen codes of a byte each, in one register: how the tiers of x86 take blocks apart.

use std::arch::x86_64::*;

use crate::simd::LANES;

/// See [`Simd::codes`](crate::simd::Simd::codes).
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::x86) fn load(bytes: &[u8; LANES]) -> __m128i {
    // SAFETY: sixteen bytes, at any address.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// Writes the lowest bytes of sixteen integers that fit signed bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::x86) fn store([low, high]: [__m256i; 2], bytes: &mut [u8; LANES]) {
    // Packing works within halves of registers: `low` and `high` become four pieces in turns.
    let halves = _mm256_packs_epi32(low, high);
    let pieces = _mm256_packs_epi16(halves, halves);
    let (first, second) = (_mm256_castsi256_si128(pieces), _mm256_extracti128_si256::<1>(pieces));
    let in_order = _mm_unpacklo_epi32(first, second);
    // SAFETY: sixteen bytes, at any address.
    unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), in_order) };
}

/// See [`Simd::field`](crate::simd::Simd::field).
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::x86) fn field(codes: __m128i, from: i32, mask: u8, to: i32) -> __m128i {
    // Shifts of two bytes at a time: the mask takes away what came from the other one.
    let bits = _mm_and_si128(_mm_srl_epi16(codes, _mm_cvtsi32_si128(from)), _mm_set1_epi8(mask.cast_signed()));
    _mm_sll_epi16(bits, _mm_cvtsi32_si128(to))
}

/// See [`Simd::or`](crate::simd::Simd::or).
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::x86) fn or(a: __m128i, b: __m128i) -> __m128i {
    _mm_or_si128(a, b)
}

/// See [`Simd::bits`](crate::simd::Simd::bits).
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::x86) fn bits(bits: u16) -> __m128i {
    let bytes = _mm_set_epi64x(0x0101_0101_0101_0101, 0);
    let each = _mm_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed());
    let bits = _mm_shuffle_epi8(_mm_cvtsi32_si128(i32::from(bits)), bytes);
    _mm_cmpeq_epi8(_mm_and_si128(bits, each), each)
}

/// See [`Simd::look_up`](crate::simd::Simd::look_up).
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::x86) fn look_up(table: &[i8; LANES], codes: __m128i) -> __m128i {
    // SAFETY: sixteen bytes, at any address.
    _mm_shuffle_epi8(unsafe { _mm_loadu_si128(table.as_ptr().cast()) }, codes)
}

/// See [`Simd::halves`](crate::simd::Simd::halves).
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::x86) fn halves(x: [u8; 4]) -> [f32; 2] {
    // Two at a time: a single one is loaded by an instruction that waits for what was in the register before.
    let x = _mm_cvtph_ps(_mm_cvtsi32_si128(i32::from_le_bytes(x)));
    [_mm_cvtss_f32(x), _mm_cvtss_f32(_mm_movehdup_ps(x))]
}
