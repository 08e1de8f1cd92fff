//! The micro-kernel: 16 rows by four tokens.
//!
//! `vpmaddubsw` adds two products of u8 codes and s8 inputs in 16 bits, and saturates. Codes of few bits leave room for
//! the products of more lines, added in 16 bits before `vpmaddwd` by ones widens them:
//!
//! ```text
//! bits   largest sum of n lines                n
//!  4     8 · 2 · 15 · 127 = 30480              8
//!  5     4 · 2 · 31 · 127 = 31496              4
//!  6     2 · 2 · 63 · 127 = 32004              2
//!  8     1 · 2 · 128 · 127 = 32512             1     of |code - 128| and the input with the sign of code - 128
//!
//! registers, 4 bits:   8 sums, 2 halves of a line, an input, a product          16 rows by 4 tokens
//!            others:   4 sums of 16 bits, 4 of 32, 4 outputs, half a line, …    8 rows by 4 tokens
//! ```
//! Loops over lines stay loops: unrolled, the compiler moves loads up until it spills.

use std::arch::x86_64::*;

use super::micro::{self, Dots, Integers, Line, rolled};
use crate::panel::{Kind, Micro, MicroFn, instance};
use crate::scalar;

/// The proof that this CPU has the features of this tier, for codes of so many bits.
#[derive(Clone, Copy, Debug)]
struct Maddubs<const BITS: u32>(());

impl<const BITS: u32> Dots for Maddubs<BITS> {
    const KEPT: usize = 4;

    #[inline(always)]
    unsafe fn sums<const R: usize, const T: usize>(
        self,
        codes: [*const Line; R],
        lines: usize,
        input: *const u32,
        start: [__m256i; T],
    ) -> Integers<R, T> {
        if BITS == 8 {
            // SAFETY: the contract is the same, and `self` the proof of the features.
            unsafe { signed_sums(codes, lines, input) }
        } else {
            // SAFETY: likewise.
            unsafe { sums::<BITS, R, T>(codes, lines, input, start) }
        }
    }
}

/// See [`Dots::sums`], for codes of up to 6 bits.
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn sums<const BITS: u32, const R: usize, const T: usize>(
    codes: [*const Line; R],
    lines: usize,
    input: *const u32,
    start: [__m256i; T],
) -> Integers<R, T> {
    let room = match BITS {
        4 => 8,
        5 => 4,
        _ => 2,
    };
    let room = room.min(lines);
    let ones = _mm256_set1_epi16(1);
    let mut sums = start.map(|start| [start; R]);
    let (mut codes, mut input) = (codes, input);
    for _ in 0..rolled(lines / room) {
        let mut short = [[_mm256_setzero_si256(); R]; T];
        for _ in 0..rolled(room / 2) {
            for _ in 0..2 {
                // SAFETY: one of `lines` lines.
                let line = unsafe { load(codes) };
                for (t, short) in short.iter_mut().enumerate() {
                    // SAFETY: `T` words a line.
                    let input = _mm256_set1_epi32(unsafe { *input.wrapping_add(t) }.cast_signed());
                    for (short, codes) in short.iter_mut().zip(line) {
                        *short = _mm256_add_epi16(*short, _mm256_maddubs_epi16(codes, input));
                    }
                }
                (codes, input) = (codes.map(|codes| codes.wrapping_add(1)), input.wrapping_add(T));
            }
        }
        for (sum, short) in sums.as_flattened_mut().iter_mut().zip(short.as_flattened()) {
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(*short, ones));
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
unsafe fn signed_sums<const R: usize, const T: usize>(
    codes: [*const Line; R],
    lines: usize,
    input: *const u32,
) -> Integers<R, T> {
    let (ones, zero) = (_mm256_set1_epi16(1), _mm256_set1_epi8(-128));
    let mut sums = [[_mm256_setzero_si256(); R]; T];
    for i in 0..rolled(lines) {
        // SAFETY: one of `lines` lines.
        let line = unsafe { load(codes.map(|codes| codes.wrapping_add(i))) };
        for (r, codes) in line.into_iter().enumerate() {
            let codes = _mm256_xor_si256(codes, zero);
            let magnitudes = _mm256_abs_epi8(codes);
            for (t, sums) in sums.iter_mut().enumerate() {
                // SAFETY: `T` words a line.
                let input = _mm256_set1_epi32(unsafe { *input.wrapping_add(i * T + t) }.cast_signed());
                let short = _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(input, codes));
                sums[r] = _mm256_add_epi32(sums[r], _mm256_madd_epi16(short, ones));
            }
        }
    }
    sums
}

/// The codes of `R` registers of rows in a line.
///
/// # Safety
/// 32 bytes can be read at each of `codes`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn load<const R: usize>(codes: [*const Line; R]) -> [__m256i; R] {
    let mut line = [_mm256_setzero_si256(); R];
    for (line, codes) in line.iter_mut().zip(codes) {
        // SAFETY: by the contract.
        *line = unsafe { _mm256_loadu_si256(codes.cast()) };
    }
    line
}

/// The [`MicroFn`] for a kind of panels.
pub(super) const fn micro(kind: Kind) -> MicroFn {
    match (kind.bits, kind.zero()) {
        (0..=4, _) => panels::<4>,
        (5, _) => panels::<5>,
        (6, _) => panels::<6>,
        (8, 128) => panels::<8>,
        _ => scalar::panel::micro,
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
    let product: unsafe fn(&Micro) = instance!(product::<BITS>, m);
    // SAFETY: the contract is the same; it is the instance for `m`.
    unsafe { product(m) };
}

/// All panels by `T` tokens.
///
/// # Safety
/// As [`micro::product`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn product<const BITS: u32, const T: usize, const HALVES: bool, const MINS: bool>(m: &Micro) {
    let d = Maddubs::<BITS>(());
    if BITS == 4 {
        // SAFETY: the contract is the same, a panel has two registers, and as this function may run, the CPU has its
        // features.
        unsafe { micro::product::<_, 2, T, HALVES, MINS>(d, m) };
    } else {
        // SAFETY: as above.
        unsafe { micro::product::<_, 1, T, HALVES, MINS>(d, m) };
    }
}
