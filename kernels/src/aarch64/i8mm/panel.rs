//! The micro-kernel: 8 rows by four tokens, in squares of two by two.
//!
//! ```text
//! registers: 8 sums, 8 outputs (2 rows by 2 tokens each), 4 pairs of rows by 8 inputs, 2 pairs of tokens by 8 inputs
//! 8 inputs:  for 4 pairs of rows, 2 pairs of tokens:  usmmla sum, codes, inputs
//! ```
//! `usmmla` multiplies two rows of eight u8 with two of i8, of which cores start two to four a cycle; whatever else is
//! on the same units costs as much. So sums begin at the bits of `BASE` and become outputs by two instructions a
//! register, as in [`micro`](crate::aarch64::neon::micro); outputs keep the order of squares until all groups are done,
//! and so do inputs, powers and sums of inputs, which are brought into it once for all rows. What is left is one
//! instruction for the scales of a pair of rows.

use std::arch::asm;
use std::mem::{MaybeUninit, offset_of};

use crate::aarch64::neon::intrinsics::*;
use crate::aarch64::neon::micro::{Line, Twice, bases, copy, less, power, twice};
use crate::panel::{GROUPS, Micro, Panel, ROWS, instance};
use crate::quantized::{Field, LINES, WORDS};

/// Pairs of rows multiplied at a time.
const PAIRS: usize = 4;
/// Pairs of tokens; of an odd number of tokens, the last one is there twice.
const TOKENS: usize = 2;

/// A register for each square.
type Squares = [[float32x4_t; TOKENS]; PAIRS];

/// What a group of a tile gives.
#[repr(C)]
#[derive(Clone, Copy)]
pub(in crate::aarch64) struct Operands {
    /// Of each eight inputs those of two tokens.
    inputs: [[[u32; 4]; TOKENS]; LINES / 2],
    /// Of each half of the group `-(BASE - start) · 2^e`.
    pub(in crate::aarch64) less: [[Twice; TOKENS]; 2],
    /// `2^e`
    pub(in crate::aarch64) power: [[f32; 4]; TOKENS],
    /// The negated sum of all inputs, scaled.
    pub(in crate::aarch64) sum: [[f32; 4]; TOKENS],
}

/// Writes those of the groups of a tile of `T` tokens, the first `m.groups`.
///
/// # Safety
/// As [`micro`].
#[inline(always)]
pub(in crate::aarch64) unsafe fn operands<const T: usize, const HALVES: bool>(
    m: &Micro,
    operands: &mut [MaybeUninit<Operands>; GROUPS],
) {
    for (group, operands) in operands.iter_mut().enumerate().take(m.groups) {
        // SAFETY: one of the `WORDS * T` words of this group.
        let word = |field: Field, t: usize| unsafe { *m.input.wrapping_add(group * WORDS * T + field.word(T, t)) };
        let found = operands.write(Operands {
            inputs: [[[0; 4]; TOKENS]; LINES / 2],
            less: [[[0; 2]; TOKENS]; 2],
            power: [[0.0; 4]; TOKENS],
            sum: [[0.0; 4]; TOKENS],
        });
        for pair in 0..T.div_ceil(2) {
            let (a, b) = (2 * pair, (2 * pair + 1).min(T - 1));
            for (i, inputs) in found.inputs.iter_mut().enumerate() {
                let [first, second] = [Field::Line(2 * i), Field::Line(2 * i + 1)];
                inputs[pair] = [word(first, a), word(second, a), word(first, b), word(second, b)];
            }
            let each = |[a, b]: [f32; 2]| [a, b, a, b];
            for (half, found) in found.less.iter_mut().enumerate().take(if HALVES { 2 } else { 1 }) {
                let of_token = |t: usize| {
                    let (all, low) = (word(Field::NegatedSum, t), word(Field::NegatedSumLow, t));
                    let negated = match (HALVES, half) {
                        (false, _) => all,
                        (true, 0) => low,
                        (true, _) => all.wrapping_sub(low),
                    };
                    let start = negated.checked_shl(m.kind.zero_shift).unwrap_or(0);
                    less(start, word(Field::Exponent, t))
                };
                found[pair] = twice([of_token(a), of_token(b)]);
            }
            found.power[pair] = each([a, b].map(|t| power(word(Field::Exponent, t))));
            found.sum[pair] = each([a, b].map(|t| -f32::from_bits(word(Field::ScaledSum, t))));
        }
    }
}

/// A [`MicroFn`](crate::panel::MicroFn), for panels whose lines are `PAIRED`, as [`build`](super::build) has them, or
/// not.
///
/// # Safety
/// As there.
#[target_feature(enable = "neon,dotprod,i8mm")]
pub(super) unsafe fn micro<const PAIRED: bool>(m: &Micro) {
    let product: unsafe fn(&Micro) = instance!(product::<PAIRED>, m);
    // SAFETY: the contract is the same; it is the instance for `m`.
    unsafe { product(m) };
}

/// All panels by `T` tokens.
///
/// # Safety
/// As [`micro`], for `T` tokens and a kind of these parts.
#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn product<const PAIRED: bool, const T: usize, const HALVES: bool, const MINS: bool>(m: &Micro) {
    let mut operands = [const { MaybeUninit::uninit() }; GROUPS];
    // SAFETY: the contract is the same.
    unsafe { self::operands::<T, HALVES>(m, &mut operands) };
    for eight in 0..2 * m.count {
        // SAFETY: the contract is the same, and a panel has two times 8 rows; `m.groups` operands are written.
        unsafe { eight_rows::<PAIRED, T, HALVES, MINS>(m, operands.as_ptr().cast(), eight) };
    }
}

/// Rows `8 eight .. 8 eight + 8` by `T` tokens.
///
/// # Safety
/// As [`product`]; there are so many rows, and operands of all groups.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn eight_rows<const PAIRED: bool, const T: usize, const HALVES: bool, const MINS: bool>(
    m: &Micro,
    operands: *const Operands,
    eight: usize,
) {
    let panel = m.panels.wrapping_add(eight / 2);
    let part = eight % 2;
    // Eight rows of a line, or of two.
    let offset = part * size_of::<Line>() / if PAIRED { 1 } else { 2 };
    let codes: *const Line = panel.wrapping_byte_add(offset_of!(Panel, codes) + offset).cast();
    let scales = |field: usize| panel.wrapping_byte_add(field + part * ROWS / 2 * size_of::<f32>()).cast::<f32>();
    let (low, high) = (scales(offset_of!(Panel, scales)), scales(offset_of!(Panel, scales_high)));
    let mins = [offset_of!(Panel, mins), offset_of!(Panel, scales_high)][part];
    let mins: *const f32 = panel.wrapping_byte_add(mins).cast();
    let out = |t: usize| m.out.wrapping_add(t.min(T - 1) * m.count).cast::<f32>().wrapping_add(eight * ROWS / 2);
    let mut squares = [[vdupq_n_f32(0.0); TOKENS]; PAIRS];
    for pair in 0..T.div_ceil(2) {
        for (i, rows) in squares.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            // SAFETY: four of the 8 outputs of a token.
            let a = unsafe { vld1q_f32(out(2 * pair).wrapping_add(4 * i)) };
            // SAFETY: likewise.
            let b = unsafe { vld1q_f32(out(2 * pair + 1).wrapping_add(4 * i)) };
            (rows[0][pair], rows[1][pair]) = (vzip1q_f32(a, b), vzip2q_f32(a, b));
        }
    }
    for group in 0..m.groups {
        // SAFETY: written, by the contract.
        let operands = unsafe { &*operands.wrapping_add(group) };
        let codes = codes.wrapping_add(group * LINES);
        macro_rules! part {
            ($first:expr, $half:expr, $scales:expr) => {
                // SAFETY: the codes of 8 rows in these lines of a group.
                let based = unsafe { sums::<PAIRED, T>(codes, $first, operands) };
                // SAFETY: initialised for this group, by the contract.
                let scales = unsafe { doubled($scales.wrapping_add(group * ROWS)) };
                for pair in 0..T.div_ceil(2) {
                    let less = &operands.less[$half][pair];
                    let less = [copy::<0>(less), copy::<1>(less), copy::<2>(less), copy::<3>(less)];
                    // SAFETY: four numbers.
                    let power = unsafe { vld1q_f32(operands.power[pair].as_ptr()) };
                    for i in 0..PAIRS {
                        let scaled = vfmaq_f32(less[i], based[i][pair], power);
                        squares[i][pair] = vfmaq_f32(squares[i][pair], scaled, scales[i]);
                    }
                }
            };
        }
        if HALVES {
            part!(0..LINES / 4, 0, low);
            part!(LINES / 4..LINES / 2, 1, high);
        } else {
            part!(0..LINES / 2, 0, low);
        }
        if MINS {
            for (i, rows) in squares.iter_mut().enumerate() {
                // SAFETY: initialised for this group, as the kind has minima; `build` has doubled them.
                let mins = unsafe { vld1q_f32(mins.wrapping_add(group * ROWS + 4 * i)) };
                for (square, inputs) in rows.iter_mut().zip(&operands.sum).take(T.div_ceil(2)) {
                    // SAFETY: four numbers.
                    *square = vfmaq_f32(*square, mins, unsafe { vld1q_f32(inputs.as_ptr()) });
                }
            }
        }
    }
    for t in 0..T {
        for (i, rows) in squares.as_chunks::<2>().0.iter().enumerate() {
            let (a, b) = (rows[0][t / 2], rows[1][t / 2]);
            let found = if t % 2 == 0 { vuzp1q_f32(a, b) } else { vuzp2q_f32(a, b) };
            // SAFETY: four of the 8 outputs of token `t < T`.
            unsafe { vst1q_f32(out(t).wrapping_add(4 * i), found) };
        }
    }
}

/// [`BASE`](crate::aarch64::neon::micro::BASE) and the sums of 8 rows over some pairs of lines.
///
/// # Safety
/// Their codes can be read in the lines from `codes` on.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn sums<const PAIRED: bool, const T: usize>(
    codes: *const Line,
    lines: std::ops::Range<usize>,
    operands: &Operands,
) -> Squares {
    let [a, b, c, d, e, f, g, h] = bases(codes.wrapping_add(2 * lines.start));
    let mut sums = [[a, b], [c, d], [e, f], [g, h]];
    for line in lines {
        let at: *const u8 = codes.wrapping_add(2 * line).cast();
        let mut rows = [vdupq_n_u8(0); PAIRS];
        for (i, two) in rows.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            *two = if PAIRED {
                // SAFETY: a pair of rows.
                let first = unsafe { vld1q_u8(at.wrapping_add(32 * i)) };
                // SAFETY: the next one.
                [first, unsafe { vld1q_u8(at.wrapping_add(32 * i + 16)) }]
            } else {
                // SAFETY: four rows of two lines.
                unsafe { paired(at.wrapping_add(16 * i)) }
            };
        }
        for pair in 0..T.div_ceil(2) {
            // SAFETY: four words.
            let inputs = unsafe { vld1q_u32(operands.inputs[line][pair].as_ptr()) };
            for (sums, rows) in sums.iter_mut().zip(rows) {
                // SAFETY: registers only; the CPU has the instruction.
                unsafe {
                    asm!("usmmla {sum:v}.4s, {rows:v}.16b, {inputs:v}.16b", sum = inout(vreg) sums[pair],
                        rows = in(vreg) rows, inputs = in(vreg) inputs,
                        options(pure, nomem, nostack, preserves_flags));
                }
            }
        }
    }
    // A closure would have the features of this function, and `map` has not: it would be a call.
    let mut based = [[vdupq_n_f32(0.0); TOKENS]; PAIRS];
    for (based, sum) in based.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
        *based = vreinterpretq_f32_s32(*sum);
    }
    based
}

/// Two lines of four rows, in pairs of rows by eight inputs.
///
/// # Safety
/// 16 bytes can be read of each line.
#[inline(always)]
pub(super) unsafe fn paired(lines: *const u8) -> [uint8x16_t; 2] {
    // SAFETY: by the contract.
    let a = vreinterpretq_u32_u8(unsafe { vld1q_u8(lines) });
    // SAFETY: likewise.
    let b = vreinterpretq_u32_u8(unsafe { vld1q_u8(lines.wrapping_add(size_of::<Line>())) });
    [vreinterpretq_u8_u32(vzip1q_u32(a, b)), vreinterpretq_u8_u32(vzip2q_u32(a, b))]
}

/// Eight numbers, each twice: pairs of rows.
///
/// # Safety
/// They can be read.
#[inline(always)]
pub(in crate::aarch64) unsafe fn doubled(at: *const f32) -> [float32x4_t; PAIRS] {
    let of_four = |at: *const f32| {
        // SAFETY: four of the numbers.
        let x = unsafe { vld1q_f32(at) };
        [vzip1q_f32(x, x), vzip2q_f32(x, x)]
    };
    let ([a, b], [c, d]) = (of_four(at), of_four(at.wrapping_add(4)));
    [a, b, c, d]
}
