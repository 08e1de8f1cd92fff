//! The micro-kernel: of three panels 24 rows by four tokens, twice; of fewer, 16 rows.
//!
//! ```text
//! registers: 12 sums (8 rows each), 3 registers of a line, an input         16 rows: 8 sums, 2 registers of a line, an input
//! a line:    for 4 tokens, 3 registers:  vpdpbusd sum, codes, input
//! ```
//! Built on `vpdpbusd ymm`, u8 codes by s8 inputs into i32, of which Zen 5 starts two a cycle, beside two loads: 24
//! rows need 7 loads for 12 of them, 16 rows 6 for 8. That is 84 % of its peak, where 16 rows reach 77 %; `fma`, on the
//! same two units, takes 11 %. With minima it takes 20 %, and 78 % are reached. To take tokens in reverse in every
//! other line, or the last two first, is as fast; to keep inputs instead of codes in registers is 3 % slower. For two
//! lines at a time, as with 512 bits, registers do not suffice. Instructions stand here one by one, in `asm!`, whose
//! order the compiler keeps, and lines are written out: around a loop it moves sums to other registers, and some to the
//! stack.

use std::arch::asm;
use std::arch::x86_64::*;

use crate::panel::{Micro, instance};
use crate::scalar;
use crate::x86::avx2::micro::{self, Dots, Integers, Line};

/// The proof that this CPU has the features of this tier.
#[derive(Clone, Copy, Debug)]
struct Vnni(());

impl Dots for Vnni {
    const KEPT: usize = 3;

    #[inline(always)]
    unsafe fn sums<const R: usize, const T: usize>(
        self,
        codes: [*const Line; R],
        lines: usize,
        input: *const u32,
        start: [__m256i; T],
    ) -> Integers<R, T> {
        let mut sums = start.map(|start| [start; R]);
        macro_rules! line {
            ($line:literal) => {
                if $line < lines {
                    let codes = codes.map(|codes| codes.wrapping_add($line));
                    // SAFETY: one of `lines` lines and its inputs, by the contract; `self` is the proof of the
                    // features.
                    unsafe { add_line(&mut sums, codes, input.wrapping_add($line * T)) };
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
        sums
    }
}

/// Loads a register of codes.
macro_rules! codes {
    ($at:expr) => {{
        let codes: __m256i;
        // SAFETY: reads the 32 bytes of a register in a line, there and aligned by the contract of `add_line`.
        unsafe {
            asm!("vmovdqa {codes}, [{at}]", codes = out(ymm_reg) codes, at = in(reg) $at,
                options(nostack, preserves_flags, readonly));
        }
        codes
    }};
}

/// Loads four inputs of a token into every lane.
macro_rules! input {
    ($at:expr) => {{
        let input: __m256i;
        // SAFETY: reads one of the `T` inputs of a line, there by the contract of `add_line`.
        unsafe {
            asm!("vpbroadcastd {input}, dword ptr [{at}]", input = out(ymm_reg) input, at = in(reg) $at,
                options(nostack, preserves_flags, readonly));
        }
        input
    }};
}

/// Adds the products of eight rows by four inputs.
macro_rules! dot {
    ($sum:expr, $codes:expr, $input:expr) => {
        // SAFETY: registers only; `readonly` and not `pure` keeps the order of these statements.
        unsafe {
            asm!("{{vex}} vpdpbusd {sum}, {codes}, {input}", sum = inout(ymm_reg) $sum, codes = in(ymm_reg) $codes,
                input = in(ymm_reg) $input, options(nostack, preserves_flags, readonly));
        }
    };
}

/// Adds the products of a line.
///
/// # Safety
/// 32 bytes can be read at each of `codes`, aligned, and `T` words at `input`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
unsafe fn add_line<const R: usize, const T: usize>(
    sums: &mut Integers<R, T>,
    codes: [*const Line; R],
    input: *const u32,
) {
    let line = codes.map(|codes| codes!(codes));
    for (t, sums) in sums.iter_mut().enumerate() {
        let input = input!(input.wrapping_add(t));
        for (sum, codes) in sums.iter_mut().zip(line) {
            dot!(*sum, codes, input);
        }
    }
}

/// A [`MicroFn`](crate::panel::MicroFn).
///
/// # Safety
/// As there.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
pub(super) unsafe fn micro(m: &Micro) {
    let product: unsafe fn(&Micro) = match (m.normal, m.count) {
        (false, _) => scalar::panel::micro,
        (_, 3) => instance!(product::<3>, m),
        (_, _) => instance!(product::<2>, m),
    };
    // SAFETY: the contract is the same; it is the function for `m`.
    unsafe { product(m) };
}

/// All panels by `T` tokens, `R` registers of rows at a time.
///
/// # Safety
/// As [`micro::product`].
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
unsafe fn product<const R: usize, const T: usize, const HALVES: bool, const MINS: bool>(m: &Micro) {
    // SAFETY: the contract is the same; as this function may run, the CPU has its features.
    unsafe { micro::product::<Vnni, R, T, HALVES, MINS>(Vnni(()), m) };
}
