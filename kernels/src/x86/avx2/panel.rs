//! The micro-kernel: 16 rows by four tokens.
//!
//! `vpmaddubsw` adds two products of u8 codes and s8 inputs in 16 bits, and saturates. Codes of few bits leave room for the
//! products of more lines, added in 16 bits before `vpmaddwd` by ones widens them:
//!
//! ```text
//! bits   largest sum of n lines                n
//!  4     8 · 2 · 15 · 127 = 30480              8
//!  5     4 · 2 · 31 · 127 = 31496              4
//!  6     2 · 2 · 63 · 127 = 32004              2
//!  8     1 · 2 · 128 · 127 = 32512             1     of |code - 128| and the input with the sign of code - 128
//! ```

use std::arch::x86_64::*;

use super::micro::{self, Dots, Integers, Line};
use crate::panel::{Kind, Micro, MicroFn};
use crate::scalar;

/// The proof that this CPU has the features of this tier, for codes of so many bits.
#[derive(Clone, Copy, Debug)]
struct Maddubs<const BITS: u32>(());

impl<const BITS: u32> Dots for Maddubs<BITS> {
    #[inline(always)]
    unsafe fn sums<const T: usize>(self, lines: &[Line], input: *const u32, start: [__m256i; T]) -> [Integers; T] {
        if BITS == 8 {
            // SAFETY: the contract is the same, and `self` the proof of the features.
            unsafe { signed_sums(lines, input) }
        } else if BITS == 4 {
            // SAFETY: likewise.
            unsafe { sums4(lines, input, start) }
        } else {
            // SAFETY: likewise.
            unsafe { sums::<BITS, T>(lines, input, start) }
        }
    }
}

/// See [`Dots::sums`], for codes of 4 bits.
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn sums4<const T: usize>(lines: &[Line], input: *const u32, start: [__m256i; T]) -> [Integers; T] {
    let mut sums = [[_mm256_setzero_si256(); 2]; T];
    for (i, line) in lines.iter().enumerate() {
        let halves: *const __m256i = line.as_ptr().cast();
        // SAFETY: the first 32 of 64 bytes.
        let first = unsafe { _mm256_loadu_si256(halves) };
        // SAFETY: the last 32.
        let last = unsafe { _mm256_loadu_si256(halves.wrapping_add(1)) };
        for (t, sums) in sums.iter_mut().enumerate() {
            // SAFETY: `T` words a line.
            let input = _mm256_set1_epi32(unsafe { *input.wrapping_add(i * T + t) }.cast_signed());
            sums[0] = _mm256_add_epi16(sums[0], _mm256_maddubs_epi16(first, input));
            sums[1] = _mm256_add_epi16(sums[1], _mm256_maddubs_epi16(last, input));
        }
    }
    let ones = _mm256_set1_epi16(1);
    for (sums, start) in sums.iter_mut().zip(start) {
        sums[0] = _mm256_add_epi32(start, _mm256_madd_epi16(sums[0], ones));
        sums[1] = _mm256_add_epi32(start, _mm256_madd_epi16(sums[1], ones));
    }
    sums
}

/// See [`Dots::sums`], for codes of up to 6 bits.
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn sums<const BITS: u32, const T: usize>(
    lines: &[Line],
    input: *const u32,
    start: [__m256i; T],
) -> [Integers; T] {
    let lines_of_a_sum = match BITS {
        4 => 8,
        5 => 4,
        _ => 2,
    };
    let ones = _mm256_set1_epi16(1);
    let mut sums = [[_mm256_setzero_si256(); 2]; T];
    for h in 0..2 {
        for (sums, start) in sums.iter_mut().zip(start) {
            sums[h] = start;
        }
        for (n, some) in lines.chunks(lines_of_a_sum).enumerate() {
            let mut pairs = [_mm256_setzero_si256(); T];
            for (i, line) in some.iter().enumerate() {
                // SAFETY: one half of 64 bytes.
                let half = unsafe { _mm256_loadu_si256(line.as_ptr().cast::<__m256i>().wrapping_add(h)) };
                let words = input.wrapping_add((n * lines_of_a_sum + i) * T);
                for (t, pairs) in pairs.iter_mut().enumerate() {
                    // SAFETY: `T` words a line.
                    let input = _mm256_set1_epi32(unsafe { *words.wrapping_add(t) }.cast_signed());
                    *pairs = _mm256_add_epi16(*pairs, _mm256_maddubs_epi16(half, input));
                }
            }
            for (sums, pairs) in sums.iter_mut().zip(pairs) {
                sums[h] = _mm256_add_epi32(sums[h], _mm256_madd_epi16(pairs, ones));
            }
        }
    }
    sums
}

/// See [`Dots::sums`], for codes of 8 bits around 128.
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn signed_sums<const T: usize>(lines: &[Line], input: *const u32) -> [Integers; T] {
    let (ones, zero) = (_mm256_set1_epi16(1), _mm256_set1_epi8(-128));
    let mut sums = [[_mm256_setzero_si256(); 2]; T];
    for (i, line) in lines.iter().enumerate() {
        for h in 0..2 {
            // SAFETY: one half of 64 bytes.
            let codes = unsafe { _mm256_loadu_si256(line.as_ptr().cast::<__m256i>().wrapping_add(h)) };
            let codes = _mm256_xor_si256(codes, zero);
            let magnitudes = _mm256_abs_epi8(codes);
            for (t, sums) in sums.iter_mut().enumerate() {
                // SAFETY: `T` words a line.
                let input = _mm256_set1_epi32(unsafe { *input.wrapping_add(i * T + t) }.cast_signed());
                let pairs = _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(input, codes));
                sums[h] = _mm256_add_epi32(sums[h], _mm256_madd_epi16(pairs, ones));
            }
        }
    }
    sums
}

/// The [`MicroFn`] for a kind of panels.
pub(super) const fn micro(kind: Kind) -> MicroFn {
    match kind.bits {
        0..=4 => panels::<4>,
        5 => panels::<5>,
        6 => panels::<6>,
        _ => panels::<8>,
    }
}

/// A [`MicroFn`], for codes of so many bits.
///
/// # Safety
/// As there.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn panels<const BITS: u32>(m: &Micro) {
    if !m.normal {
        // SAFETY: the contract is the same.
        return unsafe { scalar::panel::micro(m) };
    }
    let product: unsafe fn(&Micro, usize) = micro::instance!(product::<BITS>, m);
    for p in 0..m.count {
        // SAFETY: the contract is the same; the instance is that for `m`, and `p < count`.
        unsafe { product(m, p) };
    }
}

/// One panel by `T` tokens.
///
/// # Safety
/// As [`micro::product`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn product<const BITS: u32, const T: usize, const HALVES: bool, const MINS: bool>(m: &Micro, p: usize) {
    // SAFETY: the contract is the same; as this function may run, the CPU has its features.
    unsafe { micro::product::<Maddubs<BITS>, T, HALVES, MINS>(Maddubs(()), m, p) };
}
