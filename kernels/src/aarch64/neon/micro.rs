//! The loops of a micro-kernel, 8 rows by up to four tokens. Tiers differ in how they sum products.
//!
//! ```text
//! for each group and token, once:    power = 2^e,  less = -(BASE - start) · 2^e
//! for 8 rows, then the next 8:
//!   for each group (for each half of one, if it has two scales):
//!     sums    =  BASE + 8 lines · inputs of T tokens         integers, started at the bits of BASE: they are those of an f32
//!     scaled  =  fma(sum, power, less)                       = (start + Σ) · 2^e, exactly
//!     outputs =  fma(scaled, scale, output), then fma(-min, Σ input · 2^e, output)
//! ```
//! `start` makes up for the code of zero. Numbers about `BASE`, 1.5 · 2^23, have a distance of one: a sum of less than
//! 2^22 is added to its bits, and the power of two comes in the same instruction that takes `BASE` off again. It
//! replaces a conversion, which is slow on most cores, a subtraction and a product. Outputs, two registers of each
//! token, stay in registers.

use std::arch::asm;
use std::array;
use std::mem::{MaybeUninit, offset_of};

use super::intrinsics::*;
use crate::panel::{GROUPS, Kind, Micro, Panel, ROWS};
use crate::quantized::{Field, LINES, TILE, WORDS};

/// A line of codes.
pub(in crate::aarch64) type Line = [u8; 4 * ROWS];

/// What sums are started at.
pub(in crate::aarch64) const BASE: f32 = 1.5 * (1 << 23) as f32;

/// Registers of rows that are multiplied at a time.
pub(in crate::aarch64) const REGISTERS: usize = 2;

/// `BASE` and sums, of 8 rows by `T` tokens.
pub(in crate::aarch64) type Based<const T: usize> = [[float32x4_t; REGISTERS]; T];

/// How products of codes and inputs are summed. A value is the proof that this CPU can do it.
pub(in crate::aarch64) trait Dots: Copy {
    /// `BASE + Σ codes[line][row] · input[line][token]`; codes of 8 bits are first made less by 128.
    ///
    /// # Safety
    /// - The codes of 8 rows, 32 bytes, can be read at `codes`, and so in each of `lines` lines from there on, 4 or 8;
    ///   they are as the kind of the panel says.
    /// - `input: (lines, T)` can be read, inputs within ±127.
    unsafe fn sums<const T: usize>(self, codes: *const Line, lines: usize, input: *const u32) -> Based<T>;
}

/// What turns the sums of a group into outputs.
#[repr(C)]
#[derive(Clone, Copy)]
pub(in crate::aarch64) struct Factors {
    /// Of each half of the group, and of each token: `-(BASE - start) · 2^e`.
    pub(in crate::aarch64) less: [[Twice; TILE]; 2],
    /// Of each token.
    pub(in crate::aarch64) power: [f32; TILE],
    /// Of each token the negated sum of all inputs, scaled.
    pub(in crate::aarch64) sum: [f32; TILE],
}

/// `-(BASE - start) · 2^e`, for a start of less than 2^22 and the word of an exponent: all in the bits.
#[inline(always)]
pub(in crate::aarch64) fn less(start: u32, exponent: u32) -> f32 {
    f32::from_bits((-BASE).to_bits().wrapping_sub(start).wrapping_add(exponent))
}

/// `2^e` from the word of an exponent.
#[inline(always)]
pub(in crate::aarch64) fn power(exponent: u32) -> f32 {
    f32::from_bits(1f32.to_bits().wrapping_add(exponent))
}

/// Writes those of the first `groups` groups of a tile of `T` tokens, for codes of `kind`, of which those of the second
/// half of a group are less by 8 if `eight`.
///
/// # Safety
/// `WORDS * T` words a group can be read at `input`.
#[inline(always)]
pub(in crate::aarch64) unsafe fn factors<const T: usize>(
    kind: Kind,
    eight: bool,
    input: *const u32,
    groups: usize,
    factors: &mut [MaybeUninit<Factors>; GROUPS],
) {
    for (group, factors) in factors.iter_mut().enumerate().take(groups) {
        // SAFETY: one of the `WORDS * T` words of this group.
        let word = |field: Field, t: usize| unsafe { *input.wrapping_add(group * WORDS * T + field.word(T, t)) };
        let found = factors.write(Factors { less: [[[0; 2]; TILE]; 2], power: [0.0; TILE], sum: [0.0; TILE] });
        for t in 0..T {
            let (all, low) = (word(Field::NegatedSum, t), word(Field::NegatedSumLow, t));
            let high = all.wrapping_sub(low);
            let sums = if kind.halves { [low, high] } else { [all; 2] };
            let exponent = word(Field::Exponent, t);
            for (half, less_of) in found.less.iter_mut().enumerate() {
                // With one scale, both halves are added up.
                let eight = if eight && (half == 1 || !kind.halves) { high << 3 } else { 0 };
                less_of[t] = twice([less(start(kind, sums[half]).wrapping_sub(eight), exponent); 2]);
            }
            found.power[t] = power(exponent);
            found.sum[t] = -f32::from_bits(word(Field::ScaledSum, t));
        }
    }
}

/// Sums started at [`BASE`], for the lines at this address: loaded, as copies of registers take the time of products.
/// The compiler, who would copy, is not to know that they are all the same, nor that they are those of the last group.
#[inline(always)]
pub(in crate::aarch64) fn bases(lines: *const Line) -> [int32x4_t; 8] {
    static BASES: [u32; 32] = [BASE.to_bits(); 32];
    let mut address = BASES.as_ptr().addr();
    // SAFETY: nothing happens.
    unsafe {
        asm!("/* {at} {lines} */", at = inout(reg) address, lines = in(reg) lines.addr(),
            options(pure, nomem, nostack, preserves_flags));
    }
    let at = BASES.as_ptr().with_addr(address).cast::<i32>();
    // SAFETY: four of the 32 numbers: the address is what it was.
    array::from_fn(|i| unsafe { vld1q_s32(at.wrapping_add(4 * i)) })
}

/// Two numbers, twice: put together as integers, which takes no time of the units that multiply.
pub(in crate::aarch64) type Twice = [u64; 2];

/// `[a, b, a, b]`
#[inline(always)]
pub(in crate::aarch64) fn twice([a, b]: [f32; 2]) -> Twice {
    [u64::from(a.to_bits()) | u64::from(b.to_bits()) << 32; 2]
}

/// A register of these numbers, to be added to: loaded, as [`bases`] are. Each `N` makes another instruction, of which
/// the compiler keeps all.
#[inline(always)]
pub(in crate::aarch64) fn copy<const N: usize>(of: &Twice) -> float32x4_t {
    let copy;
    // SAFETY: reads the 16 bytes of `of`.
    unsafe {
        asm!("ldr {copy:q}, [{at}] // {n}", copy = lateout(vreg) copy, at = in(reg) of.as_ptr(), n = const N,
            options(pure, readonly, nostack, preserves_flags));
    }
    copy
}

/// What makes up for the code of zero: that times the negated sum of the inputs; nothing for codes of 8 bits, which are
/// made less by it.
#[inline(always)]
pub(super) fn start(kind: Kind, negated: u32) -> u32 {
    if kind.bits == 8 { 0 } else { negated.checked_shl(kind.zero_shift).unwrap_or(0) }
}

/// Multiplies all panels with a tile of `T` tokens.
///
/// # Safety
/// As [`MicroFn`](crate::panel::MicroFn), for `T` tokens and a kind of these parts.
#[inline(always)]
pub(in crate::aarch64) unsafe fn product<D: Dots, const T: usize, const HALVES: bool, const MINS: bool>(
    d: D,
    m: &Micro,
) {
    let mut factors = [const { MaybeUninit::uninit() }; GROUPS];
    // SAFETY: the contract is the same.
    unsafe { self::factors::<T>(Kind { halves: HALVES, ..m.kind }, false, m.input, m.groups, &mut factors) };
    for eight in 0..2 * m.count {
        // SAFETY: the contract is the same, and a panel has two times 8 rows; `m.groups` factors are written.
        unsafe { eight_rows::<D, T, HALVES, MINS>(d, m, factors.as_ptr().cast(), eight) };
    }
}

/// Multiplies rows `8 eight .. 8 eight + 8`.
///
/// # Safety
/// As [`product`]; there are so many rows, and factors of all groups.
#[inline(always)]
unsafe fn eight_rows<D: Dots, const T: usize, const HALVES: bool, const MINS: bool>(
    d: D,
    m: &Micro,
    factors: *const Factors,
    eight: usize,
) {
    let panel = m.panels.wrapping_add(eight / 2);
    let part = eight % 2;
    let codes: *const Line = panel.wrapping_byte_add(offset_of!(Panel, codes) + part * size_of::<Line>() / 2).cast();
    let scales = |field: usize| panel.wrapping_byte_add(field + part * ROWS / 2 * size_of::<f32>()).cast::<f32>();
    let (low, high) = (scales(offset_of!(Panel, scales)), scales(offset_of!(Panel, scales_high)));
    let mins = scales(offset_of!(Panel, mins));
    let out = |t: usize| m.out.wrapping_add(t * m.count).cast::<f32>().wrapping_add(eight * ROWS / 2);
    // SAFETY: the outputs of 8 rows and token `t < T`.
    let mut sums: Based<T> = array::from_fn(|t| unsafe { pair(out(t)) });
    for group in 0..m.groups {
        // SAFETY: written, by the contract.
        let factors = unsafe { &*factors.wrapping_add(group) };
        let input = m.input.wrapping_add(group * WORDS * T);
        let codes = codes.wrapping_add(group * LINES);
        if HALVES {
            // SAFETY: the first half of the lines and inputs of this group.
            let based = unsafe { d.sums::<T>(codes, LINES / 2, input) };
            // SAFETY: initialised for this group, by the contract.
            add(&mut sums, &based, factors, 0, unsafe { pair(low.wrapping_add(group * ROWS)) });
            let input = input.wrapping_add(Field::Line(LINES / 2).word(T, 0));
            // SAFETY: the second half.
            let based = unsafe { d.sums::<T>(codes.wrapping_add(LINES / 2), LINES / 2, input) };
            // SAFETY: as above, as the kind has two scales.
            add(&mut sums, &based, factors, 1, unsafe { pair(high.wrapping_add(group * ROWS)) });
        } else {
            // SAFETY: the lines and inputs of this group.
            let based = unsafe { d.sums::<T>(codes, LINES, input) };
            // SAFETY: initialised for this group, by the contract.
            add(&mut sums, &based, factors, 0, unsafe { pair(low.wrapping_add(group * ROWS)) });
        }
        if MINS {
            // SAFETY: as above, as the kind has minima.
            let mins = unsafe { pair(mins.wrapping_add(group * ROWS)) };
            for (sums, inputs) in sums.iter_mut().zip(factors.sum) {
                for (sum, min) in sums.iter_mut().zip(mins) {
                    *sum = vfmaq_n_f32(*sum, min, inputs);
                }
            }
        }
    }
    for (t, sums) in sums.into_iter().enumerate() {
        for (r, sum) in sums.into_iter().enumerate() {
            // SAFETY: the outputs of 8 rows and token `t < T`.
            unsafe { vst1q_f32(out(t).wrapping_add(4 * r), sum) };
        }
    }
}

/// `out = fma(scaled, scale, out)`
#[inline(always)]
fn add<const T: usize>(
    out: &mut Based<T>,
    based: &Based<T>,
    factors: &Factors,
    half: usize,
    scales: [float32x4_t; REGISTERS],
) {
    for t in 0..T {
        let less = &factors.less[half][t];
        let less = [copy::<0>(less), copy::<1>(less)];
        for r in 0..REGISTERS {
            let scaled = vfmaq_n_f32(less[r], based[t][r], factors.power[t]);
            out[t][r] = vfmaq_f32(out[t][r], scaled, scales[r]);
        }
    }
}

/// Eight numbers.
///
/// # Safety
/// They can be read.
#[inline(always)]
unsafe fn pair(at: *const f32) -> [float32x4_t; REGISTERS] {
    // SAFETY: by the contract.
    let first = unsafe { vld1q_f32(at) };
    // SAFETY: likewise.
    [first, unsafe { vld1q_f32(at.wrapping_add(4)) }]
}
