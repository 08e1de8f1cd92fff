//! Products with one tile of tokens.

use std::arch::x86_64::*;

use crate::panel::Sums;
use crate::panel::build::Source;
use crate::panel::gemv::{Gemv, GemvFn};
use crate::x86::avx2::lanes::Ymm;
use crate::x86::gemv::{self, Dot};

/// The proof that this CPU has the features of this tier.
#[derive(Clone, Copy, Debug)]
struct Vnni(Ymm);

impl Dot for Vnni {
    type Lanes = Ymm;
    const EIGHT: u32 = 8;
    const CENTRED: bool = false;

    #[inline(always)]
    fn lanes(self) -> Ymm {
        self.0
    }

    #[inline(always)]
    fn dot(self, _bits: u32, sum: [__m256i; 2], codes: [__m256i; 2], input: u32) -> [__m256i; 2] {
        // SAFETY: `self` is the proof.
        unsafe { dot(sum, codes, input) }
    }

    #[inline(always)]
    fn total(self, _bits: u32, sum: [__m256i; 2]) -> [__m256i; 2] {
        sum
    }

    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        // SAFETY: a hint; it does not fault, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
}

/// See [`Dot::dot`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
fn dot(mut sum: [__m256i; 2], codes: [__m256i; 2], input: u32) -> [__m256i; 2] {
    let input = _mm256_set1_epi32(input.cast_signed());
    for r in 0..2 {
        sum[r] = _mm256_dpbusd_avx_epi32(sum[r], codes[r], input);
    }
    sum
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
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
unsafe fn tile<F: Source, const T: usize>(g: &Gemv<'_>, out: *mut Sums) {
    // SAFETY: as this function may run, the CPU has its features.
    let lanes = unsafe { Ymm::new() };
    // SAFETY: the contract is the same.
    unsafe { gemv::gemv::<F, Vnni, T, 1>(Vnni(lanes), g, out) };
}
