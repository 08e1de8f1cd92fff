//! Sixteen words as two registers: how this tier builds panels.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use crate::panel::ROWS;
use crate::panel::build::{Lanes, Line};

/// The proof that this CPU has the features of this tier.
#[derive(Clone, Copy, Debug)]
pub(in crate::x86) struct Ymm(());

impl Ymm {
    /// # Safety
    /// The CPU has the features of this tier.
    #[inline(always)]
    pub(in crate::x86) unsafe fn new() -> Self {
        Self(())
    }
}

/// One instruction on each register.
macro_rules! each {
    ($op:ident, $a:expr $(, $b:expr)*) => {
        [
            // SAFETY: a value of this type proves that the CPU has the features of this tier.
            unsafe { $op($a[0] $(, $b[0])*) },
            // SAFETY: as above.
            unsafe { $op($a[1] $(, $b[1])*) },
        ]
    };
}

impl Lanes for Ymm {
    type Words = [__m256i; 2];
    type Floats = [__m256; 2];

    #[inline(always)]
    unsafe fn columns(self, at: [*const u8; ROWS]) -> [Self::Words; 4] {
        let [r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11, r12, r13, r14, r15] = at;
        // SAFETY: by the contract of this function, and `self`.
        let first = unsafe { columns([[r0, r4], [r1, r5], [r2, r6], [r3, r7]]) };
        // SAFETY: as above.
        let last = unsafe { columns([[r8, r12], [r9, r13], [r10, r14], [r11, r15]]) };
        [[first[0], last[0]], [first[1], last[1]], [first[2], last[2]], [first[3], last[3]]]
    }

    #[inline(always)]
    fn halves(self, words: Self::Words) -> Self::Floats {
        // SAFETY: `self` is the proof.
        unsafe { halves(words) }
    }

    #[inline(always)]
    fn splat(self, bytes: u32) -> Self::Words {
        // SAFETY: `self` is the proof.
        [unsafe { _mm256_set1_epi32(bytes.cast_signed()) }; 2]
    }

    #[inline(always)]
    fn and(self, a: Self::Words, b: Self::Words) -> Self::Words {
        each!(_mm256_and_si256, a, b)
    }

    #[inline(always)]
    fn or(self, a: Self::Words, b: Self::Words) -> Self::Words {
        each!(_mm256_or_si256, a, b)
    }

    #[inline(always)]
    fn xor(self, a: Self::Words, b: Self::Words) -> Self::Words {
        each!(_mm256_xor_si256, a, b)
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
        each!(_mm256_add_epi32, a, b)
    }

    #[inline(always)]
    fn mul_words(self, a: Self::Words, b: Self::Words) -> Self::Words {
        each!(_mm256_mullo_epi32, a, b)
    }

    #[inline(always)]
    fn floats(self, words: Self::Words) -> Self::Floats {
        each!(_mm256_cvtepi32_ps, words)
    }

    #[inline(always)]
    fn splat_float(self, x: f32) -> Self::Floats {
        // SAFETY: `self` is the proof.
        [unsafe { _mm256_set1_ps(x) }; 2]
    }

    #[inline(always)]
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        each!(_mm256_mul_ps, a, b)
    }

    #[inline(always)]
    fn fma(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        each!(_mm256_fmadd_ps, a, b, c)
    }

    #[inline(always)]
    fn fnma(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        each!(_mm256_fnmadd_ps, a, b, c)
    }

    #[inline(always)]
    fn store(self, words: Self::Words, to: &mut Line) {
        let to: *mut __m256i = to.as_mut_ptr().cast();
        // SAFETY: the first 32 of 64 bytes that can be written, at any address.
        unsafe { _mm256_storeu_si256(to, words[0]) };
        // SAFETY: the last 32.
        unsafe { _mm256_storeu_si256(to.wrapping_add(1), words[1]) };
    }

    #[inline(always)]
    fn store_floats(self, floats: Self::Floats, to: &mut MaybeUninit<[f32; ROWS]>) {
        let to: *mut f32 = to.as_mut_ptr().cast();
        // SAFETY: the first eight of 16 numbers that can be written, at any address.
        unsafe { _mm256_storeu_ps(to, floats[0]) };
        // SAFETY: the last eight.
        unsafe { _mm256_storeu_ps(to.wrapping_add(8), floats[1]) };
    }

    #[inline(always)]
    fn normal(self, scales: &[[f32; ROWS]]) -> bool {
        // SAFETY: `self` is the proof.
        unsafe { normal(scales) }
    }
}

/// Four pairs of rows of 16 bytes, transposed: word `i` of the four first rows, then that of the four second ones.
///
/// # Safety
/// 16 bytes can be read at each address.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn columns(pairs: [[*const u8; 2]; 4]) -> [__m256i; 4] {
    let mut rows = [_mm256_setzero_si256(); 4];
    for (row, [first, second]) in rows.iter_mut().zip(pairs) {
        // SAFETY: by the contract of this function.
        *row = unsafe { _mm256_loadu2_m128i(second.cast(), first.cast()) };
    }
    let [a, b, c, d] = rows;
    let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
    let (ab_high, cd_high) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
    [
        _mm256_unpacklo_epi64(ab, cd),
        _mm256_unpackhi_epi64(ab, cd),
        _mm256_unpacklo_epi64(ab_high, cd_high),
        _mm256_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// The same shift of each register; a constant count becomes part of the instruction.
macro_rules! shift {
    ($name:ident, $op:ident) => {
        #[doc = concat!("See [`Lanes::", stringify!($name), "`].")]
        #[inline]
        #[target_feature(enable = "avx2,fma,f16c")]
        fn $name([a, b]: [__m256i; 2], n: i32) -> [__m256i; 2] {
            let n = _mm_cvtsi32_si128(n);
            [$op(a, n), $op(b, n)]
        }
    };
}

shift!(shl, _mm256_sll_epi32);
shift!(shr, _mm256_srl_epi32);
shift!(sar, _mm256_sra_epi32);

/// See [`Lanes::halves`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn halves([a, b]: [__m256i; 2]) -> [__m256; 2] {
    let low = _mm256_set1_epi32(0xffff);
    let packed = _mm256_packus_epi32(_mm256_and_si256(a, low), _mm256_and_si256(b, low));
    // Packing works within halves of registers.
    let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(packed);
    [_mm256_cvtph_ps(_mm256_castsi256_si128(packed)), _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(packed))]
}

/// See [`Lanes::normal`]. Without the sign, numbers are ordered as their bits are.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn normal(scales: &[[f32; ROWS]]) -> bool {
    let magnitude = _mm256_set1_epi32(0x7fff_ffff);
    let (mut least, mut largest) = (magnitude, _mm256_setzero_si256());
    for scales in scales.as_flattened().as_chunks::<8>().0 {
        // SAFETY: eight numbers.
        let bits = unsafe { _mm256_loadu_si256(scales.as_ptr().cast()) };
        let bits = _mm256_and_si256(bits, magnitude);
        least = _mm256_min_epi32(least, bits);
        largest = _mm256_max_epi32(largest, bits);
    }
    let zero = _mm256_cmpeq_epi32(least, _mm256_setzero_si256());
    let finite = _mm256_cmpgt_epi32(_mm256_castps_si256(_mm256_set1_ps(f32::INFINITY)), largest);
    _mm256_movemask_epi8(_mm256_andnot_si256(zero, finite)) == -1
}
