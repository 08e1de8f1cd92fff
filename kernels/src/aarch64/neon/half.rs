//! Conversions of half-precision numbers: `asm!`, as the types of their intrinsics came to stable Rust after 1.89.

use std::arch::asm;

use super::intrinsics::*;

/// Widens four halves, exactly.
#[inline(always)]
pub(super) fn widen_low(halves: uint16x4_t) -> float32x4_t {
    let wide;
    // SAFETY: registers only; every 64-bit Arm has this instruction.
    unsafe {
        asm!("fcvtl {wide:v}.4s, {halves:v}.4h", wide = lateout(vreg) wide, halves = in(vreg) halves,
            options(pure, nomem, nostack, preserves_flags));
    }
    wide
}

/// Widens eight halves, exactly.
#[inline(always)]
pub(super) fn widen(halves: uint16x8_t) -> [float32x4_t; 2] {
    let high;
    // SAFETY: registers only; every 64-bit Arm has this instruction.
    unsafe {
        asm!("fcvtl2 {wide:v}.4s, {halves:v}.8h", wide = lateout(vreg) high, halves = in(vreg) halves,
            options(pure, nomem, nostack, preserves_flags));
    }
    [widen_low(vget_low_u16(halves)), high]
}

/// Rounds to halves, ties to even.
#[inline(always)]
pub(super) fn narrow(x: float32x4_t) -> uint16x4_t {
    let halves;
    // SAFETY: registers only; every 64-bit Arm has this instruction.
    unsafe {
        asm!("fcvtn {halves:v}.4h, {x:v}.4s", halves = lateout(vreg) halves, x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags));
    }
    halves
}
