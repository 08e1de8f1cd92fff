//! Sixteen words as one register: how this tier builds panels.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use crate::panel::ROWS;
use crate::panel::build::{Lanes, Line};

/// The proof that this CPU has the features of this tier.
#[derive(Clone, Copy, Debug)]
pub(super) struct Zmm(());

impl Zmm {
    /// # Safety
    /// The CPU has the features of this tier.
    #[inline(always)]
    pub(super) unsafe fn new() -> Self {
        Self(())
    }
}

impl Lanes for Zmm {
    type Words = __m512i;
    type Floats = __m512;

    #[inline(always)]
    unsafe fn columns(self, at: [*const u8; ROWS]) -> [Self::Words; 4] {
        // SAFETY: the same contract, and `self`.
        unsafe { columns(at) }
    }

    #[inline(always)]
    fn halves(self, words: Self::Words) -> Self::Floats {
        // SAFETY: `self` is the proof.
        unsafe { halves(words) }
    }

    #[inline(always)]
    fn splat(self, bytes: u32) -> Self::Words {
        // SAFETY: `self` is the proof.
        unsafe { _mm512_set1_epi32(bytes.cast_signed()) }
    }

    #[inline(always)]
    fn and(self, a: Self::Words, b: Self::Words) -> Self::Words {
        // SAFETY: `self` is the proof.
        unsafe { _mm512_and_si512(a, b) }
    }

    #[inline(always)]
    fn or(self, a: Self::Words, b: Self::Words) -> Self::Words {
        // SAFETY: `self` is the proof.
        unsafe { _mm512_or_si512(a, b) }
    }

    #[inline(always)]
    fn xor(self, a: Self::Words, b: Self::Words) -> Self::Words {
        // SAFETY: `self` is the proof.
        unsafe { _mm512_xor_si512(a, b) }
    }

    #[inline(always)]
    fn shl(self, a: Self::Words, n: i32) -> Self::Words {
        // SAFETY: `self` is the proof.
        unsafe { shl(a, n) }
    }

    #[inline(always)]
    fn shr(self, a: Self::Words, n: i32) -> Self::Words {
        // SAFETY: `self` is the proof.
        unsafe { shr(a, n) }
    }

    #[inline(always)]
    fn sar(self, a: Self::Words, n: i32) -> Self::Words {
        // SAFETY: `self` is the proof.
        unsafe { sar(a, n) }
    }

    #[inline(always)]
    fn add(self, a: Self::Words, b: Self::Words) -> Self::Words {
        // SAFETY: `self` is the proof.
        unsafe { _mm512_add_epi32(a, b) }
    }

    #[inline(always)]
    fn mul_words(self, a: Self::Words, b: Self::Words) -> Self::Words {
        // SAFETY: `self` is the proof.
        unsafe { _mm512_mullo_epi32(a, b) }
    }

    #[inline(always)]
    fn floats(self, words: Self::Words) -> Self::Floats {
        // SAFETY: `self` is the proof.
        unsafe { _mm512_cvtepi32_ps(words) }
    }

    #[inline(always)]
    fn splat_float(self, x: f32) -> Self::Floats {
        // SAFETY: `self` is the proof.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        // SAFETY: `self` is the proof.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        // SAFETY: `self` is the proof.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn fnma(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        // SAFETY: `self` is the proof.
        unsafe { _mm512_fnmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn store(self, words: Self::Words, to: &mut Line) {
        // SAFETY: 64 bytes that can be written, at any address.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), words) };
    }

    #[inline(always)]
    fn store_floats(self, floats: Self::Floats, to: &mut MaybeUninit<[f32; ROWS]>) {
        // SAFETY: 16 numbers that can be written, at any address.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr().cast(), floats) };
    }

    #[inline(always)]
    fn normal(self, scales: &[[f32; ROWS]]) -> bool {
        // SAFETY: `self` is the proof.
        unsafe { normal(scales) }
    }
}

/// See [`Lanes::columns`].
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn columns(at: [*const u8; ROWS]) -> [__m512i; 4] {
    let mut rows = [_mm512_setzero_si512(); 4];
    let (at, _) = at.as_chunks::<4>();
    let [first, second, third, fourth] = *at else { return rows };
    for (i, row) in rows.iter_mut().enumerate() {
        // SAFETY: by the contract of this function.
        let first = unsafe { _mm_loadu_si128(first[i].cast()) };
        // SAFETY: as above.
        let second = unsafe { _mm_loadu_si128(second[i].cast()) };
        // SAFETY: as above.
        let third = unsafe { _mm_loadu_si128(third[i].cast()) };
        // SAFETY: as above.
        let fourth = unsafe { _mm_loadu_si128(fourth[i].cast()) };
        *row = _mm512_castsi128_si512(first);
        *row = _mm512_inserti32x4::<1>(*row, second);
        *row = _mm512_inserti32x4::<2>(*row, third);
        *row = _mm512_inserti32x4::<3>(*row, fourth);
    }
    let [a, b, c, d] = rows;
    let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
    let (ab_high, cd_high) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(ab, cd),
        _mm512_unpackhi_epi64(ab, cd),
        _mm512_unpacklo_epi64(ab_high, cd_high),
        _mm512_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// A shift; a constant count becomes part of the instruction.
macro_rules! shift {
    ($name:ident, $op:ident) => {
        #[doc = concat!("See [`Lanes::", stringify!($name), "`].")]
        #[inline]
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
        fn $name(a: __m512i, n: i32) -> __m512i {
            $op(a, _mm_cvtsi32_si128(n))
        }
    };
}

shift!(shl, _mm512_sll_epi32);
shift!(shr, _mm512_srl_epi32);
shift!(sar, _mm512_sra_epi32);

/// See [`Lanes::halves`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn halves(words: __m512i) -> __m512 {
    _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words))
}

/// See [`Lanes::normal`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn normal(scales: &[[f32; ROWS]]) -> bool {
    // Quiet NaN, both zeros, both infinities, signalling NaN.
    const CLASSES: i32 = 0b1001_1111;
    let mut found = 0;
    for scales in scales {
        // SAFETY: sixteen numbers.
        let scales = unsafe { _mm512_loadu_ps(scales.as_ptr()) };
        found |= _mm512_fpclass_ps_mask::<CLASSES>(scales);
    }
    found == 0
}
