//! Sixteen numbers as two registers: how this tier runs [`crate::simd`].

use std::arch::x86_64::*;

use super::{codes, lanes::Ymm};
use crate::simd::{Dots, LANES, Plain, Product, Simd, dots, product};

/// Calls an intrinsic of the tier that has no other condition.
macro_rules! cpu {
    ($call:expr) => {{
        // SAFETY: a value of `Ymm` exists only where the CPU has the features.
        unsafe { $call }
    }};
}

/// One instruction on each register.
macro_rules! each {
    ($op:path $(, $a:expr)*) => {
        [cpu!($op($($a[0]),*)), cpu!($op($($a[1]),*))]
    };
}

/// One instruction on each of four registers.
macro_rules! each64 {
    ($op:path $(, $a:expr)*) => {
        [cpu!($op($($a[0]),*)), cpu!($op($($a[1]),*)), cpu!($op($($a[2]),*)), cpu!($op($($a[3]),*))]
    };
}

impl Simd for Ymm {
    type F32 = [__m256; 2];
    type F64 = [__m256d; 4];
    type Codes = __m128i;

    const ROWS: usize = 6;
    const DOTS: (usize, usize) = (2, 3);

    /// Of sixteen registers, two for each sum, two for each column of a line (none with one row, which reads it once),
    /// one for an element.
    #[inline(always)]
    fn columns(rows: usize) -> usize {
        match rows {
            1 => 4,
            2 => 2,
            _ => 1,
        }
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
    fn splat(self, x: f32) -> Self::F32 {
        [cpu!(_mm256_set1_ps(x)); 2]
    }

    #[inline(always)]
    unsafe fn load_at(self, at: *const f32) -> Self::F32 {
        // SAFETY: the first half of what the contract says.
        let low = unsafe { _mm256_loadu_ps(at) };
        // SAFETY: the other half.
        [low, unsafe { _mm256_loadu_ps(at.wrapping_add(8)) }]
    }

    #[inline(always)]
    unsafe fn store_at(self, x: Self::F32, at: *mut f32) {
        // SAFETY: the first half of what the contract says.
        unsafe { _mm256_storeu_ps(at, x[0]) };
        // SAFETY: the other half.
        unsafe { _mm256_storeu_ps(at.wrapping_add(8), x[1]) };
    }

    #[inline(always)]
    fn halves(self, x: [u8; 4]) -> [f32; 2] {
        cpu!(codes::halves(x))
    }

    #[inline(always)]
    fn load_f16(self, x: &[u8; 2 * LANES]) -> Self::F32 {
        let x = cpu!(_mm256_loadu_si256(x.as_ptr().cast()));
        let halves = [cpu!(_mm256_castsi256_si128(x)), cpu!(_mm256_extracti128_si256::<1>(x))];
        each!(_mm256_cvtph_ps, halves)
    }

    #[inline(always)]
    fn store_f16(self, x: Self::F32, out: &mut [u8; 2 * LANES]) {
        let [low, high] = each!(_mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>, x);
        let x = cpu!(_mm256_set_m128i(high, low));
        cpu!(_mm256_storeu_si256(out.as_mut_ptr().cast(), x));
    }

    #[inline(always)]
    fn load_bf16(self, x: &[u8; 2 * LANES]) -> Self::F32 {
        let x = cpu!(_mm256_loadu_si256(x.as_ptr().cast()));
        let halves = [cpu!(_mm256_castsi256_si128(x)), cpu!(_mm256_extracti128_si256::<1>(x))];
        let words = each!(_mm256_cvtepu16_epi32, halves);
        let bits = each!(_mm256_slli_epi32::<16>, words);
        each!(_mm256_castsi256_ps, bits)
    }

    #[inline(always)]
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        each!(_mm256_add_ps, a, b)
    }

    #[inline(always)]
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        each!(_mm256_sub_ps, a, b)
    }

    #[inline(always)]
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        each!(_mm256_mul_ps, a, b)
    }

    #[inline(always)]
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        each!(_mm256_div_ps, a, b)
    }

    #[inline(always)]
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        each!(_mm256_fmadd_ps, a, b, c)
    }

    #[inline(always)]
    fn fnma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        each!(_mm256_fnmadd_ps, a, b, c)
    }

    #[inline(always)]
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        each!(_mm256_max_ps, a, b)
    }

    #[inline(always)]
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        each!(_mm256_min_ps, a, b)
    }

    #[inline(always)]
    fn round(self, x: Self::F32) -> Self::F32 {
        each!(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>, x)
    }

    #[inline(always)]
    fn scale(self, x: Self::F32, n: Self::F32) -> Self::F32 {
        [cpu!(scale(x[0], n[0])), cpu!(scale(x[1], n[1]))]
    }

    #[inline(always)]
    fn keep(self, x: Self::F32, start: i32, end: i32) -> Self::F32 {
        [cpu!(keep(x[0], start, end)), cpu!(keep(x[1], start - 8, end - 8))]
    }

    #[inline(always)]
    fn sum(self, x: Self::F32) -> f32 {
        cpu!(sum(x))
    }

    #[inline(always)]
    fn largest(self, x: Self::F32) -> f32 {
        cpu!(largest(x))
    }

    #[inline(always)]
    fn transpose(self, x: [Self::F32; LANES]) -> [Self::F32; LANES] {
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
    fn bytes(self, x: Self::F32) -> [u8; LANES] {
        let mut bytes = [0; LANES];
        let words = each!(_mm256_cvtps_epi32, x);
        cpu!(codes::store(words, &mut bytes));
        bytes
    }

    #[inline(always)]
    fn floats(self, x: __m128i) -> Self::F32 {
        let halves = [x, cpu!(_mm_srli_si128::<8>(x))];
        let words = each!(_mm256_cvtepi8_epi32, halves);
        each!(_mm256_cvtepi32_ps, words)
    }

    #[inline(always)]
    fn splat64(self, x: f64) -> Self::F64 {
        [cpu!(_mm256_set1_pd(x)); 4]
    }

    #[inline(always)]
    fn widen(self, x: Self::F32) -> Self::F64 {
        let [a, c] = each!(_mm256_castps256_ps128, x);
        let [b, d] = each!(_mm256_extractf128_ps::<1>, x);
        let quarters = [a, b, c, d];
        each64!(_mm256_cvtps_pd, quarters)
    }

    #[inline(always)]
    fn narrow(self, x: Self::F64) -> Self::F32 {
        let [a, b, c, d] = each64!(_mm256_cvtpd_ps, x);
        [cpu!(_mm256_set_m128(b, a)), cpu!(_mm256_set_m128(d, c))]
    }

    #[inline(always)]
    fn add64(self, a: Self::F64, b: Self::F64) -> Self::F64 {
        each64!(_mm256_add_pd, a, b)
    }

    #[inline(always)]
    fn sub64(self, a: Self::F64, b: Self::F64) -> Self::F64 {
        each64!(_mm256_sub_pd, a, b)
    }

    #[inline(always)]
    fn mul64(self, a: Self::F64, b: Self::F64) -> Self::F64 {
        each64!(_mm256_mul_pd, a, b)
    }

    #[inline(always)]
    fn fma64(self, a: Self::F64, b: Self::F64, c: Self::F64) -> Self::F64 {
        each64!(_mm256_fmadd_pd, a, b, c)
    }

    #[inline(always)]
    fn sum64(self, x: Self::F64) -> f64 {
        cpu!(sum64(x))
    }
}

/// [`product`] by numbers of rows and columns.
///
/// # Safety
/// As there.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn product_of<E: Plain>(ymm: Ymm, p: &Product, columns: usize) {
    macro_rules! by_numbers {
        ($($rows:literal, $columns:literal;)*) => {
            match (p.rows, columns) {
                // SAFETY: the same contract, for these numbers.
                $(($rows, $columns) => unsafe { product::<Ymm, E, $rows, $columns>(ymm, p) },)*
                _ => debug_assert!(false, "{} rows, {columns} columns", p.rows),
            }
        };
    }
    by_numbers! {
        1, 1; 1, 2; 1, 3; 1, 4;
        2, 1; 2, 2;
        3, 1; 4, 1; 5, 1; 6, 1;
    }
}

/// [`dots`] by numbers of rows and tokens.
///
/// # Safety
/// As there.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dots_of(ymm: Ymm, d: &Dots) {
    macro_rules! by_numbers {
        ($($rows:literal, $tokens:literal;)*) => {
            match (d.rows, d.tokens) {
                // SAFETY: the same contract, for these numbers.
                $(($rows, $tokens) => unsafe { dots::<Ymm, $rows, $tokens>(ymm, d) },)*
                _ => debug_assert!(false, "{} rows, {} tokens", d.rows, d.tokens),
            }
        };
    }
    by_numbers! {
        1, 1; 1, 2; 1, 3;
        2, 1; 2, 2; 2, 3;
    }
}

/// In two steps, as one power of two might not be a normal number; the first product is exact.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn scale(x: __m256, n: __m256) -> __m256 {
    let n = _mm256_cvtps_epi32(n);
    let half = _mm256_srai_epi32::<1>(n);
    let power = |n| _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127))));
    _mm256_mul_ps(_mm256_mul_ps(x, power(half)), power(_mm256_sub_epi32(n, half)))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn keep(x: __m256, start: i32, end: i32) -> __m256 {
    let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    let before = _mm256_cmpgt_epi32(_mm256_set1_epi32(start), lanes);
    let inside = _mm256_andnot_si256(before, _mm256_cmpgt_epi32(_mm256_set1_epi32(end), lanes));
    _mm256_blendv_ps(_mm256_set1_ps(f32::NEG_INFINITY), x, _mm256_castsi256_ps(inside))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sum([low, high]: [__m256; 2]) -> f32 {
    let x = _mm256_add_ps(low, high);
    let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn largest([low, high]: [__m256; 2]) -> f32 {
    let x = _mm256_max_ps(low, high);
    let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sum64([a, b, c, d]: [__m256d; 4]) -> f64 {
    let x = _mm256_add_pd(_mm256_add_pd(a, c), _mm256_add_pd(b, d));
    let x = _mm_add_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd::<1>(x));
    _mm_cvtsd_f64(_mm_add_sd(x, _mm_unpackhi_pd(x, x)))
}

/// Four squares of eight.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn transpose(x: [[__m256; 2]; LANES]) -> [[__m256; 2]; LANES] {
    let mut out = x;
    for rows in 0..2 {
        for columns in 0..2 {
            let mut square = [_mm256_setzero_ps(); 8];
            for (i, line) in square.iter_mut().enumerate() {
                *line = x[8 * rows + i][columns];
            }
            for (i, line) in transpose_square(square).into_iter().enumerate() {
                out[8 * columns + i][rows] = line;
            }
        }
    }
    out
}

/// Within lanes of 128 bits, four rows at a time; then those lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn transpose_square(x: [__m256; 8]) -> [__m256; 8] {
    // Lane `l` of `x[4 g + c]`: column `4 l + c` of rows `4 g .. 4 g + 4`.
    let mut x = x;
    for g in [0, 4] {
        let a = _mm256_castps_pd(_mm256_unpacklo_ps(x[g], x[g + 1]));
        let b = _mm256_castps_pd(_mm256_unpackhi_ps(x[g], x[g + 1]));
        let c = _mm256_castps_pd(_mm256_unpacklo_ps(x[g + 2], x[g + 3]));
        let d = _mm256_castps_pd(_mm256_unpackhi_ps(x[g + 2], x[g + 3]));
        x[g] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
        x[g + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
        x[g + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
        x[g + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
    }
    let mut out = x;
    for c in 0..4 {
        out[c] = _mm256_permute2f128_ps::<0x20>(x[c], x[4 + c]);
        out[4 + c] = _mm256_permute2f128_ps::<0x31>(x[c], x[4 + c]);
    }
    out
}
