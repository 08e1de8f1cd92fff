//! The micro-kernel: 8 rows by four tokens.
//!
//! ```text
//! registers: 8 sums (4 rows each), 8 outputs, 2 registers of a line, its inputs: a lane a token
//! a line:    for 4 tokens, 2 registers:  sdot sum, codes, inputs[token]
//! ```
//! `sdot` multiplies i8 by i8: codes of up to 6 bits are that already, those of 8 bits are made less by 128. A register
//! of inputs serves all tokens of a line, so 3 loads feed 8 products, of which cores start two to four a cycle. All 16
//! rows of a panel would need 32 registers for sums and outputs alone; outputs in memory cost a store each, on the same
//! units.

use std::arch::asm;

use crate::aarch64::neon::intrinsics::*;
use crate::aarch64::neon::micro::{self, Based, Dots, Line, REGISTERS, bases};
use crate::panel::{Kind, Micro, MicroFn, instance};
use crate::quantized::TILE;
use crate::scalar;

/// The proof that this CPU has the features of this tier; codes of 8 bits, or of fewer.
#[derive(Clone, Copy, Debug)]
struct Sdot<const EIGHT: bool>(());

impl<const EIGHT: bool> Dots for Sdot<EIGHT> {
    #[inline(always)]
    unsafe fn sums<const T: usize>(self, codes: *const Line, lines: usize, input: *const u32) -> Based<T> {
        // SAFETY: the contract is the same; `self` is the proof of the features.
        unsafe { sums::<EIGHT, T>(codes, lines, input) }
    }
}

/// See [`Dots::sums`].
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn sums<const EIGHT: bool, const T: usize>(codes: *const Line, lines: usize, input: *const u32) -> Based<T> {
    let bases: [_; REGISTERS * TILE] = bases(codes);
    let mut sums = [[bases[0]; REGISTERS]; T];
    for (sum, base) in sums.as_flattened_mut().iter_mut().zip(bases) {
        *sum = base;
    }
    macro_rules! token {
        ($line:literal, $t:literal, $codes:ident) => {
            if $t < T {
                let word = $line * T + $t;
                // SAFETY: four of the `lines * T` words, a multiple of four, of which this is one.
                let inputs = unsafe { vld1q_u32(input.wrapping_add(word / 4 * 4)) };
                for (sum, codes) in sums[$t].iter_mut().zip($codes) {
                    // SAFETY: registers only; the CPU has the instruction.
                    unsafe {
                        asm!("sdot {sum:v}.4s, {codes:v}.16b, {inputs:v}.4b[{lane}]", sum = inout(vreg) *sum,
                            codes = in(vreg) codes, inputs = in(vreg) inputs, lane = const ($line * T + $t) % 4,
                            options(pure, nomem, nostack, preserves_flags));
                    }
                }
            }
        };
    }
    macro_rules! line {
        ($line:literal) => {
            if $line < lines {
                // SAFETY: the codes of 8 rows in one of `lines` lines.
                let codes = unsafe { load::<EIGHT>(codes.wrapping_add($line)) };
                token!($line, 0, codes);
                token!($line, 1, codes);
                token!($line, 2, codes);
                token!($line, 3, codes);
            }
        };
    }
    line!(0);
    line!(1);
    line!(2);
    line!(3);
    line!(4);
    line!(5);
    line!(6);
    line!(7);
    // A closure would have the features of this function, and `map` has not: it would be a call.
    let mut based = [[vdupq_n_f32(0.0); REGISTERS]; T];
    for (based, sum) in based.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
        *based = vreinterpretq_f32_s32(*sum);
    }
    based
}

/// The codes of 8 rows, as signed numbers.
///
/// # Safety
/// 32 bytes can be read.
#[inline(always)]
unsafe fn load<const EIGHT: bool>(codes: *const Line) -> [int8x16_t; REGISTERS] {
    let codes: *const i8 = codes.cast();
    // SAFETY: by the contract.
    let first = unsafe { vld1q_s8(codes) };
    // SAFETY: likewise.
    let line = [first, unsafe { vld1q_s8(codes.wrapping_add(16)) }];
    if EIGHT { line.map(|codes| veorq_s8(codes, vdupq_n_s8(-128))) } else { line }
}

/// The [`MicroFn`] for a kind of panels.
pub(in crate::aarch64) const fn micro(kind: Kind) -> MicroFn {
    match (kind.bits, kind.zero()) {
        (0..=6, _) => panels::<false>,
        (8, 128) => panels::<true>,
        _ => scalar::panel::micro,
    }
}

/// A [`MicroFn`].
///
/// # Safety
/// As there.
#[target_feature(enable = "neon,dotprod")]
unsafe fn panels<const EIGHT: bool>(m: &Micro) {
    let product: unsafe fn(&Micro) = instance!(product::<EIGHT>, m);
    // SAFETY: the contract is the same; it is the instance for `m`.
    unsafe { product(m) };
}

/// All panels by `T` tokens.
///
/// # Safety
/// As [`micro::product`].
#[target_feature(enable = "neon,dotprod")]
unsafe fn product<const EIGHT: bool, const T: usize, const HALVES: bool, const MINS: bool>(m: &Micro) {
    // SAFETY: the contract is the same; as this function may run, the CPU has its features.
    unsafe { micro::product::<_, T, HALVES, MINS>(Sdot::<EIGHT>(()), m) };
}
