//! Rows of stored panels.

use super::half;
use super::intrinsics::*;
use super::lanes::{Neon, each};
use crate::panel::build::StoredLanes;

impl StoredLanes for Neon {
    #[inline(always)]
    unsafe fn line(self, at: *const u8) -> Self::Words {
        let mut line = [vdupq_n_u32(0); 4];
        for (i, words) in line.iter_mut().enumerate() {
            // SAFETY: 16 of 64 bytes; by the contract of this function.
            *words = unsafe { vreinterpretq_u32_u8(vld1q_u8(at.wrapping_add(16 * i))) };
        }
        line
    }

    #[inline(always)]
    unsafe fn half_row(self, at: *const u8) -> Self::Floats {
        // SAFETY: the first eight numbers; by the contract of this function.
        let [a, b] = half::widen(unsafe { vreinterpretq_u16_u8(vld1q_u8(at)) });
        // SAFETY: the last eight.
        let [c, d] = half::widen(unsafe { vreinterpretq_u16_u8(vld1q_u8(at.wrapping_add(16))) });
        [a, b, c, d]
    }

    #[inline(always)]
    unsafe fn bytes(self, at: *const u8) -> Self::Words {
        // SAFETY: by the contract of this function.
        words(unsafe { vld1q_u8(at) })
    }

    #[inline(always)]
    unsafe fn signed_bytes(self, at: *const u8) -> Self::Words {
        // SAFETY: by the contract of this function.
        let words = signed_words(unsafe { vreinterpretq_s8_u8(vld1q_u8(at)) });
        each!(vreinterpretq_u32_s32, words)
    }

    #[inline(always)]
    unsafe fn signed_numbers(self, at: *const u8) -> Self::Floats {
        // SAFETY: by the contract of this function.
        let raised = veorq_u8(unsafe { vld1q_u8(at) }, vdupq_n_u8(0x80));
        floats::<128>(raised)
    }

    /// On bytes, which become words last.
    #[inline(always)]
    unsafe fn six_bits(
        self,
        [lower, upper]: [*const u8; 2],
        odd: bool,
        [d, dmin]: [Self::Floats; 2],
    ) -> [Self::Floats; 2] {
        let (four, two) = (vdupq_n_u8(0xf), vdupq_n_u8(0x30));
        // SAFETY: by the contract.
        let lower = unsafe { vld1q_u8(lower) };
        // SAFETY: likewise.
        let upper = unsafe { vld1q_u8(upper) };
        let upper = vshlq_u8(upper, vdupq_n_s8(if odd { -4 } else { 0 }));
        let scale = vorrq_u8(vandq_u8(lower, four), vandq_u8(vshlq_n_u8::<4>(upper), two));
        let min = vorrq_u8(vshrq_n_u8::<4>(lower), vandq_u8(vshlq_n_u8::<2>(upper), two));
        let (scale, min) = (floats::<0>(scale), floats::<0>(min));
        [each!(vmulq_f32, d, scale), each!(vmulq_f32, dmin, min)]
    }
}

/// Each byte, less `ZERO`, a number: the last bits of 2^23, which is then taken away. A conversion would take twice the
/// time.
#[inline(always)]
fn floats<const ZERO: u32>(bytes: uint8x16_t) -> [float32x4_t; 4] {
    const UNIT: f32 = (1 << 23) as f32;
    let (zero, upper) = (vdupq_n_u8(0), vdupq_n_u16((UNIT.to_bits() >> 16) as u16));
    let [low, high] = [vzip1q_u8(bytes, zero), vzip2q_u8(bytes, zero)].map(vreinterpretq_u16_u8);
    let words = [vzip1q_u16(low, upper), vzip2q_u16(low, upper), vzip1q_u16(high, upper), vzip2q_u16(high, upper)];
    words.map(|words| vsubq_f32(vreinterpretq_f32_u16(words), vdupq_n_f32(UNIT + ZERO as f32)))
}

/// Each byte, a word.
#[inline(always)]
fn words(bytes: uint8x16_t) -> [uint32x4_t; 4] {
    let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes));
    [vmovl_u16(vget_low_u16(low)), vmovl_high_u16(low), vmovl_u16(vget_low_u16(high)), vmovl_high_u16(high)]
}

/// Each signed byte, a word.
#[inline(always)]
pub(super) fn signed_words(bytes: int8x16_t) -> [int32x4_t; 4] {
    let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
    [vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)), vmovl_high_s16(high)]
}
