//! The loops of a micro-kernel of 256 bits, `8 R` rows by up to four tokens. Tiers differ in `R` and in how they sum
//! products.
//!
//! ```text
//! register h of rows:   half h % 2 of panel h / 2
//! for R registers, then the next R:
//!   for each group (for each half of one, if it has two scales):
//!     R T sums of 8 rows  =  start + 8 lines · inputs of T tokens
//!     outputs             =  fma(sum, scale · 2^e, output), then fma(-min, Σ input · 2^e, output)
//! ```
//! With few sums outputs stay in registers, as the way through memory would be the longest chain, 14 cycles a group;
//! more sums need those registers.

use std::arch::asm;
use std::arch::x86_64::*;
use std::array;
use std::mem::offset_of;

use crate::panel::{Micro, Panel, ROWS, Sums};
use crate::quantized::{Field, LINES, WORDS};

/// A line of codes.
pub(in crate::x86) type Line = [u8; 4 * ROWS];

/// Sums of `8 R` rows by `T` tokens.
pub(in crate::x86) type Integers<const R: usize, const T: usize> = [[__m256i; R]; T];

/// Outputs of as many.
type Floats<const R: usize, const T: usize> = [[__m256; R]; T];

/// How products of codes and inputs are summed. A value is the proof that this CPU can do it.
pub(in crate::x86) trait Dots: Copy {
    /// So many registers of outputs, or fewer, are kept from group to group.
    const KEPT: usize;

    /// `sums[token][r] = start[token] + Σ codes[line][r] · input[line][token]` for `R` registers of rows, where `start`
    /// makes up for the code of zero. Who takes that off the codes needs no `start`.
    ///
    /// # Safety
    /// - The codes of a register, 32 bytes, can be read at each of `codes`, aligned, and so in each of `lines` lines
    ///   from there on, at most [`LINES`]; they are as the kind of the panel says.
    /// - `input: (lines, T)` can be read, inputs within ±127.
    unsafe fn sums<const R: usize, const T: usize>(
        self,
        codes: [*const Line; R],
        lines: usize,
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

/// Multiplies all panels, `R` registers of rows at a time, with a tile of `T` tokens.
///
/// # Safety
/// As [`MicroFn`](crate::panel::MicroFn), for `T` tokens, a kind of these parts, scales that are
/// [`normal`](Micro::normal), and `2 * count` a multiple of `R`.
#[inline(always)]
pub(in crate::x86) unsafe fn product<D: Dots, const R: usize, const T: usize, const HALVES: bool, const MINS: bool>(
    d: D,
    m: &Micro,
) {
    for first in (0..2 * m.count).step_by(R) {
        // SAFETY: the contract is the same, and there are `2 * count` registers, a multiple of `R`.
        unsafe { registers::<D, R, T, HALVES, MINS>(d, m, first) };
    }
}

/// Multiplies registers `first .. first + R`.
///
/// # Safety
/// As [`product`]; there are so many.
#[inline(always)]
unsafe fn registers<D: Dots, const R: usize, const T: usize, const HALVES: bool, const MINS: bool>(
    d: D,
    m: &Micro,
    first: usize,
) {
    let rows = Rows::<R>::new(m, first);
    let out: *mut __m256 = m.out.cast();
    let at = Outputs { first: out.wrapping_add(first), stride: 2 * m.count };
    let mut out: Option<Floats<R, T>> = None;
    if R * T <= D::KEPT {
        // SAFETY: outputs of these registers.
        out = Some(unsafe { load(at, T) });
    }
    for group in 0..m.groups {
        let input = m.input.wrapping_add(group * WORDS * T);
        let field = |field: Field| input.wrapping_add(field.word(T, 0));
        let codes = rows.field(offset_of!(Panel, codes), LINES * group);
        let scales = rows.field(offset_of!(Panel, scales), group);
        let shift = m.kind.zero_shift;
        let (negated, exponent) = (field(Field::NegatedSum), field(Field::Exponent));
        if HALVES {
            let (lines, low) = (LINES / 2, field(Field::NegatedSumLow));
            let part = Part { codes, lines, input, shift, negated: low, less: None, scales, exponent, mins: None };
            // SAFETY: the first half of the lines and inputs of this group, and what belongs to it.
            unsafe { add(d, at, &mut out, part) };
            let codes = rows.field(offset_of!(Panel, codes), LINES * group + lines);
            let scales = rows.field(offset_of!(Panel, scales_high), group);
            let (input, less) = (field(Field::Line(lines)), Some(low));
            let part = Part { codes, lines, input, shift, negated, less, scales, exponent, mins: None };
            // SAFETY: the second half.
            unsafe { add(d, at, &mut out, part) };
        } else {
            let mins = MINS.then(|| (rows.field(offset_of!(Panel, mins), group), field(Field::ScaledSum)));
            let part = Part { codes, lines: LINES, input, shift, negated, less: None, scales, exponent, mins };
            // SAFETY: the lines and inputs of this group, and what belongs to them.
            unsafe { add(d, at, &mut out, part) };
        }
    }
    if let Some(out) = out {
        // SAFETY: as at first.
        unsafe { store(at, &out, T) };
    }
}

/// Where what belongs to each of `R` registers of rows begins, in the first field of its panel.
struct Rows<const R: usize>([*const u8; R]);

impl<const R: usize> Rows<R> {
    /// Registers `first .. first + R`.
    #[inline(always)]
    fn new(m: &Micro, first: usize) -> Self {
        Self(array::from_fn(|r| {
            let (panel, half) = ((first + r) / 2, (first + r) % 2);
            m.panels.wrapping_add(panel).cast::<u8>().wrapping_add(half * size_of::<__m256>())
        }))
    }

    /// The same place of number `n` of the lines, or of the arrays of scales, that make up the field at `offset`.
    #[inline(always)]
    fn field<L>(&self, offset: usize, n: usize) -> [*const L; R] {
        const { assert!(size_of::<L>() == size_of::<Line>()) };
        self.0.map(|at| at.wrapping_add(offset).cast::<L>().wrapping_add(n))
    }
}

/// Lines that share a scale, and inputs of `T` tokens.
struct Part<const R: usize> {
    codes: [*const Line; R],
    lines: usize,
    /// `(lines, T)`
    input: *const u32,
    /// Logarithm of the code of zero; above 31 if that is 0.
    shift: u32,
    /// Of each token the negated sum of the inputs; too large by that at `less`.
    negated: *const u32,
    less: Option<*const u32>,
    scales: [*const Sums; R],
    /// Of each token.
    exponent: *const u32,
    /// Minima, and of each token the scaled sum of the inputs.
    mins: Option<([*const Sums; R], *const u32)>,
}

/// Where the outputs of `R` registers of rows are.
#[derive(Clone, Copy)]
struct Outputs {
    /// Of the first token.
    first: *mut __m256,
    /// Registers from a token to the next.
    stride: usize,
}

impl Outputs {
    /// Those of token `t` and the next ones.
    #[inline(always)]
    fn token(self, t: usize) -> Self {
        Self { first: self.first.wrapping_add(t * self.stride), ..self }
    }
}

/// Adds the products of one part, to `out` or to memory.
///
/// # Safety
/// What the pointers of `part` lead to can be read, as its fields say; the rest is as for [`product`].
#[inline(always)]
unsafe fn add<D: Dots, const R: usize, const T: usize>(
    d: D,
    at: Outputs,
    out: &mut Option<Floats<R, T>>,
    part: Part<R>,
) {
    // SAFETY: one word a token, by the contract.
    let start = unsafe { start::<R, T>(&part) };
    // SAFETY: by the contract.
    let sums = unsafe { d.sums::<R, T>(part.codes, part.lines, part.input, start) };
    read_again();
    if let Some(kept) = out {
        for (t, (out, sums)) in kept.iter_mut().zip(&sums).enumerate() {
            // SAFETY: by the contract.
            unsafe { add_scaled(out, sums, &part, t) };
            // SAFETY: by the contract.
            unsafe { take_minima(out, &part, t) };
        }
        return;
    }
    // Two tokens at a time: all of them need more registers than there are; one by one is up to 6 % slower on Zen 5.
    for (pair, sums) in sums.chunks(2).enumerate() {
        let at = at.token(2 * pair);
        read_again();
        // SAFETY: by the contract, as there are sums of these tokens.
        let mut out: Floats<R, 2> = unsafe { load(at, sums.len()) };
        for (t, (out, sums)) in out.iter_mut().zip(sums).enumerate() {
            // SAFETY: by the contract.
            unsafe { add_scaled(out, sums, &part, 2 * pair + t) };
        }
        if part.mins.is_some() {
            // Scales and minima at a time are too many registers.
            read_again();
            for (t, out) in out.iter_mut().enumerate().take(sums.len()) {
                // SAFETY: by the contract.
                unsafe { take_minima(out, &part, 2 * pair + t) };
            }
        }
        // SAFETY: as above.
        unsafe { store(at, &out, sums.len()) };
    }
}

/// Has the compiler read memory again, and not before: it would read scales early, and keep outputs, in registers that
/// sums need.
#[inline(always)]
fn read_again() {
    // SAFETY: nothing happens.
    unsafe { asm!("", options(nostack, preserves_flags)) };
}

/// What sums start with: the code of zero times the negated sum of the inputs.
///
/// # Safety
/// A word a token can be read at both pointers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn start<const R: usize, const T: usize>(part: &Part<R>) -> [__m256i; T] {
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

/// Of token `t`, `out = fma(sum, scale · 2^e, out)`. The power of two goes into the exponent of the scale. For one
/// token, as the compiler does not inline functions for more.
///
/// # Safety
/// Scales of `R` registers, and words of more than `t` tokens, can be read.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_scaled<const R: usize>(out: &mut [__m256; R], sums: &[__m256i; R], part: &Part<R>, t: usize) {
    // SAFETY: a word a token.
    let power = _mm256_set1_epi32(unsafe { *part.exponent.wrapping_add(t) }.cast_signed());
    for (r, (out, sum)) in out.iter_mut().zip(sums).enumerate() {
        // SAFETY: eight scales.
        let scale = unsafe { _mm256_loadu_si256(part.scales[r].cast()) };
        let scale = _mm256_castsi256_ps(_mm256_add_epi32(scale, power));
        *out = _mm256_fmadd_ps(_mm256_cvtepi32_ps(*sum), scale, *out);
    }
}

/// Of token `t`, `out = fma(-min, Σ input · 2^e, out)`, if there are minima.
///
/// # Safety
/// Minima of `R` registers, and words of more than `t` tokens, can be read.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn take_minima<const R: usize>(out: &mut [__m256; R], part: &Part<R>, t: usize) {
    let Some((mins, sums)) = part.mins else { return };
    // SAFETY: a word a token.
    let sum = _mm256_set1_ps(f32::from_bits(unsafe { *sums.wrapping_add(t) }));
    for (out, min) in out.iter_mut().zip(mins) {
        // SAFETY: eight minima.
        let min = unsafe { _mm256_loadu_ps(min.cast()) };
        *out = _mm256_fnmadd_ps(min, sum, *out);
    }
}

/// Reads the outputs of the first `tokens <= N` tokens.
///
/// # Safety
/// They can be read.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn load<const R: usize, const N: usize>(at: Outputs, tokens: usize) -> Floats<R, N> {
    let mut out = [[_mm256_setzero_ps(); R]; N];
    for (t, out) in out.iter_mut().enumerate().take(tokens) {
        for (r, out) in out.iter_mut().enumerate() {
            // SAFETY: by the contract.
            *out = unsafe { _mm256_loadu_ps(at.token(t).first.wrapping_add(r).cast()) };
        }
    }
    out
}

/// Writes the outputs of the first `tokens <= N` tokens.
///
/// # Safety
/// They can be written.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn store<const R: usize, const N: usize>(at: Outputs, out: &Floats<R, N>, tokens: usize) {
    for (t, out) in out.iter().enumerate().take(tokens) {
        for (r, out) in out.iter().enumerate() {
            // SAFETY: by the contract.
            unsafe { _mm256_storeu_ps(at.token(t).first.wrapping_add(r).cast(), *out) };
        }
    }
}
