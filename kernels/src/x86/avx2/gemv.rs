//! Products with one tile of tokens.

use std::arch::x86_64::*;

use super::lanes::Ymm;
use crate::panel::Sums;
use crate::panel::build::Source;
use crate::panel::gemv::{Gemv, GemvFn};
use crate::x86::gemv::{self, Dot};

/// The proof that this CPU has the features of this tier.
#[derive(Clone, Copy, Debug)]
struct Maddubs(Ymm);

impl Dot for Maddubs {
    type Lanes = Ymm;
    const EIGHT: u32 = 4;
    const CENTRED: bool = true;

    #[inline(always)]
    fn lanes(self) -> Ymm {
        self.0
    }

    #[inline(always)]
    fn dot(self, bits: u32, sum: [__m256i; 2], codes: [__m256i; 2], input: u32) -> [__m256i; 2] {
        // SAFETY: `self` is the proof.
        unsafe { dot(bits, sum, codes, input) }
    }

    #[inline(always)]
    fn total(self, bits: u32, sum: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: `self` is the proof.
        if bits <= SHORT { unsafe { widened(sum) } } else { sum }
    }

    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        // SAFETY: a hint; it does not fault, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
}

/// Sums of four lines of such codes stay 16 bits wide: 4 · 2 · 31 · 127 = 31496.
const SHORT: u32 = 5;

/// See [`Dot::dot`]. Two products fit 16 bits: 2 · 63 · 127 = 16002, and 2 · 128 · 127 = 32512 of the magnitudes of
/// codes of 8 bits around 128.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot(bits: u32, mut sum: [__m256i; 2], codes: [__m256i; 2], input: u32) -> [__m256i; 2] {
    let input = _mm256_set1_epi32(input.cast_signed());
    for r in 0..2 {
        let pairs = if bits == 8 {
            let codes = _mm256_xor_si256(codes[r], _mm256_set1_epi8(-128));
            _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(input, codes))
        } else {
            _mm256_maddubs_epi16(codes[r], input)
        };
        sum[r] = if bits <= SHORT {
            _mm256_add_epi16(sum[r], pairs)
        } else {
            _mm256_add_epi32(sum[r], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        };
    }
    sum
}

/// Sums of 16 bits, two by two.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn widened([first, last]: [__m256i; 2]) -> [__m256i; 2] {
    let ones = _mm256_set1_epi16(1);
    [_mm256_madd_epi16(first, ones), _mm256_madd_epi16(last, ones)]
}

/// A [`GemvFn`].
///
/// # Safety
/// As there.
pub(in crate::x86) unsafe fn gemv<F: Source>(g: &Gemv<'_>, out: *mut Sums) {
    let tile: GemvFn = match g.tokens {
        1 => tile::<F, 1>,
        2 => tile::<F, 2>,
        3 => tile::<F, 3>,
        _ => tile::<F, 4>,
    };
    // SAFETY: the contract is the same; it is the function for so many tokens.
    unsafe { tile(g, out) };
}

/// A [`GemvFn`] for `T` tokens.
///
/// # Safety
/// As there.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<F: Source, const T: usize>(g: &Gemv<'_>, out: *mut Sums) {
    // SAFETY: as this function may run, the CPU has its features.
    let lanes = unsafe { Ymm::new() };
    // SAFETY: the contract is the same.
    unsafe { gemv::gemv::<F, Maddubs, T, 1>(Maddubs(lanes), g, out) };
}
