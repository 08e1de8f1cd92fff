//! Sixteen numbers as four registers: how the tiers of Arm run [`crate::simd`].

use super::half;
use super::intrinsics::*;
use super::lanes::{Neon, each, transpose};
use super::packed::signed_words;
use crate::aarch64::mem;
use crate::simd::{Dots, LANES, Plain, Product, Simd, dots, product};

/// One instruction on each of eight registers.
macro_rules! each64 {
    ($op:path $(, $a:expr)*) => {
        [
            $op($($a[0]),*), $op($($a[1]),*), $op($($a[2]),*), $op($($a[3]),*),
            $op($($a[4]),*), $op($($a[5]),*), $op($($a[6]),*), $op($($a[7]),*),
        ]
    };
}

impl Simd for Neon {
    type F32 = [float32x4_t; 4];
    type F64 = [float64x2_t; 8];
    type Codes = uint8x16_t;

    const ROWS: usize = 6;
    const DOTS: (usize, usize) = (2, 2);

    /// Of 32 registers, four for each sum, four for each column of a line (none with one row, which reads it once), one
    /// for an element.
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
        // SAFETY: the same contract.
        unsafe { product_of::<E>(p, columns) }
    }

    #[inline(always)]
    unsafe fn dots(self, d: &Dots) {
        // SAFETY: the same contract.
        unsafe { dots_of(d) }
    }

    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        mem::ask(at);
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F32 {
        [vdupq_n_f32(x); 4]
    }

    #[inline(always)]
    unsafe fn load_at(self, at: *const f32) -> Self::F32 {
        let mut x = self.splat(0.0);
        for (i, x) in x.iter_mut().enumerate() {
            // SAFETY: a quarter of what the contract says.
            *x = unsafe { vld1q_f32(at.wrapping_add(4 * i)) };
        }
        x
    }

    #[inline(always)]
    unsafe fn store_at(self, x: Self::F32, at: *mut f32) {
        for (i, x) in x.into_iter().enumerate() {
            // SAFETY: a quarter of what the contract says.
            unsafe { vst1q_f32(at.wrapping_add(4 * i), x) };
        }
    }

    #[inline(always)]
    fn halves(self, x: [u8; 4]) -> [f32; 2] {
        let x = half::widen_low(vreinterpret_u16_u32(vdup_n_u32(u32::from_le_bytes(x))));
        [vgetq_lane_f32::<0>(x), vgetq_lane_f32::<1>(x)]
    }

    #[inline(always)]
    fn load_f16(self, x: &[u8; 2 * LANES]) -> Self::F32 {
        let [first, last] = sixteens(x).map(half::widen);
        [first[0], first[1], last[0], last[1]]
    }

    #[inline(always)]
    fn store_f16(self, x: Self::F32, out: &mut [u8; 2 * LANES]) {
        let [a, b, c, d] = each!(half::narrow, x);
        for (out, halves) in out.as_chunks_mut::<16>().0.iter_mut().zip([vcombine_u16(a, b), vcombine_u16(c, d)]) {
            // SAFETY: 16 bytes.
            unsafe { vst1q_u8(out.as_mut_ptr(), vreinterpretq_u8_u16(halves)) };
        }
    }

    #[inline(always)]
    fn load_bf16(self, x: &[u8; 2 * LANES]) -> Self::F32 {
        let zero = vdupq_n_u16(0);
        let [a, b] = sixteens(x);
        [vzip1q_u16(zero, a), vzip2q_u16(zero, a), vzip1q_u16(zero, b), vzip2q_u16(zero, b)].map(vreinterpretq_f32_u16)
    }

    #[inline(always)]
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        each!(vaddq_f32, a, b)
    }

    #[inline(always)]
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        each!(vsubq_f32, a, b)
    }

    #[inline(always)]
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        each!(vmulq_f32, a, b)
    }

    #[inline(always)]
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        each!(vdivq_f32, a, b)
    }

    #[inline(always)]
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        each!(vfmaq_f32, c, a, b)
    }

    #[inline(always)]
    fn fnma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        each!(vfmsq_f32, c, a, b)
    }

    /// Not `fmax`, which gives NaN if one is.
    #[inline(always)]
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        let larger = each!(vcgtq_f32, a, b);
        each!(vbslq_f32, larger, a, b)
    }

    #[inline(always)]
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        let smaller = each!(vcltq_f32, a, b);
        each!(vbslq_f32, smaller, a, b)
    }

    #[inline(always)]
    fn round(self, x: Self::F32) -> Self::F32 {
        each!(vrndnq_f32, x)
    }

    #[inline(always)]
    fn scale(self, x: Self::F32, n: Self::F32) -> Self::F32 {
        each!(scale, x, n)
    }

    #[inline(always)]
    fn keep(self, x: Self::F32, start: i32, end: i32) -> Self::F32 {
        let mut kept = x;
        for (i, kept) in kept.iter_mut().enumerate() {
            let first = 4 * i as i32;
            *kept = keep(*kept, start.saturating_sub(first), end.saturating_sub(first));
        }
        kept
    }

    #[inline(always)]
    fn sum(self, [a, b, c, d]: Self::F32) -> f32 {
        let x = vaddq_f32(vaddq_f32(a, c), vaddq_f32(b, d));
        let x = vadd_f32(vget_low_f32(x), vget_high_f32(x));
        vget_lane_f32::<0>(x) + vget_lane_f32::<1>(x)
    }

    #[inline(always)]
    fn largest(self, [a, b, c, d]: Self::F32) -> f32 {
        vmaxvq_f32(vmaxq_f32(vmaxq_f32(a, b), vmaxq_f32(c, d)))
    }

    #[inline(always)]
    fn transpose(self, x: [Self::F32; LANES]) -> [Self::F32; LANES] {
        let mut out = x;
        for rows in 0..4 {
            for columns in 0..4 {
                let square: [_; 4] = std::array::from_fn(|i| vreinterpretq_u32_f32(x[4 * rows + i][columns]));
                for (i, line) in transpose(square).into_iter().enumerate() {
                    out[4 * columns + i][rows] = vreinterpretq_f32_u32(line);
                }
            }
        }
        out
    }

    #[inline(always)]
    fn codes(self, bytes: &[u8; LANES]) -> uint8x16_t {
        // SAFETY: sixteen bytes.
        unsafe { vld1q_u8(bytes.as_ptr()) }
    }

    #[inline(always)]
    fn field(self, x: uint8x16_t, from: i32, mask: u8, to: i32) -> uint8x16_t {
        let bits = vandq_u8(vshlq_u8(x, vdupq_n_s8(-from as i8)), vdupq_n_u8(mask));
        vshlq_u8(bits, vdupq_n_s8(to as i8))
    }

    #[inline(always)]
    fn or(self, a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        vorrq_u8(a, b)
    }

    #[inline(always)]
    fn bits(self, bits: u16) -> uint8x16_t {
        let [low, high] = bits.to_le_bytes();
        let each = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
        vtstq_u8(vcombine_u8(vdup_n_u8(low), vdup_n_u8(high)), each)
    }

    #[inline(always)]
    fn look_up(self, table: &[i8; LANES], x: uint8x16_t) -> uint8x16_t {
        // SAFETY: sixteen bytes.
        vqtbl1q_u8(unsafe { vld1q_u8(table.as_ptr().cast()) }, x)
    }

    #[inline(always)]
    fn bytes(self, x: Self::F32) -> [u8; LANES] {
        let [a, b, c, d] = each!(vcvtnq_s32_f32, x);
        let low = vcombine_s16(vqmovn_s32(a), vqmovn_s32(b));
        let high = vcombine_s16(vqmovn_s32(c), vqmovn_s32(d));
        let mut bytes = [0; LANES];
        // SAFETY: sixteen bytes.
        unsafe { vst1q_s8(bytes.as_mut_ptr().cast(), vcombine_s8(vqmovn_s16(low), vqmovn_s16(high))) };
        bytes
    }

    #[inline(always)]
    fn floats(self, x: uint8x16_t) -> Self::F32 {
        let words = signed_words(vreinterpretq_s8_u8(x));
        each!(vcvtq_f32_s32, words)
    }

    #[inline(always)]
    fn splat64(self, x: f64) -> Self::F64 {
        [vdupq_n_f64(x); 8]
    }

    #[inline(always)]
    fn widen(self, [a, b, c, d]: Self::F32) -> Self::F64 {
        let wide = |x| [vcvt_f64_f32(vget_low_f32(x)), vcvt_high_f64_f32(x)];
        let ([a, b], [c, d], [e, f], [g, h]) = (wide(a), wide(b), wide(c), wide(d));
        [a, b, c, d, e, f, g, h]
    }

    #[inline(always)]
    fn narrow(self, [a, b, c, d, e, f, g, h]: Self::F64) -> Self::F32 {
        let narrow = |a, b| vcvt_high_f32_f64(vcvt_f32_f64(a), b);
        [narrow(a, b), narrow(c, d), narrow(e, f), narrow(g, h)]
    }

    #[inline(always)]
    fn add64(self, a: Self::F64, b: Self::F64) -> Self::F64 {
        each64!(vaddq_f64, a, b)
    }

    #[inline(always)]
    fn sub64(self, a: Self::F64, b: Self::F64) -> Self::F64 {
        each64!(vsubq_f64, a, b)
    }

    #[inline(always)]
    fn mul64(self, a: Self::F64, b: Self::F64) -> Self::F64 {
        each64!(vmulq_f64, a, b)
    }

    #[inline(always)]
    fn fma64(self, a: Self::F64, b: Self::F64, c: Self::F64) -> Self::F64 {
        each64!(vfmaq_f64, c, a, b)
    }

    #[inline(always)]
    fn sum64(self, [a, b, c, d, e, f, g, h]: Self::F64) -> f64 {
        let (x, y) = (vaddq_f64(vaddq_f64(a, e), vaddq_f64(c, g)), vaddq_f64(vaddq_f64(b, f), vaddq_f64(d, h)));
        let x = vaddq_f64(x, y);
        vgetq_lane_f64::<0>(x) + vgetq_lane_f64::<1>(x)
    }
}

/// [`product`] by numbers of rows and columns.
///
/// # Safety
/// As there.
unsafe fn product_of<E: Plain>(p: &Product, columns: usize) {
    macro_rules! by_numbers {
        ($($rows:literal, $columns:literal;)*) => {
            match (p.rows, columns) {
                // SAFETY: the same contract, for these numbers.
                $(($rows, $columns) => unsafe { product::<Neon, E, $rows, $columns>(Neon, p) },)*
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
unsafe fn dots_of(d: &Dots) {
    macro_rules! by_numbers {
        ($($rows:literal, $tokens:literal;)*) => {
            match (d.rows, d.tokens) {
                // SAFETY: the same contract, for these numbers.
                $(($rows, $tokens) => unsafe { dots::<Neon, $rows, $tokens>(Neon, d) },)*
                _ => debug_assert!(false, "{} rows, {} tokens", d.rows, d.tokens),
            }
        };
    }
    by_numbers! { 1, 1; 1, 2; 2, 1; 2, 2; }
}

/// Two registers of two-byte elements.
#[inline(always)]
fn sixteens(x: &[u8; 2 * LANES]) -> [uint16x8_t; 2] {
    // SAFETY: the first 16 bytes.
    let first = unsafe { vld1q_u8(x.as_ptr()) };
    // SAFETY: the last 16.
    let last = unsafe { vld1q_u8(x.as_ptr().wrapping_add(16)) };
    [vreinterpretq_u16_u8(first), vreinterpretq_u16_u8(last)]
}

/// In two steps, as one power of two might not be a normal number; the first product is exact.
#[inline(always)]
fn scale(x: float32x4_t, n: float32x4_t) -> float32x4_t {
    let n = vcvtnq_s32_f32(n);
    let half = vshrq_n_s32::<1>(n);
    let power = |n| vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(n, vdupq_n_s32(127))));
    vmulq_f32(vmulq_f32(x, power(half)), power(vsubq_s32(n, half)))
}

#[inline(always)]
fn keep(x: float32x4_t, start: i32, end: i32) -> float32x4_t {
    // SAFETY: four numbers.
    let lanes = unsafe { vld1q_s32([0, 1, 2, 3].as_ptr()) };
    let inside = vandq_u32(vcgeq_s32(lanes, vdupq_n_s32(start)), vcltq_s32(lanes, vdupq_n_s32(end)));
    vbslq_f32(inside, x, vdupq_n_f32(f32::NEG_INFINITY))
}
