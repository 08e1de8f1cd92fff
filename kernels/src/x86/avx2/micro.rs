//! The loops of a micro-kernel of 256 bits, 16 rows by up to four tokens. Tiers differ in how they sum products.
//!
//! ```text
//! for each group (for each half of one, if it has two scales):
//!   2 T sums of 8 rows  =  start + 8 lines · inputs of T tokens
//!   outputs             =  fma(sum, scale · 2^e, output), then fma(-min, Σ input · 2^e, output)
//! ```
//! With one or two tokens outputs stay in registers, as the way through memory would be the longest chain, 14 cycles a group;
//! with more, sums need those registers.

use std::arch::asm;
use std::arch::x86_64::*;
use std::mem::offset_of;

use crate::panel::{Micro, Panel, ROWS};
use crate::quantized::{Field, LINES, WORDS};

/// Registers of outputs that are kept from group to group.
const KEPT: usize = 4;

/// A line of codes.
pub(in crate::x86) type Line = [u8; 4 * ROWS];

/// Sums of `8 R` rows by `T` tokens.
pub(in crate::x86) type Integers<const R: usize, const T: usize> = [[__m256i; R]; T];

/// Outputs of as many.
type Floats<const R: usize, const T: usize> = [[__m256; R]; T];

/// How products of codes and inputs are summed. A value is the proof that this CPU can do it.
pub(in crate::x86) trait Dots: Copy {
    /// `sums[token][row] = start[token] + Σ lines[line][row] · input[line][token]` for the rows of registers
    /// `first .. first + R <= 2`, where `start` makes up for the code of zero. Who takes that off the codes needs no `start`.
    ///
    /// # Safety
    /// `input: (lines.len(), T)` can be read, inputs within ±127; codes are as the kind of the panel says.
    unsafe fn sums<const R: usize, const T: usize>(
        self,
        lines: &[Line],
        first: usize,
        input: *const u32,
        start: [__m256i; T],
    ) -> Integers<R, T>;
}

/// `n`, of which the compiler does not know that: it leaves a loop that ends there a loop.
#[inline(always)]
pub(in crate::x86) fn rolled(mut n: usize) -> usize {
    if n == 1 {
        return n;
    }
    // SAFETY: nothing happens.
    unsafe { asm!("/* {n} */", n = inout(reg) n, options(pure, nomem, nostack, preserves_flags)) };
    n
}

/// The instance of a function `product::<.., T, HALVES, MINS>` for the tokens and the kind of a [`Micro`].
macro_rules! instance {
    ($product:ident $(::<$bits:ident>)?, $m:expr) => {
        match ($m.tokens, $m.kind.halves, $m.kind.mins) {
            (1, false, false) => $product::<$($bits,)? 1, false, false>,
            (2, false, false) => $product::<$($bits,)? 2, false, false>,
            (3, false, false) => $product::<$($bits,)? 3, false, false>,
            (_, false, false) => $product::<$($bits,)? 4, false, false>,
            (1, false, true) => $product::<$($bits,)? 1, false, true>,
            (2, false, true) => $product::<$($bits,)? 2, false, true>,
            (3, false, true) => $product::<$($bits,)? 3, false, true>,
            (_, false, true) => $product::<$($bits,)? 4, false, true>,
            (1, true, _) => $product::<$($bits,)? 1, true, false>,
            (2, true, _) => $product::<$($bits,)? 2, true, false>,
            (3, true, _) => $product::<$($bits,)? 3, true, false>,
            (_, true, _) => $product::<$($bits,)? 4, true, false>,
        }
    };
}
pub(in crate::x86) use instance;

/// Multiplies `8 R` rows of panel number `p`, those of registers `first .. first + R`, with a tile of `T` tokens.
///
/// # Safety
/// As [`MicroFn`](crate::panel::MicroFn), for `T` tokens, a kind of these parts, scales that are
/// [`normal`](Micro::normal), `p < count` and `first + R <= 2`.
#[inline(always)]
pub(in crate::x86) unsafe fn product<D: Dots, const R: usize, const T: usize, const HALVES: bool, const MINS: bool>(
    d: D,
    m: &Micro,
    p: usize,
    first: usize,
) {
    let panel = m.panels.wrapping_add(p);
    let codes: *const [Line; LINES] = panel.wrapping_byte_add(offset_of!(Panel, codes)).cast();
    let rows = |field: usize| panel.wrapping_byte_add(field).cast::<__m256>().wrapping_add(first);
    let scales = rows(offset_of!(Panel, scales));
    let scales_high = rows(offset_of!(Panel, scales_high));
    let mins = rows(offset_of!(Panel, mins));
    let out: *mut __m256 = m.out.wrapping_add(p).cast();
    let at = Outputs::<R, T> { first: out.wrapping_add(first), stride: 2 * m.count };
    // SAFETY: sums of panel `p`.
    let mut out = unsafe { load(at) };
    for group in 0..m.groups {
        let input = m.input.wrapping_add(group * WORDS * T);
        let field = |field: Field| input.wrapping_add(field.word(T, 0));
        // SAFETY: initialised for this group; no reference is made to others.
        let lines = unsafe { &*codes.wrapping_add(group) };
        let (start, end) = lines.split_at(LINES / 2);
        let shift = m.kind.zero_shift;
        let (negated, exponent) = (field(Field::NegatedSum), field(Field::Exponent));
        if HALVES {
            let (low, scales) = (field(Field::NegatedSumLow), scales.wrapping_add(2 * group));
            let part =
                Part { lines: start, first, input, shift, negated: low, less: None, scales, exponent, mins: None };
            // SAFETY: the first half of the lines and inputs of this group, and what belongs to it.
            unsafe { add(d, at, &mut out, part) };
            let (input, scales) = (field(Field::Line(LINES / 2)), scales_high.wrapping_add(2 * group));
            let part = Part { lines: end, first, input, shift, negated, less: Some(low), scales, exponent, mins: None };
            // SAFETY: the second half.
            unsafe { add(d, at, &mut out, part) };
        } else {
            let (scales, mins) = (scales.wrapping_add(2 * group), mins.wrapping_add(2 * group));
            let mins = MINS.then_some((mins, field(Field::ScaledSum)));
            let part = Part { lines, first, input, shift, negated, less: None, scales, exponent, mins };
            // SAFETY: the lines and inputs of this group, and what belongs to them.
            unsafe { add(d, at, &mut out, part) };
        }
    }
    // SAFETY: as at first.
    unsafe { store(at, &out) };
}

/// Lines that share a scale, and inputs of `T` tokens.
struct Part<'a> {
    lines: &'a [Line],
    /// The first register of rows.
    first: usize,
    /// `(lines.len(), T)`
    input: *const u32,
    /// Logarithm of the code of zero; above 31 if that is 0.
    shift: u32,
    /// Of each token the negated sum of the inputs; too large by that at `less`.
    negated: *const u32,
    less: Option<*const u32>,
    scales: *const __m256,
    /// Of each token.
    exponent: *const u32,
    /// Minima, and of each token the scaled sum of the inputs.
    mins: Option<(*const __m256, *const u32)>,
}

/// Where the outputs of `8 R` rows and `T` tokens are.
#[derive(Clone, Copy)]
struct Outputs<const R: usize, const T: usize> {
    first: *mut __m256,
    stride: usize,
}

/// Adds the products of one part.
///
/// # Safety
/// What the pointers of `part` lead to can be read, as its fields say; the rest is as for [`product`].
#[inline(always)]
unsafe fn add<D: Dots, const R: usize, const T: usize>(
    d: D,
    at: Outputs<R, T>,
    out: &mut Floats<R, T>,
    part: Part<'_>,
) {
    let keep = R * T <= KEPT;
    // SAFETY: one word a token, by the contract.
    let start = unsafe { start::<T>(&part) };
    // SAFETY: by the contract.
    let sums = unsafe { d.sums::<R, T>(part.lines, part.first, part.input, start) };
    if !keep {
        // SAFETY: by the contract.
        *out = unsafe { load(at) };
    }
    // SAFETY: scales of all rows, and an exponent a token.
    unsafe { add_scaled(out, &sums, part.scales, part.exponent) };
    if let Some((mins, sums)) = part.mins {
        // SAFETY: minima of all rows, and a sum a token.
        unsafe { subtract_minima(out, mins, sums) };
    }
    if !keep {
        // SAFETY: as above.
        unsafe { store(at, out) };
    }
}

/// What sums start with: the code of zero times the negated sum of the inputs.
///
/// # Safety
/// A word a token can be read at both pointers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn start<const T: usize>(part: &Part<'_>) -> [__m256i; T] {
    let mut start = [_mm256_setzero_si256(); T];
    if part.mins.is_some() {
        // The minimum takes the place of a zero.
        return start;
    }
    for (t, start) in start.iter_mut().enumerate() {
        // SAFETY: by the contract.
        let mut word = unsafe { *part.negated.wrapping_add(t) };
        if let Some(less) = part.less {
            // SAFETY: by the contract.
            word = word.wrapping_sub(unsafe { *less.wrapping_add(t) });
        }
        let shift = _mm_cvtsi32_si128(part.shift.cast_signed());
        *start = _mm256_sll_epi32(_mm256_set1_epi32(word.cast_signed()), shift);
    }
    start
}

/// `out = fma(sum, scale · 2^e, out)`: the power of two goes into the exponent of the scale.
///
/// # Safety
/// `R` times eight scales and a word a token can be read.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_scaled<const R: usize, const T: usize>(
    out: &mut Floats<R, T>,
    sums: &Integers<R, T>,
    scales: *const __m256,
    exponent: *const u32,
) {
    for (t, (out, sums)) in out.iter_mut().zip(sums).enumerate() {
        // SAFETY: a word a token.
        let power = _mm256_set1_epi32(unsafe { *exponent.wrapping_add(t) }.cast_signed());
        for (r, (out, sum)) in out.iter_mut().zip(sums).enumerate() {
            // SAFETY: `R` times eight scales.
            let scale = unsafe { _mm256_loadu_si256(scales.wrapping_add(r).cast()) };
            let scale = _mm256_castsi256_ps(_mm256_add_epi32(scale, power));
            *out = _mm256_fmadd_ps(_mm256_cvtepi32_ps(*sum), scale, *out);
        }
    }
}

/// `out = fma(-min, sum, out)`
///
/// # Safety
/// `R` times eight minima and a word a token can be read.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn subtract_minima<const R: usize, const T: usize>(
    out: &mut Floats<R, T>,
    mins: *const __m256,
    sums: *const u32,
) {
    for (t, out) in out.iter_mut().enumerate() {
        // SAFETY: a word a token.
        let sum = _mm256_set1_ps(f32::from_bits(unsafe { *sums.wrapping_add(t) }));
        for (r, out) in out.iter_mut().enumerate() {
            // SAFETY: `R` times eight minima.
            let min = unsafe { _mm256_loadu_ps(mins.wrapping_add(r).cast()) };
            *out = _mm256_fnmadd_ps(min, sum, *out);
        }
    }
}

/// # Safety
/// The outputs can be read.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn load<const R: usize, const T: usize>(at: Outputs<R, T>) -> Floats<R, T> {
    let mut out = [[_mm256_setzero_ps(); R]; T];
    for (t, out) in out.iter_mut().enumerate() {
        for (r, out) in out.iter_mut().enumerate() {
            // SAFETY: by the contract.
            *out = unsafe { _mm256_loadu_ps(at.first.wrapping_add(t * at.stride + r).cast()) };
        }
    }
    out
}

/// # Safety
/// The outputs can be written.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn store<const R: usize, const T: usize>(at: Outputs<R, T>, out: &Floats<R, T>) {
    for (t, out) in out.iter().enumerate() {
        for (r, out) in out.iter().enumerate() {
            // SAFETY: by the contract.
            unsafe { _mm256_storeu_ps(at.first.wrapping_add(t * at.stride + r).cast(), *out) };
        }
    }
}
