//! The micro-kernel: 8 rows by four tokens, and products of few tokens.
//!
//! `smlal` adds the products of eight i8 by eight i8 in 16 bits, two rows by four inputs. Sums of a group, or of half
//! of one, have room there, but for codes of 8 bits:
//!
//! ```text
//! bits   lines   largest sum                n lines
//!  4       8     8 · 15 · 127 = 15240
//!  5       8     8 · 31 · 127 = 31496
//!  6       4     4 · 63 · 127 = 32004       two scales a group
//!  8       2     2 · 128 · 127 = 32512      codes less 128; pairs of lines are added up in 32 bits by `sadalp`
//! ```

use super::gemv::{self, Dot};
use super::intrinsics::*;
use super::lanes::each;
use super::micro::{self, BASE, Based, Dots, Line, REGISTERS};
use crate::panel::build::Source;
use crate::panel::gemv::Gemv;
use crate::panel::{Kind, Micro, MicroFn, Sums, instance};
use crate::scalar;

/// Codes of 8 bits, or of fewer.
#[derive(Clone, Copy, Debug)]
struct Smlal<const EIGHT: bool>;

/// Sums of four rows: of the first two, and of the others; two or four lanes a row.
type Parts = [int32x4_t; 2];

impl<const EIGHT: bool> Dots for Smlal<EIGHT> {
    #[inline(always)]
    unsafe fn sums<const T: usize>(self, codes: *const Line, lines: usize, input: *const u32) -> Based<T> {
        let mut sums = [[[vdupq_n_s32(0); 2]; REGISTERS]; T];
        let pair = if EIGHT { 2 } else { lines };
        for first in (0..lines).step_by(pair) {
            let mut short = [[[vdupq_n_s16(0); 2]; REGISTERS]; T];
            for line in first..first + pair {
                // SAFETY: the codes of 8 rows, 32 bytes, in one of `lines` lines.
                let codes = unsafe { load(codes.wrapping_add(line)) };
                let codes = if EIGHT { [centred(codes[0]), centred(codes[1])] } else { codes };
                for (t, short) in short.iter_mut().enumerate() {
                    // SAFETY: one of `T` words a line.
                    let word = unsafe { *input.wrapping_add(line * T + t) };
                    for (short, codes) in short.iter_mut().zip(codes) {
                        *short = dot(*short, codes, word);
                    }
                }
            }
            for (sums, short) in sums.as_flattened_mut().iter_mut().zip(short.as_flattened()) {
                *sums = [vpadalq_s16(sums[0], short[0]), vpadalq_s16(sums[1], short[1])];
            }
        }
        let mut out = [[vdupq_n_f32(0.0); REGISTERS]; T];
        for (out, sums) in out.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
            *out = based(*sums);
        }
        out
    }
}

/// The codes of 8 rows.
///
/// # Safety
/// 32 bytes can be read.
#[inline(always)]
unsafe fn load(codes: *const Line) -> [int8x16_t; REGISTERS] {
    let codes: *const i8 = codes.cast();
    // SAFETY: by the contract.
    let first = unsafe { vld1q_s8(codes) };
    // SAFETY: likewise.
    [first, unsafe { vld1q_s8(codes.wrapping_add(16)) }]
}

/// Codes around 128 as signed numbers.
#[inline(always)]
fn centred(codes: int8x16_t) -> int8x16_t {
    veorq_s8(codes, vdupq_n_s8(-128))
}

/// Adds the products of four rows by four inputs.
#[inline(always)]
fn dot([a, b]: [int16x8_t; 2], codes: int8x16_t, word: u32) -> [int16x8_t; 2] {
    let input = vreinterpretq_s8_u32(vdupq_n_u32(word));
    [vmlal_s8(a, vget_low_s8(codes), vget_low_s8(input)), vmlal_high_s8(b, codes, input)]
}

/// `BASE` and the sums of four rows, from those of pairs of inputs.
#[inline(always)]
fn based([a, b]: Parts) -> float32x4_t {
    vreinterpretq_f32_s32(vaddq_s32(vpaddq_s32(a, b), vdupq_n_s32(BASE.to_bits().cast_signed())))
}

/// The [`MicroFn`] for a kind of panels.
pub(super) const fn micro(kind: Kind) -> MicroFn {
    match (kind.bits, kind.zero(), kind.halves) {
        (0..=5, ..) | (6, _, true) => panels::<false>,
        (8, 128, _) => panels::<true>,
        _ => scalar::panel::micro,
    }
}

/// A [`MicroFn`].
///
/// # Safety
/// As there.
unsafe fn panels<const EIGHT: bool>(m: &Micro) {
    let product: unsafe fn(&Micro) = instance!(product::<EIGHT>, m);
    // SAFETY: the contract is the same; it is the instance for `m`.
    unsafe { product(m) };
}

/// All panels by `T` tokens.
///
/// # Safety
/// As [`micro::product`].
unsafe fn product<const EIGHT: bool, const T: usize, const HALVES: bool, const MINS: bool>(m: &Micro) {
    // SAFETY: the contract is the same.
    unsafe { micro::product::<_, T, HALVES, MINS>(Smlal::<EIGHT>, m) };
}

/// How one line is multiplied, with codes of 8 bits or of fewer.
impl<const EIGHT: bool> Dot for Smlal<EIGHT> {
    type Sums = [Parts; 4];

    #[inline(always)]
    fn open(self, _: *const u32) -> Self::Sums {
        [[vdupq_n_s32(0); 2]; 4]
    }

    #[inline(always)]
    unsafe fn dot(self, sums: Self::Sums, codes: [int8x16_t; 4], inputs: *const u32, word: usize) -> Self::Sums {
        // SAFETY: by the contract.
        let input = unsafe { *inputs.wrapping_add(word) };
        let mut out = sums;
        for (sums, codes) in out.iter_mut().zip(codes) {
            if EIGHT {
                let [a, b] = dot([vdupq_n_s16(0); 2], codes, input);
                *sums = [vpadalq_s16(sums[0], a), vpadalq_s16(sums[1], b)];
            } else {
                let [a, b] = dot([vreinterpretq_s16_s32(sums[0]), vreinterpretq_s16_s32(sums[1])], codes, input);
                *sums = [vreinterpretq_s32_s16(a), vreinterpretq_s32_s16(b)];
            }
        }
        out
    }

    #[inline(always)]
    fn total(self, sums: Self::Sums) -> [float32x4_t; 4] {
        let widen = |part| vpaddlq_s16(vreinterpretq_s16_s32(part));
        let total = |[a, b]: Parts| based(if EIGHT { [a, b] } else { [widen(a), widen(b)] });
        each!(total, sums)
    }
}

/// A [`GemvFn`](crate::panel::gemv::GemvFn).
///
/// # Safety
/// As there.
pub(super) unsafe fn gemv<F: Source>(g: &Gemv<'_>, out: *mut Sums) {
    let tile = match (g.tokens, F::KIND.bits == 8) {
        (1, false) => tile::<F, false, 1>,
        (2, false) => tile::<F, false, 2>,
        (3, false) => tile::<F, false, 3>,
        (_, false) => tile::<F, false, 4>,
        (1, true) => tile::<F, true, 1>,
        (2, true) => tile::<F, true, 2>,
        (3, true) => tile::<F, true, 3>,
        (_, true) => tile::<F, true, 4>,
    };
    // SAFETY: the contract is the same; it is the function for so many tokens.
    unsafe { tile(g, out) };
}

/// A [`GemvFn`](crate::panel::gemv::GemvFn) for `T` tokens.
///
/// # Safety
/// As there.
unsafe fn tile<F: Source, const EIGHT: bool, const T: usize>(g: &Gemv<'_>, out: *mut Sums) {
    // SAFETY: the contract is the same.
    unsafe { gemv::gemv::<F, _, T>(Smlal::<EIGHT>, g, out) };
}
