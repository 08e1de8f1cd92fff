//! Sixteen numbers as one register: how this tier runs [`crate::simd`].

use std::arch::x86_64::*;

use super::super::avx2::codes;
use super::lanes::Zmm;
use crate::simd::{Dots, LANES, Plain, Product, Simd, dots, product};

/// Calls an intrinsic of the tier that has no other condition.
macro_rules! cpu {
    ($call:expr) => {{
        // SAFETY: a value of `Zmm` exists only where the CPU has the features.
        unsafe { $call }
    }};
}

impl Simd for Zmm {
    type F32 = __m512;
    type F64 = [__m512d; 2];
    type Codes = __m128i;

    const ROWS: usize = 6;
    const DOTS: (usize, usize) = (4, 6);

    #[inline(always)]
    fn columns(_: usize) -> usize {
        4
    }

    #[inline(always)]
    unsafe fn product<E: Plain>(self, p: &Product, columns: usize) {
        // SAFETY: the same contract; the value is the proof of the features.
        unsafe { product_of::<E>(self, p, columns) }
    }

    #[inline(always)]
    unsafe fn dots(self, d: &Dots) {
        // SAFETY: the same contract; the value is the proof of the features.
        unsafe { dots_of(self, d) }
    }

    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        cpu!(_mm_prefetch::<_MM_HINT_T0>(at.cast()))
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        cpu!(_mm512_set1_ps(x))
    }

    #[inline(always)]
    unsafe fn load_at(self, at: *const f32) -> __m512 {
        // SAFETY: the same contract.
        unsafe { _mm512_loadu_ps(at) }
    }

    #[inline(always)]
    unsafe fn store_at(self, x: __m512, at: *mut f32) {
        // SAFETY: the same contract.
        unsafe { _mm512_storeu_ps(at, x) }
    }

    #[inline(always)]
    fn halves(self, x: [u8; 4]) -> [f32; 2] {
        cpu!(codes::halves(x))
    }

    #[inline(always)]
    fn load_f16(self, x: &[u8; 2 * LANES]) -> __m512 {
        let x = cpu!(_mm256_loadu_si256(x.as_ptr().cast()));
        cpu!(_mm512_cvtph_ps(x))
    }

    #[inline(always)]
    fn store_f16(self, x: __m512, out: &mut [u8; 2 * LANES]) {
        let x = cpu!(_mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x));
        cpu!(_mm256_storeu_si256(out.as_mut_ptr().cast(), x))
    }

    #[inline(always)]
    fn load_bf16(self, x: &[u8; 2 * LANES]) -> __m512 {
        let x = cpu!(_mm256_loadu_si256(x.as_ptr().cast()));
        let x = cpu!(_mm512_cvtepu16_epi32(x));
        let x = cpu!(_mm512_slli_epi32::<16>(x));
        cpu!(_mm512_castsi512_ps(x))
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        cpu!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        cpu!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        cpu!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        cpu!(_mm512_div_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        cpu!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn fnma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        cpu!(_mm512_fnmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        cpu!(_mm512_max_ps(a, b))
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        cpu!(_mm512_min_ps(a, b))
    }

    #[inline(always)]
    fn round(self, x: __m512) -> __m512 {
        cpu!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x))
    }

    #[inline(always)]
    fn scale(self, x: __m512, n: __m512) -> __m512 {
        cpu!(_mm512_scalef_ps(x, n))
    }

    #[inline(always)]
    fn keep(self, x: __m512, start: i32, end: i32) -> __m512 {
        let below = |lane: i32| (1u32 << lane.clamp(0, LANES as i32)) - 1;
        let mask = (below(end) & !below(start)) as __mmask16;
        cpu!(_mm512_mask_blend_ps(mask, self.splat(f32::NEG_INFINITY), x))
    }

    #[inline(always)]
    fn sum(self, x: __m512) -> f32 {
        cpu!(sum(x))
    }

    #[inline(always)]
    fn largest(self, x: __m512) -> f32 {
        cpu!(largest(x))
    }

    #[inline(always)]
    fn transpose(self, x: [__m512; LANES]) -> [__m512; LANES] {
        cpu!(transpose(x))
    }

    #[inline(always)]
    fn codes(self, bytes: &[u8; LANES]) -> __m128i {
        cpu!(codes::load(bytes))
    }

    #[inline(always)]
    fn field(self, x: __m128i, from: i32, mask: u8, to: i32) -> __m128i {
        cpu!(codes::field(x, from, mask, to))
    }

    #[inline(always)]
    fn or(self, a: __m128i, b: __m128i) -> __m128i {
        cpu!(codes::or(a, b))
    }

    #[inline(always)]
    fn bits(self, bits: u16) -> __m128i {
        cpu!(codes::bits(bits))
    }

    #[inline(always)]
    fn look_up(self, table: &[i8; LANES], x: __m128i) -> __m128i {
        cpu!(codes::look_up(table, x))
    }

    #[inline(always)]
    fn bytes(self, x: __m512) -> [u8; LANES] {
        let mut bytes = [0; LANES];
        let words = cpu!(_mm512_cvtps_epi32(x));
        let x = cpu!(_mm512_cvtepi32_epi8(words));
        cpu!(_mm_storeu_si128(bytes.as_mut_ptr().cast(), x));
        bytes
    }

    #[inline(always)]
    fn floats(self, x: __m128i) -> Self::F32 {
        let x = cpu!(_mm512_cvtepi8_epi32(x));
        cpu!(_mm512_cvtepi32_ps(x))
    }

    #[inline(always)]
    fn splat64(self, x: f64) -> [__m512d; 2] {
        [cpu!(_mm512_set1_pd(x)); 2]
    }

    #[inline(always)]
    fn widen(self, x: __m512) -> [__m512d; 2] {
        let (low, high) = (cpu!(_mm512_castps512_ps256(x)), cpu!(_mm512_extractf32x8_ps::<1>(x)));
        [cpu!(_mm512_cvtps_pd(low)), cpu!(_mm512_cvtps_pd(high))]
    }

    #[inline(always)]
    fn narrow(self, [low, high]: [__m512d; 2]) -> __m512 {
        let (low, high) = (cpu!(_mm512_cvtpd_ps(low)), cpu!(_mm512_cvtpd_ps(high)));
        let low = cpu!(_mm512_castps256_ps512(low));
        cpu!(_mm512_insertf32x8::<1>(low, high))
    }

    #[inline(always)]
    fn add64(self, a: [__m512d; 2], b: [__m512d; 2]) -> [__m512d; 2] {
        [cpu!(_mm512_add_pd(a[0], b[0])), cpu!(_mm512_add_pd(a[1], b[1]))]
    }

    #[inline(always)]
    fn sub64(self, a: [__m512d; 2], b: [__m512d; 2]) -> [__m512d; 2] {
        [cpu!(_mm512_sub_pd(a[0], b[0])), cpu!(_mm512_sub_pd(a[1], b[1]))]
    }

    #[inline(always)]
    fn mul64(self, a: [__m512d; 2], b: [__m512d; 2]) -> [__m512d; 2] {
        [cpu!(_mm512_mul_pd(a[0], b[0])), cpu!(_mm512_mul_pd(a[1], b[1]))]
    }

    #[inline(always)]
    fn fma64(self, a: [__m512d; 2], b: [__m512d; 2], c: [__m512d; 2]) -> [__m512d; 2] {
        [cpu!(_mm512_fmadd_pd(a[0], b[0], c[0])), cpu!(_mm512_fmadd_pd(a[1], b[1], c[1]))]
    }

    #[inline(always)]
    fn sum64(self, [low, high]: [__m512d; 2]) -> f64 {
        let x = cpu!(_mm512_add_pd(low, high));
        cpu!(sum64(x))
    }
}

/// [`product`] by numbers of rows and columns.
///
/// # Safety
/// As there.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn product_of<E: Plain>(zmm: Zmm, p: &Product, columns: usize) {
    macro_rules! by_numbers {
        ($($rows:literal, $columns:literal;)*) => {
            match (p.rows, columns) {
                // SAFETY: the same contract, for these numbers.
                $(($rows, $columns) => unsafe { product::<Zmm, E, $rows, $columns>(zmm, p) },)*
                _ => debug_assert!(false, "{} rows, {columns} columns", p.rows),
            }
        };
    }
    by_numbers! {
        1, 1; 1, 2; 1, 3; 1, 4;
        2, 1; 2, 2; 2, 3; 2, 4;
        3, 1; 3, 2; 3, 3; 3, 4;
        4, 1; 4, 2; 4, 3; 4, 4;
        5, 1; 5, 2; 5, 3; 5, 4;
        6, 1; 6, 2; 6, 3; 6, 4;
    }
}

/// [`dots`] by numbers of rows and tokens.
///
/// # Safety
/// As there.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn dots_of(zmm: Zmm, d: &Dots) {
    macro_rules! by_numbers {
        ($($rows:literal, $tokens:literal;)*) => {
            match (d.rows, d.tokens) {
                // SAFETY: the same contract, for these numbers.
                $(($rows, $tokens) => unsafe { dots::<Zmm, $rows, $tokens>(zmm, d) },)*
                _ => debug_assert!(false, "{} rows, {} tokens", d.rows, d.tokens),
            }
        };
    }
    by_numbers! {
        1, 1; 1, 2; 1, 3; 1, 4; 1, 5; 1, 6;
        2, 1; 2, 2; 2, 3; 2, 4; 2, 5; 2, 6;
        3, 1; 3, 2; 3, 3; 3, 4; 3, 5; 3, 6;
        4, 1; 4, 2; 4, 3; 4, 4; 4, 5; 4, 6;
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn sum(x: __m512) -> f32 {
    let x = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x));
    let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn largest(x: __m512) -> f32 {
    let x = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x));
    let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn sum64(x: __m512d) -> f64 {
    let x = _mm256_add_pd(_mm512_castpd512_pd256(x), _mm512_extractf64x4_pd::<1>(x));
    let x = _mm_add_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd::<1>(x));
    _mm_cvtsd_f64(_mm_add_sd(x, _mm_unpackhi_pd(x, x)))
}

/// Within lanes of 128 bits, four rows at a time; then those lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn transpose(x: [__m512; LANES]) -> [__m512; LANES] {
    // Lane `l` of `x[4 g + c]`: column `4 l + c` of rows `4 g .. 4 g + 4`.
    let mut x = x;
    for g in (0..LANES).step_by(4) {
        let a = _mm512_castps_pd(_mm512_unpacklo_ps(x[g], x[g + 1]));
        let b = _mm512_castps_pd(_mm512_unpackhi_ps(x[g], x[g + 1]));
        let c = _mm512_castps_pd(_mm512_unpacklo_ps(x[g + 2], x[g + 3]));
        let d = _mm512_castps_pd(_mm512_unpackhi_ps(x[g + 2], x[g + 3]));
        x[g] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        x[g + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        x[g + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        x[g + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
    let mut out = x;
    for c in 0..4 {
        let even = _mm512_shuffle_f32x4::<0x88>(x[c], x[4 + c]);
        let odd = _mm512_shuffle_f32x4::<0xdd>(x[c], x[4 + c]);
        let even_high = _mm512_shuffle_f32x4::<0x88>(x[8 + c], x[12 + c]);
        let odd_high = _mm512_shuffle_f32x4::<0xdd>(x[8 + c], x[12 + c]);
        out[c] = _mm512_shuffle_f32x4::<0x88>(even, even_high);
        out[4 + c] = _mm512_shuffle_f32x4::<0x88>(odd, odd_high);
        out[8 + c] = _mm512_shuffle_f32x4::<0xdd>(even, even_high);
        out[12 + c] = _mm512_shuffle_f32x4::<0xdd>(odd, odd_high);
    }
    out
}
