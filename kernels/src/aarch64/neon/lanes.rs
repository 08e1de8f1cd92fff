//! Sixteen words as four registers: how the tiers of Arm build panels.
//!
//! NEON is part of every 64-bit Arm that this crate is compiled for: nothing has to be proved to use it.

use std::mem::MaybeUninit;

use super::half;
use super::intrinsics::*;
use crate::panel::ROWS;
use crate::panel::build::{Lanes, Line};

/// Vectors of NEON.
#[derive(Clone, Copy, Debug)]
pub(in crate::aarch64) struct Neon;

/// One instruction on each register.
macro_rules! each {
    ($op:path $(, $a:expr)*) => {
        [$op($($a[0]),*), $op($($a[1]),*), $op($($a[2]),*), $op($($a[3]),*)]
    };
}
pub(super) use each;

impl Lanes for Neon {
    type Words = [uint32x4_t; 4];
    type Floats = [float32x4_t; 4];

    #[inline(always)]
    unsafe fn columns(self, at: [*const u8; ROWS]) -> [Self::Words; 4] {
        let mut columns = [[vdupq_n_u32(0); 4]; 4];
        for four in 0..4 {
            let mut rows = [vdupq_n_u32(0); 4];
            for row in 0..4 {
                // SAFETY: 16 bytes, by the contract of this function.
                rows[row] = unsafe { vreinterpretq_u32_u8(vld1q_u8(at[4 * four + row])) };
            }
            for (column, words) in columns.iter_mut().zip(transpose(rows)) {
                column[four] = words;
            }
        }
        columns
    }

    #[inline(always)]
    fn halves(self, words: Self::Words) -> Self::Floats {
        let [a, b, c, d] = each!(vmovn_u32, words);
        [half::widen_low(a), half::widen_low(b), half::widen_low(c), half::widen_low(d)]
    }

    #[inline(always)]
    fn splat(self, bytes: u32) -> Self::Words {
        [vdupq_n_u32(bytes); 4]
    }

    #[inline(always)]
    fn and(self, a: Self::Words, b: Self::Words) -> Self::Words {
        each!(vandq_u32, a, b)
    }

    #[inline(always)]
    fn or(self, a: Self::Words, b: Self::Words) -> Self::Words {
        each!(vorrq_u32, a, b)
    }

    #[inline(always)]
    fn xor(self, a: Self::Words, b: Self::Words) -> Self::Words {
        each!(veorq_u32, a, b)
    }

    #[inline(always)]
    fn shl(self, a: Self::Words, n: i32) -> Self::Words {
        let n = [vdupq_n_s32(n); 4];
        each!(vshlq_u32, a, n)
    }

    #[inline(always)]
    fn shr(self, a: Self::Words, n: i32) -> Self::Words {
        self.shl(a, -n)
    }

    #[inline(always)]
    fn sar(self, a: Self::Words, n: i32) -> Self::Words {
        let (a, n) = (each!(vreinterpretq_s32_u32, a), [vdupq_n_s32(-n); 4]);
        let shifted = each!(vshlq_s32, a, n);
        each!(vreinterpretq_u32_s32, shifted)
    }

    #[inline(always)]
    fn mul_words(self, a: Self::Words, b: Self::Words) -> Self::Words {
        each!(vmulq_u32, a, b)
    }

    #[inline(always)]
    fn floats(self, words: Self::Words) -> Self::Floats {
        let words = each!(vreinterpretq_s32_u32, words);
        each!(vcvtq_f32_s32, words)
    }

    #[inline(always)]
    fn splat_float(self, x: f32) -> Self::Floats {
        [vdupq_n_f32(x); 4]
    }

    #[inline(always)]
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        each!(vmulq_f32, a, b)
    }

    #[inline(always)]
    fn fma(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        each!(vfmaq_f32, c, a, b)
    }

    #[inline(always)]
    fn store(self, words: Self::Words, to: &mut Line) {
        let to: *mut u32 = to.as_mut_ptr().cast();
        for (i, words) in words.into_iter().enumerate() {
            // SAFETY: 16 of 64 bytes that can be written.
            unsafe { vst1q_u32(to.wrapping_add(4 * i), words) };
        }
    }

    #[inline(always)]
    fn store_floats(self, floats: Self::Floats, to: &mut MaybeUninit<[f32; ROWS]>) {
        let to: *mut f32 = to.as_mut_ptr().cast();
        for (i, floats) in floats.into_iter().enumerate() {
            // SAFETY: four of 16 numbers that can be written.
            unsafe { vst1q_f32(to.wrapping_add(4 * i), floats) };
        }
    }

    /// Without the sign, numbers are ordered as their bits are.
    #[inline(always)]
    fn normal(self, scales: &[[f32; ROWS]]) -> bool {
        let magnitude = vdupq_n_u32(0x7fff_ffff);
        let (mut least, mut largest) = (magnitude, vdupq_n_u32(0));
        for scales in scales.as_flattened().as_chunks::<4>().0 {
            // SAFETY: four numbers.
            let bits = vandq_u32(vreinterpretq_u32_f32(unsafe { vld1q_f32(scales.as_ptr()) }), magnitude);
            least = vminq_u32(least, bits);
            largest = vmaxq_u32(largest, bits);
        }
        vminvq_u32(least) != 0 && vmaxvq_u32(largest) < f32::INFINITY.to_bits()
    }
}

/// Rows of words become columns.
#[inline(always)]
pub(in crate::aarch64) fn transpose([a, b, c, d]: [uint32x4_t; 4]) -> [uint32x4_t; 4] {
    let pairs = [vzip1q_u32(a, b), vzip2q_u32(a, b), vzip1q_u32(c, d), vzip2q_u32(c, d)];
    let [ab, ab_high, cd, cd_high] = pairs.map(vreinterpretq_u64_u32);
    [vzip1q_u64(ab, cd), vzip2q_u64(ab, cd), vzip1q_u64(ab_high, cd_high), vzip2q_u64(ab_high, cd_high)]
        .map(vreinterpretq_u32_u64)
}
