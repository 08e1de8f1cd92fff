//! Products with one tile of tokens.

use std::arch::asm;

use crate::aarch64::neon::gemv::{self, Dot};
use crate::aarch64::neon::intrinsics::*;
use crate::aarch64::neon::micro::bases;
use crate::panel::Sums;
use crate::panel::build::Source;
use crate::panel::gemv::{Gemv, GemvFn};
use crate::quantized::LINES;

/// The proof that this CPU has the features of this tier.
#[derive(Clone, Copy, Debug)]
struct Sdot(());

/// Runs a function for a lane, which is a constant where it is called.
macro_rules! by_lane {
    ($lane:expr, $op:ident($($arg:expr),*)) => {
        match $lane {
            // SAFETY: `self`, of which this is a method, is the proof of the features; the rest is its contract.
            0 => unsafe { $op::<0>($($arg),*) },
            // SAFETY: as above.
            1 => unsafe { $op::<1>($($arg),*) },
            // SAFETY: as above.
            2 => unsafe { $op::<2>($($arg),*) },
            // SAFETY: as above.
            _ => unsafe { $op::<3>($($arg),*) },
        }
    };
}

impl Dot for Sdot {
    type Sums = [int32x4_t; 4];

    #[inline(always)]
    fn open(self, inputs: *const u32) -> Self::Sums {
        let [a, b, c, d, ..] = bases(inputs.cast());
        [a, b, c, d]
    }

    #[inline(always)]
    unsafe fn dot(self, sums: Self::Sums, codes: [int8x16_t; 4], inputs: *const u32, word: usize) -> Self::Sums {
        // SAFETY: four words from a multiple of four on, of which `word` is one; by the contract.
        let four = unsafe { vld1q_u32(inputs.wrapping_add(word / 4 * 4)) };
        let mut out = sums;
        for (sum, codes) in out.iter_mut().zip(codes) {
            *sum = by_lane!(word % 4, dot(*sum, codes, four));
        }
        out
    }

    #[inline(always)]
    unsafe fn four_bits(
        self,
        sums: Self::Sums,
        lines: *const u8,
        inputs: *const u32,
        line: usize,
        ahead: *const u8,
    ) -> Self::Sums {
        // SAFETY: the first half of a group, by the contract.
        let low = unsafe { vld1q_u32(inputs) };
        // SAFETY: the second half.
        let high = unsafe { vld1q_u32(inputs.wrapping_add(LINES / 2)) };
        by_lane!(line, four_bits(sums, lines, [low, high], ahead))
    }

    #[inline(always)]
    fn total(self, sums: Self::Sums) -> [float32x4_t; 4] {
        sums.map(vreinterpretq_f32_s32)
    }
}

/// Adds the products of four rows by four inputs, lane `LANE` of those.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot<const LANE: usize>(mut sum: int32x4_t, codes: int8x16_t, inputs: uint32x4_t) -> int32x4_t {
    // SAFETY: registers only; the CPU has the instruction.
    unsafe {
        asm!("sdot {sum:v}.4s, {codes:v}.16b, {inputs:v}.4b[{lane}]", sum = inout(vreg) sum, codes = in(vreg) codes,
            inputs = in(vreg) inputs, lane = const LANE, options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// Adds the products of four times four rows by lane `LANE` of the first and the last inputs of a group, and asks for
/// what lies at `ahead`. In this order a core that starts two instructions at a time, and none before those that come
/// first, waits for nothing but bytes: a sum comes back four cycles later. Compilers take it apart; and where these may
/// be moved (`pure`), or bytes loaded before, they mix two groups, until registers do not suffice.
///
/// # Safety
/// Line `LANE`, 64 bytes, of those at `lines` can be read.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn four_bits<const LANE: usize>(
    [mut a, mut b, mut c, mut d]: [int32x4_t; 4],
    lines: *const u8,
    [low, high]: [uint32x4_t; 2],
    ahead: *const u8,
) -> [int32x4_t; 4] {
    // SAFETY: reads 64 bytes, by the contract; the CPU has the instructions, of which `prfm` is a hint that does not
    // fault.
    unsafe {
        asm!(
            "ldp {w:q}, {x:q}, [{lines}, #{first}]",
            "ldp {y:q}, {z:q}, [{lines}, #{last}]",
            "prfm pldl1keep, [{ahead}]",
            "and {e:v}.16b, {w:v}.16b, {nibble:v}.16b",
            "and {f:v}.16b, {x:v}.16b, {nibble:v}.16b",
            "and {g:v}.16b, {y:v}.16b, {nibble:v}.16b",
            "and {h:v}.16b, {z:v}.16b, {nibble:v}.16b",
            "sdot {a:v}.4s, {e:v}.16b, {low:v}.4b[{lane}]",
            "sdot {b:v}.4s, {f:v}.16b, {low:v}.4b[{lane}]",
            "sdot {c:v}.4s, {g:v}.16b, {low:v}.4b[{lane}]",
            "sdot {d:v}.4s, {h:v}.16b, {low:v}.4b[{lane}]",
            "sshr {w:v}.16b, {w:v}.16b, #4",
            "sshr {x:v}.16b, {x:v}.16b, #4",
            "sshr {y:v}.16b, {y:v}.16b, #4",
            "sshr {z:v}.16b, {z:v}.16b, #4",
            "sdot {a:v}.4s, {w:v}.16b, {high:v}.4b[{lane}]",
            "sdot {b:v}.4s, {x:v}.16b, {high:v}.4b[{lane}]",
            "sdot {c:v}.4s, {y:v}.16b, {high:v}.4b[{lane}]",
            "sdot {d:v}.4s, {z:v}.16b, {high:v}.4b[{lane}]",
            a = inout(vreg) a, b = inout(vreg) b, c = inout(vreg) c, d = inout(vreg) d,
            lines = in(reg) lines, first = const LANE * 64, last = const LANE * 64 + 32, ahead = in(reg) ahead,
            w = out(vreg) _, x = out(vreg) _, y = out(vreg) _, z = out(vreg) _,
            e = out(vreg) _, f = out(vreg) _, g = out(vreg) _, h = out(vreg) _,
            nibble = in(vreg) vdupq_n_u8(0xf), low = in(vreg) low, high = in(vreg) high, lane = const LANE,
            options(readonly, nostack, preserves_flags),
        );
    }
    [a, b, c, d]
}

/// A [`GemvFn`].
///
/// # Safety
/// As there.
pub(in crate::aarch64) unsafe fn gemv<F: Source>(g: &Gemv<'_>, out: *mut Sums) {
    let tile: GemvFn = match g.tokens {
        1 => tile::<F, 1>,
        2 => tile::<F, 2>,
        3 => tile::<F, 3>,
        _ => tile::<F, 4>,
    };
    // SAFETY: the contract is the same; it is the function for so many tokens.
    unsafe { tile(g, out) };
}

/// A [`GemvFn`] for `T` tokens.
///
/// # Safety
/// As there.
#[target_feature(enable = "neon,dotprod")]
unsafe fn tile<F: Source, const T: usize>(g: &Gemv<'_>, out: *mut Sums) {
    // SAFETY: the contract is the same; as this function may run, the CPU has its features.
    unsafe { gemv::gemv::<F, Sdot, T>(Sdot(()), g, out) };
}
