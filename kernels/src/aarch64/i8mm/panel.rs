//! The micro-kernel: 8 rows by four tokens, in squares of two by two.
//!
//! ```text
//! registers: 8 sums, 8 outputs (2 rows by 2 tokens each), 4 pairs of rows by 8 inputs, 2 pairs of tokens by 8 inputs,
//!            and these six of the next 8 inputs
//! 8 inputs:  for 4 pairs of rows, 2 pairs of tokens:  usmmla sum, codes, inputs
//! ```
//! `usmmla` multiplies two rows of eight u8 with two of i8, of which cores start two to four a cycle; whatever else is
//! on the same units costs as much. So sums begin at the bits of `BASE` and become outputs by two instructions a
//! register, as in [`micro`](crate::aarch64::neon::micro); outputs keep the order of squares until all groups are done,
//! and so do inputs, powers and sums of inputs, which are brought into it once for all rows. What is left is one
//! instruction for the scales of a pair of rows.
//!
//! Cores with four such units wait for loads instead, of which they start three a cycle. So kinds with minima, which
//! have more to load, find scales and minima already doubled, but copy numbers of tokens from general registers.

use std::arch::asm;
use std::mem::{MaybeUninit, offset_of};

use crate::aarch64::neon::intrinsics::*;
use crate::aarch64::neon::micro::{BASE, Line, Twice, copy, less, power, twice};
use crate::panel::{GROUPS, Micro, Panel, ROWS, instance};
use crate::quantized::{Field, LINES, WORDS};

/// Pairs of rows multiplied at a time.
const PAIRS: usize = 4;
/// Pairs of tokens; of an odd number of tokens, the last one is there twice.
const TOKENS: usize = 2;

/// Where a panel with minima has its scales, and where its minima: of each of the two times 8 rows, each twice, side by
/// side. They lie in the places of other kinds' scales and in that kept for this.
pub(super) const DOUBLED: [[usize; 2]; 2] =
    [[offset_of!(Panel, scales), offset_of!(Panel, spare)], [offset_of!(Panel, mins), offset_of!(Panel, scales_high)]];

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
    let field = |offset: usize| panel.wrapping_byte_add(offset).cast::<f32>();
    let (low, high, mins) = if MINS {
        let [scales, mins] = DOUBLED.map(|places| field(places[part]));
        (scales, scales, mins)
    } else {
        let rows = |offset: usize| field(offset).wrapping_add(part * ROWS / 2);
        let (low, high) = (rows(offset_of!(Panel, scales)), rows(offset_of!(Panel, scales_high)));
        (low, high, low)
    };
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
            ($pairs:expr, $half:expr, $scales:expr) => {
                let mut sums = bases::<T>();
                // SAFETY: a pair of lines of this group, and its operands.
                let mut line = unsafe { Loaded::at::<PAIRED, T>(codes, $pairs.start, operands) };
                for next in $pairs.start + 1..$pairs.end {
                    // SAFETY: likewise.
                    let next = unsafe { Loaded::at::<PAIRED, T>(codes, next, operands) };
                    multiply::<T>(&mut sums, line);
                    line = next;
                }
                let scales = $scales.wrapping_add(group * ROWS);
                // SAFETY: initialised for this group, by the contract; `build` has doubled those of kinds with minima.
                let scales = unsafe { if MINS { pairs(scales) } else { doubled(scales) } };
                // SAFETY: four numbers each.
                let powers = operands.power.each_ref().map(|power| unsafe { vld1q_f32(power.as_ptr()) });
                let two = operands.less[$half].map(|[two, _]| two);
                multiply::<T>(&mut sums, line);
                for pair in 0..T.div_ceil(2) {
                    let less = &operands.less[$half][pair];
                    let less = if MINS {
                        [spread::<0>(two[pair]), spread::<1>(two[pair]), spread::<2>(two[pair]), spread::<3>(two[pair])]
                    } else {
                        [copy::<0>(less), copy::<1>(less), copy::<2>(less), copy::<3>(less)]
                    };
                    for i in 0..PAIRS {
                        let based = vreinterpretq_f32_s32(sums[i][pair]);
                        let scaled = vfmaq_f32(less[i], based, powers[pair]);
                        squares[i][pair] = vfmaq_f32(squares[i][pair], scaled, scales[i]);
                    }
                }
            };
        }
        if HALVES {
            part!(0..LINES / 4, 0, low);
            for pair in 0..T.div_ceil(2) {
                settle(&mut squares, pair);
            }
            part!(LINES / 4..LINES / 2, 1, high);
        } else {
            part!(0..LINES / 2, 0, low);
        }
        if MINS {
            // SAFETY: initialised for this group, as the kind has minima; `build` has doubled them.
            let mins = unsafe { pairs(mins.wrapping_add(group * ROWS)) };
            for (rows, mins) in squares.iter_mut().zip(mins) {
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

/// [`BASE`] for each square: loaded, as [`micro::bases`](crate::aarch64::neon::micro::bases) are, and before anything
/// of the group, as small cores wait for what they load.
#[inline(always)]
fn bases<const T: usize>() -> [[int32x4_t; TOKENS]; PAIRS] {
    static BASES: [u32; 4 * PAIRS] = [BASE.to_bits(); 4 * PAIRS];
    let mut bases = [[vdupq_n_s32(0); TOKENS]; PAIRS];
    for pair in 0..T.div_ceil(2) {
        let [a, b, c, d] = &mut bases;
        // SAFETY: the 64 bytes of `BASES` are read. Not being pure it is not moved, nor done once for all groups.
        unsafe {
            asm!("ldp {:q}, {:q}, [{at}]", "ldp {:q}, {:q}, [{at}, #32]", lateout(vreg) a[pair], lateout(vreg) b[pair],
                lateout(vreg) c[pair], lateout(vreg) d[pair], at = in(reg) BASES.as_ptr(),
                options(readonly, nostack, preserves_flags));
        }
    }
    bases
}

/// A pair of lines of 8 rows, and its inputs. They are loaded while the pair before is multiplied: small cores do not
/// look ahead themselves.
#[derive(Clone, Copy)]
struct Loaded {
    rows: [uint8x16_t; PAIRS],
    inputs: [uint32x4_t; TOKENS],
}

impl Loaded {
    /// # Safety
    /// The codes of 8 rows can be read in the two lines.
    #[inline(always)]
    unsafe fn at<const PAIRED: bool, const T: usize>(codes: *const Line, pair: usize, operands: &Operands) -> Self {
        let at: *const u8 = codes.wrapping_add(2 * pair).cast();
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
        let mut inputs = [vdupq_n_u32(0); TOKENS];
        for (inputs, words) in inputs.iter_mut().zip(&operands.inputs[pair]).take(T.div_ceil(2)) {
            // SAFETY: four words.
            *inputs = unsafe { vld1q_u32(words.as_ptr()) };
        }
        Self { rows, inputs }
    }
}

/// Adds the products of a pair of lines.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
fn multiply<const T: usize>(sums: &mut [[int32x4_t; TOKENS]; PAIRS], line: Loaded) {
    for pair in 0..T.div_ceil(2) {
        for (sums, rows) in sums.iter_mut().zip(line.rows) {
            // SAFETY: registers only; the CPU has the instruction. Not being pure it keeps its place among loads.
            unsafe {
                asm!("usmmla {sum:v}.4s, {rows:v}.16b, {inputs:v}.16b", sum = inout(vreg) sums[pair],
                    rows = in(vreg) rows, inputs = in(vreg) line.inputs[pair],
                    options(nomem, nostack, preserves_flags));
            }
        }
    }
}

/// Keeps the instructions of two halves of a group apart: the sums of both and all outputs do not fit the registers.
#[inline(always)]
fn settle(squares: &mut Squares, pair: usize) {
    let [a, b, c, d] = squares;
    // SAFETY: nothing happens. That it may touch memory is what keeps loads after it.
    unsafe {
        asm!("/* {:v} {:v} {:v} {:v} */", inout(vreg) a[pair], inout(vreg) b[pair], inout(vreg) c[pair],
            inout(vreg) d[pair], options(nostack, preserves_flags));
    }
}

/// Two numbers, twice, as [`copy`]: on the unit that moves general registers. That is for kinds with minima, which load
/// enough already.
#[inline(always)]
fn spread<const N: usize>(two: u64) -> float32x4_t {
    let spread;
    // SAFETY: registers only.
    unsafe {
        asm!("dup {spread:v}.2d, {two} // {n}", spread = lateout(vreg) spread, two = in(reg) two, n = const N,
            options(pure, nomem, nostack, preserves_flags));
    }
    spread
}

/// A register for each pair of rows.
///
/// # Safety
/// 16 numbers can be read.
#[inline(always)]
unsafe fn pairs(at: *const f32) -> [float32x4_t; PAIRS] {
    let mut pairs = [vdupq_n_f32(0.0); PAIRS];
    for (i, pair) in pairs.iter_mut().enumerate() {
        // SAFETY: four of them.
        *pair = unsafe { vld1q_f32(at.wrapping_add(4 * i)) };
    }
    pairs
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
