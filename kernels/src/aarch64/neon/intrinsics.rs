//! The intrinsics that the tiers of Arm use. Those that work on registers are safe here: NEON belongs to every 64-bit
//! Arm that this crate is compiled for.

use std::arch::aarch64;
pub(in crate::aarch64) use std::arch::aarch64::{
    float32x2_t, float32x4_t, float64x2_t, int8x8_t, int8x16_t, int16x4_t, int16x8_t, int32x4_t, uint8x8_t, uint8x16_t,
    uint16x4_t, uint16x8_t, uint32x2_t, uint32x4_t, uint64x2_t, vld1q_f32, vld1q_s8, vld1q_s32, vld1q_u8, vld1q_u32,
    vst1q_f32, vst1q_s8, vst1q_u8, vst1q_u32,
};

const _: () = assert!(cfg!(target_feature = "neon"));

/// Safe functions of these names.
macro_rules! safe {
    ($($name:ident$(<$n:ident>)?($($arg:ident: $ty:ty),*) -> $out:ty;)*) => {$(
        #[doc = concat!("See [`std::arch::aarch64::", stringify!($name), "`].")]
        #[inline(always)]
        pub(in crate::aarch64) fn $name$(<const $n: i32>)?($($arg: $ty),*) -> $out {
            // SAFETY: registers only; the assertion above says that NEON is there.
            unsafe { aarch64::$name$(::<$n>)?($($arg),*) }
        }
    )*};
}

safe! {
    vabsq_f32(a: float32x4_t) -> float32x4_t;
    vadd_f32(a: float32x2_t, b: float32x2_t) -> float32x2_t;
    vaddlvq_s8(a: int8x16_t) -> i16;
    vaddq_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t;
    vaddq_f64(a: float64x2_t, b: float64x2_t) -> float64x2_t;
    vaddq_s32(a: int32x4_t, b: int32x4_t) -> int32x4_t;
    vandq_u32(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t;
    vandq_u8(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t;
    vbslq_f32(mask: uint32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t;
    vbslq_u8(mask: uint8x16_t, a: uint8x16_t, b: uint8x16_t) -> uint8x16_t;
    vcgeq_s32(a: int32x4_t, b: int32x4_t) -> uint32x4_t;
    vcgtq_f32(a: float32x4_t, b: float32x4_t) -> uint32x4_t;
    vcltq_f32(a: float32x4_t, b: float32x4_t) -> uint32x4_t;
    vcltq_s32(a: int32x4_t, b: int32x4_t) -> uint32x4_t;
    vcombine_s16(low: int16x4_t, high: int16x4_t) -> int16x8_t;
    vcombine_s8(low: int8x8_t, high: int8x8_t) -> int8x16_t;
    vcombine_u16(low: uint16x4_t, high: uint16x4_t) -> uint16x8_t;
    vcombine_u8(low: uint8x8_t, high: uint8x8_t) -> uint8x16_t;
    vcvt_f32_f64(a: float64x2_t) -> float32x2_t;
    vcvt_f64_f32(a: float32x2_t) -> float64x2_t;
    vcvt_high_f32_f64(low: float32x2_t, a: float64x2_t) -> float32x4_t;
    vcvt_high_f64_f32(a: float32x4_t) -> float64x2_t;
    vcvtnq_s32_f32(a: float32x4_t) -> int32x4_t;
    vcvtq_f32_s32(a: int32x4_t) -> float32x4_t;
    vdivq_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t;
    vdup_n_u32(x: u32) -> uint32x2_t;
    vdup_n_u8(x: u8) -> uint8x8_t;
    vdupq_n_f32(x: f32) -> float32x4_t;
    vdupq_n_f64(x: f64) -> float64x2_t;
    vdupq_n_s16(x: i16) -> int16x8_t;
    vdupq_n_s32(x: i32) -> int32x4_t;
    vdupq_n_s8(x: i8) -> int8x16_t;
    vdupq_n_u16(x: u16) -> uint16x8_t;
    vdupq_n_u32(x: u32) -> uint32x4_t;
    vdupq_n_u64(x: u64) -> uint64x2_t;
    vdupq_n_u8(x: u8) -> uint8x16_t;
    veorq_s8(a: int8x16_t, b: int8x16_t) -> int8x16_t;
    veorq_u32(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t;
    veorq_u8(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t;
    vfmaq_f32(c: float32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t;
    vfmaq_f64(c: float64x2_t, a: float64x2_t, b: float64x2_t) -> float64x2_t;
    vfmaq_n_f32(c: float32x4_t, a: float32x4_t, b: f32) -> float32x4_t;
    vfmsq_f32(c: float32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t;
    vget_high_f32(a: float32x4_t) -> float32x2_t;
    vget_lane_f32<LANE>(a: float32x2_t) -> f32;
    vget_low_f32(a: float32x4_t) -> float32x2_t;
    vget_low_s16(a: int16x8_t) -> int16x4_t;
    vget_low_s8(a: int8x16_t) -> int8x8_t;
    vget_low_u16(a: uint16x8_t) -> uint16x4_t;
    vget_low_u8(a: uint8x16_t) -> uint8x8_t;
    vgetq_lane_f32<LANE>(a: float32x4_t) -> f32;
    vgetq_lane_f64<LANE>(a: float64x2_t) -> f64;
    vmaxq_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t;
    vmaxq_u32(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t;
    vmaxvq_f32(a: float32x4_t) -> f32;
    vmaxvq_u32(a: uint32x4_t) -> u32;
    vminq_u32(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t;
    vminvq_u32(a: uint32x4_t) -> u32;
    vmlal_high_s8(c: int16x8_t, a: int8x16_t, b: int8x16_t) -> int16x8_t;
    vmlal_s8(c: int16x8_t, a: int8x8_t, b: int8x8_t) -> int16x8_t;
    vmovl_high_s16(a: int16x8_t) -> int32x4_t;
    vmovl_high_s8(a: int8x16_t) -> int16x8_t;
    vmovl_high_u16(a: uint16x8_t) -> uint32x4_t;
    vmovl_high_u8(a: uint8x16_t) -> uint16x8_t;
    vmovl_s16(a: int16x4_t) -> int32x4_t;
    vmovl_s8(a: int8x8_t) -> int16x8_t;
    vmovl_u16(a: uint16x4_t) -> uint32x4_t;
    vmovl_u8(a: uint8x8_t) -> uint16x8_t;
    vmovn_u32(a: uint32x4_t) -> uint16x4_t;
    vmulq_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t;
    vmulq_f64(a: float64x2_t, b: float64x2_t) -> float64x2_t;
    vmulq_n_f32(a: float32x4_t, b: f32) -> float32x4_t;
    vmulq_u32(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t;
    vorrq_u32(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t;
    vorrq_u8(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t;
    vpadalq_s16(c: int32x4_t, a: int16x8_t) -> int32x4_t;
    vpaddlq_s16(a: int16x8_t) -> int32x4_t;
    vpaddq_s32(a: int32x4_t, b: int32x4_t) -> int32x4_t;
    vqmovn_s16(a: int16x8_t) -> int8x8_t;
    vqmovn_s32(a: int32x4_t) -> int16x4_t;
    vqtbl1q_u8(table: uint8x16_t, x: uint8x16_t) -> uint8x16_t;
    vreinterpret_u16_u32(a: uint32x2_t) -> uint16x4_t;
    vreinterpretq_f32_s32(a: int32x4_t) -> float32x4_t;
    vreinterpretq_f32_u16(a: uint16x8_t) -> float32x4_t;
    vreinterpretq_f32_u32(a: uint32x4_t) -> float32x4_t;
    vreinterpretq_s16_s32(a: int32x4_t) -> int16x8_t;
    vreinterpretq_s32_s16(a: int16x8_t) -> int32x4_t;
    vreinterpretq_s32_u32(a: uint32x4_t) -> int32x4_t;
    vreinterpretq_s8_u32(a: uint32x4_t) -> int8x16_t;
    vreinterpretq_s8_u8(a: uint8x16_t) -> int8x16_t;
    vreinterpretq_u16_u8(a: uint8x16_t) -> uint16x8_t;
    vreinterpretq_u32_f32(a: float32x4_t) -> uint32x4_t;
    vreinterpretq_u32_s32(a: int32x4_t) -> uint32x4_t;
    vreinterpretq_u32_u64(a: uint64x2_t) -> uint32x4_t;
    vreinterpretq_u32_u8(a: uint8x16_t) -> uint32x4_t;
    vreinterpretq_u64_u32(a: uint32x4_t) -> uint64x2_t;
    vreinterpretq_u8_u16(a: uint16x8_t) -> uint8x16_t;
    vreinterpretq_u8_u32(a: uint32x4_t) -> uint8x16_t;
    vreinterpretq_u8_u64(a: uint64x2_t) -> uint8x16_t;
    vrndnq_f32(a: float32x4_t) -> float32x4_t;
    vshlq_n_s32<N>(a: int32x4_t) -> int32x4_t;
    vshlq_n_u8<N>(a: uint8x16_t) -> uint8x16_t;
    vshlq_s32(a: int32x4_t, n: int32x4_t) -> int32x4_t;
    vshlq_u32(a: uint32x4_t, n: int32x4_t) -> uint32x4_t;
    vshlq_u8(a: uint8x16_t, n: int8x16_t) -> uint8x16_t;
    vshrq_n_s32<N>(a: int32x4_t) -> int32x4_t;
    vshrq_n_s8<N>(a: int8x16_t) -> int8x16_t;
    vshrq_n_u8<N>(a: uint8x16_t) -> uint8x16_t;
    vsliq_n_u8<N>(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t;
    vsraq_n_s8<N>(a: int8x16_t, b: int8x16_t) -> int8x16_t;
    vsubq_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t;
    vsubq_f64(a: float64x2_t, b: float64x2_t) -> float64x2_t;
    vsubq_s32(a: int32x4_t, b: int32x4_t) -> int32x4_t;
    vtstq_u8(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t;
    vuzp1q_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t;
    vuzp2q_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t;
    vzip1q_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t;
    vzip1q_u16(a: uint16x8_t, b: uint16x8_t) -> uint16x8_t;
    vzip1q_u32(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t;
    vzip1q_u64(a: uint64x2_t, b: uint64x2_t) -> uint64x2_t;
    vzip1q_u8(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t;
    vzip2q_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t;
    vzip2q_u16(a: uint16x8_t, b: uint16x8_t) -> uint16x8_t;
    vzip2q_u32(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t;
    vzip2q_u64(a: uint64x2_t, b: uint64x2_t) -> uint64x2_t;
    vzip2q_u8(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t;
}
