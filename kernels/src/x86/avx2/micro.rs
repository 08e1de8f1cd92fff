//! The loops of a micro-kernel of 256 bits, 16 rows by up to four tokens. Tiers differ in how they sum products.
//!
//! ```text
//! for each group (for each half of one, if it has two scales):
//!   2 T sums of 8 rows  =  start + 8 lines · inputs of T tokens
//!   outputs             =  fma(sum, scale · 2^e, output), then fma(-min, Σ input · 2^e, output)
//! ```
//! With one or two tokens outputs stay in registers, as the way through memory would be the longest chain, 14 cycles a group;
//! with more, sums need those registers.

use std::arch::x86_64::*;
use std::mem::offset_of;

use crate::panel::{Micro, Panel, ROWS, Sums};
use crate::quantized::{Field, LINES, WORDS};

/// A line of codes.
pub(in crate::x86) type Line = [u8; 4 * ROWS];

/// Sixteen sums of a token: two registers.
pub(in crate::x86) type Integers = [__m256i; 2];

/// Sixteen outputs of a token: two registers.
type Floats = [__m256; 2];

/// How products of codes and inputs are summed. A value is the proof that this CPU can do it.
pub(in crate::x86) trait Dots: Copy {
    /// `sums[token][row] = start[token] + Σ lines[line][row] · input[line][token]`, where `start` makes up for the code of zero.
    /// Who takes that off the codes has no need of `start`.
    ///
    /// # Safety
    /// `input: (lines.len(), T)` can be read, inputs within ±127; codes are as the kind of the panel says.
    unsafe fn sums<const T: usize>(self, lines: &[Line], input: *const u32, start: [__m256i; T]) -> [Integers; T];
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

/// Multiplies panel number `p` with a tile of `T` tokens.
///
/// # Safety
/// As [`MicroFn`](crate::panel::MicroFn), for `T` tokens, a kind of these parts, scales that are
/// [`normal`](Micro::normal), and `p < count`.
#[inline(always)]
pub(in crate::x86) unsafe fn product<D: Dots, const T: usize, const HALVES: bool, const MINS: bool>(
    d: D,
    m: &Micro,
    p: usize,
) {
    let panel = m.panels.wrapping_add(p);
    let codes: *const [Line; LINES] = panel.wrapping_byte_add(offset_of!(Panel, codes)).cast();
    let scales: *const Sums = panel.wrapping_byte_add(offset_of!(Panel, scales)).cast();
    let scales_high: *const Sums = panel.wrapping_byte_add(offset_of!(Panel, scales_high)).cast();
    let mins: *const Sums = panel.wrapping_byte_add(offset_of!(Panel, mins)).cast();
    let at = Outputs::<T> { first: m.out.wrapping_add(p), stride: m.count };
    // SAFETY: these are the sums of panel `p`.
    let mut out = unsafe { load(at) };
    for group in 0..m.groups {
        let input = m.input.wrapping_add(group * WORDS * T);
        let field = |field: Field| input.wrapping_add(field.word(T, 0));
        // SAFETY: initialised for this group; no reference is made to others.
        let lines = unsafe { &*codes.wrapping_add(group) };
        let (first, last) = lines.split_at(LINES / 2);
        let shift = m.kind.zero_shift;
        let (negated, exponent) = (field(Field::NegatedSum), field(Field::Exponent));
        if HALVES {
            let (low, scales) = (field(Field::NegatedSumLow), scales.wrapping_add(group));
            let part = Part { lines: first, input, shift, negated: low, less: None, scales, exponent, mins: None };
            // SAFETY: the first half of the lines and inputs of this group, and what belongs to it.
            unsafe { add(d, at, &mut out, part) };
            let (input, scales) = (field(Field::Line(LINES / 2)), scales_high.wrapping_add(group));
            let part = Part { lines: last, input, shift, negated, less: Some(low), scales, exponent, mins: None };
            // SAFETY: the second half.
            unsafe { add(d, at, &mut out, part) };
        } else {
            let (scales, mins) = (scales.wrapping_add(group), mins.wrapping_add(group));
            let mins = MINS.then_some((mins, field(Field::ScaledSum)));
            let part = Part { lines, input, shift, negated, less: None, scales, exponent, mins };
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
    /// `(lines.len(), T)`
    input: *const u32,
    /// Logarithm of the code of zero; above 31 if that is 0.
    shift: u32,
    /// Of each token the negated sum of the inputs; too large by that at `less`.
    negated: *const u32,
    less: Option<*const u32>,
    scales: *const Sums,
    /// Of each token.
    exponent: *const u32,
    /// Minima, and of each token the scaled sum of the inputs.
    mins: Option<(*const Sums, *const u32)>,
}

/// Where the outputs of `T` tokens are, each 16 `f32`.
#[derive(Clone, Copy)]
struct Outputs<const T: usize> {
    first: *mut Sums,
    stride: usize,
}

/// Adds the products of one part.
///
/// # Safety
/// What the pointers of `part` lead to can be read, as its fields say; the rest is as for [`product`].
#[inline(always)]
unsafe fn add<D: Dots, const T: usize>(d: D, at: Outputs<T>, out: &mut [Floats; T], part: Part<'_>) {
    // SAFETY: one word a token, by the contract.
    let start = unsafe { start::<T>(&part) };
    // SAFETY: by the contract.
    let sums = unsafe { d.sums::<T>(part.lines, part.input, start) };
    if T > 2 {
        // SAFETY: the sums of `T` tokens.
        *out = unsafe { load(at) };
    }
    // SAFETY: 16 scales, and an exponent a token.
    unsafe { add_scaled(out, &sums, part.scales, part.exponent) };
    if let Some((mins, sums)) = part.mins {
        // SAFETY: 16 minima, and a sum a token.
        unsafe { subtract_minima(out, mins, sums) };
    }
    if T > 2 {
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
/// `scales` and a word a token can be read.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_scaled<const T: usize>(
    out: &mut [Floats; T],
    sums: &[Integers; T],
    scales: *const Sums,
    exponent: *const u32,
) {
    // SAFETY: 16 numbers.
    let scales = unsafe { pair(scales) };
    for t in 0..T {
        // SAFETY: a word a token.
        let power = _mm256_set1_epi32(unsafe { *exponent.wrapping_add(t) }.cast_signed());
        for h in 0..2 {
            let scale = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(scales[h]), power));
            out[t][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[t][h]), scale, out[t][h]);
        }
    }
}

/// `out = fma(-min, sum, out)`
///
/// # Safety
/// `mins` and a word a token can be read.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn subtract_minima<const T: usize>(out: &mut [Floats; T], mins: *const Sums, sums: *const u32) {
    // SAFETY: 16 numbers.
    let mins = unsafe { pair(mins) };
    for t in 0..T {
        // SAFETY: a word a token.
        let sum = _mm256_set1_ps(f32::from_bits(unsafe { *sums.wrapping_add(t) }));
        for h in 0..2 {
            out[t][h] = _mm256_fnmadd_ps(mins[h], sum, out[t][h]);
        }
    }
}

/// 16 numbers.
///
/// # Safety
/// They can be read.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn pair(at: *const Sums) -> Floats {
    let at: *const f32 = at.cast();
    // SAFETY: the first eight of 16.
    let first = unsafe { _mm256_loadu_ps(at) };
    // SAFETY: the last eight.
    [first, unsafe { _mm256_loadu_ps(at.wrapping_add(8)) }]
}

/// # Safety
/// The outputs of `T` tokens can be read.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn load<const T: usize>(at: Outputs<T>) -> [Floats; T] {
    let mut out = [[_mm256_setzero_ps(); 2]; T];
    for (t, out) in out.iter_mut().enumerate() {
        // SAFETY: by the contract.
        *out = unsafe { pair(at.first.wrapping_add(t * at.stride)) };
    }
    out
}

/// # Safety
/// The outputs of `T` tokens can be written.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn store<const T: usize>(at: Outputs<T>, out: &[Floats; T]) {
    for (t, [first, last]) in out.iter().enumerate() {
        let at: *mut f32 = at.first.wrapping_add(t * at.stride).cast();
        // SAFETY: the first eight of 16 outputs of a token.
        unsafe { _mm256_storeu_ps(at, *first) };
        // SAFETY: the last eight.
        unsafe { _mm256_storeu_ps(at.wrapping_add(8), *last) };
    }
}
