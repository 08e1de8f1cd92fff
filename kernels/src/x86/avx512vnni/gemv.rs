//! Products with a tile of tokens, or two.

use std::arch::x86_64::*;

use super::lanes::Zmm;
use crate::panel::Sums;
use crate::panel::build::Source;
use crate::panel::gemv::{Gemv, GemvFn};
use crate::x86::gemv::{self, Dot};

/// The proof that this CPU has the features of this tier.
#[derive(Clone, Copy, Debug)]
struct Vnni(Zmm);

impl Dot for Vnni {
    type Lanes = Zmm;
    const EIGHT: u32 = 8;
    const CENTRED: bool = false;

    #[inline(always)]
    fn lanes(self) -> Zmm {
        self.0
    }

    #[inline(always)]
    fn dot(self, _bits: u32, sum: __m512i, codes: __m512i, input: u32) -> __m512i {
        // SAFETY: `self` is the proof.
        unsafe { dot(sum, codes, input) }
    }

    #[inline(always)]
    fn total(self, _bits: u32, sum: __m512i) -> __m512i {
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
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn dot(sum: __m512i, codes: __m512i, input: u32) -> __m512i {
    _mm512_dpbusd_epi32(sum, codes, _mm512_set1_epi32(input.cast_signed()))
}

/// A [`GemvFn`].
///
/// # Safety
/// As there.
pub(in crate::x86) unsafe fn gemv<F: Source>(g: &Gemv<'_>, out: *mut Sums) {
    let tile: GemvFn = match g.tokens {
        1 => one::<F>,
        2 => tile::<F, 2>,
        3 => tile::<F, 3>,
        4 => tile::<F, 4>,
        _ => tiles::<F>,
    };
    // SAFETY: the contract is the same; it is the function for so many tokens.
    unsafe { tile(g, out) };
}

/// A [`GemvFn`] for one token.
///
/// # Safety
/// As there.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn one<F: Source>(g: &Gemv<'_>, out: *mut Sums) {
    // SAFETY: as this function may run, the CPU has its features.
    let lanes = unsafe { Zmm::new() };
    // SAFETY: the contract is the same.
    unsafe { gemv::gemv::<F, Vnni, 1, 1>(Vnni(lanes), g, out) };
}

/// A [`GemvFn`] for `T` tokens.
///
/// # Safety
/// As there.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn tile<F: Source, const T: usize>(g: &Gemv<'_>, out: *mut Sums) {
    // SAFETY: as this function may run, the CPU has its features.
    let lanes = unsafe { Zmm::new() };
    // SAFETY: the contract is the same.
    unsafe { gemv::gemv::<F, Vnni, T, 1>(Vnni(lanes), g, out) };
}

/// A [`GemvFn`] for two tiles of four tokens: weights are taken apart once for both.
///
/// # Safety
/// As there.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn tiles<F: Source>(g: &Gemv<'_>, out: *mut Sums) {
    // SAFETY: as this function may run, the CPU has its features.
    let lanes = unsafe { Zmm::new() };
    // SAFETY: the contract is the same.
    unsafe { gemv::gemv::<F, Vnni, 4, 2>(Vnni(lanes), g, out) };
}
