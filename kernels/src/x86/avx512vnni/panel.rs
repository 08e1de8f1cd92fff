//! The micro-kernel: 48 rows by four tokens.
//!
//! ```text
//! registers: 12 sums (16 rows each), 6 lines (2 of each panel), 2 inputs
//! a pair of lines:  for 2 tokens, 2 lines, 3 panels:  vpdpbusd sum, line, input      then the other 2 tokens
//! ```
//! Built on `vpdpbusd zmm`, u8 codes by s8 inputs into i32, of which Zen 4, Zen 5 and Ice Lake start one or two a
//! cycle. The order decides: six products between two uses of a sum keep Zen 5 at 97 % of its peak, eight at 93 %,
//! sixteen at 77 % (sums come from the bypass network, not from the register file). So instructions stand here one by
//! one, in `asm!`, whose order the compiler keeps; left to itself it hoists loads until it spills.

use std::arch::asm;
use std::arch::x86_64::*;
use std::mem::offset_of;

use crate::panel::{Micro, Panel, ROWS, Sums, instance};
use crate::quantized::{Field, LINES, WORDS};
use crate::scalar;
use crate::x86::avx2::micro::Line;

/// Loads a line of a group of a panel.
macro_rules! line {
    ($group:expr, $line:expr) => {{
        let line: __m512i;
        // SAFETY: reads 64 bytes of a group of a panel, initialised by the contract of `micro`; keeps no other
        // register.
        unsafe {
            asm!("vmovdqa64 {line}, [{at} + {offset}]", line = out(zmm_reg) line, at = in(reg) $group,
                offset = const 4 * ROWS * $line, options(nostack, preserves_flags, readonly));
        }
        line
    }};
}

/// Loads four inputs of a token into every lane.
macro_rules! input {
    ($group:expr, $word:expr) => {{
        let input: __m512i;
        // SAFETY: reads one word of the input, there by the contract of `micro`.
        unsafe {
            asm!("vpbroadcastd {input}, dword ptr [{at} + {offset}]", input = out(zmm_reg) input, at = in(reg) $group,
                offset = const 4 * $word, options(nostack, preserves_flags, readonly));
        }
        input
    }};
}

/// Adds the products of 16 rows by four inputs.
macro_rules! dot {
    ($sum:expr, $line:expr, $input:expr) => {
        // SAFETY: registers only; `readonly` and not `pure` keeps the order of these statements.
        unsafe {
            asm!("vpdpbusd {sum}, {line}, {input}", sum = inout(zmm_reg) $sum, line = in(zmm_reg) $line,
                input = in(zmm_reg) $input, options(nostack, preserves_flags, readonly));
        }
    };
}

/// A [`MicroFn`](crate::panel::MicroFn).
///
/// # Safety
/// As there.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn micro(m: &Micro) {
    let product: unsafe fn(&Micro) = match (m.normal, m.count) {
        (false, _) => scalar::panel::micro,
        (_, 1) => of_panels::<1>(m),
        (_, 2) => of_panels::<2>(m),
        (_, _) => of_panels::<3>(m),
    };
    // SAFETY: the contract is the same; it is the function for `m`.
    unsafe { product(m) };
}

/// The instance for `P` panels, and the tokens and the kind of `m`.
fn of_panels<const P: usize>(m: &Micro) -> unsafe fn(&Micro) {
    instance!(product::<P>, m)
}

/// `P` panels by `T` tokens.
///
/// # Safety
/// As [`micro`], for these numbers, a kind of these parts, and scales that are [`normal`](Micro::normal).
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn product<const P: usize, const T: usize, const HALVES: bool, const MINS: bool>(m: &Micro) {
    let zero_shift = _mm_cvtsi32_si128(m.kind.zero_shift.cast_signed());
    let start = |sum: u32| [_mm512_sll_epi32(_mm512_set1_epi32(sum.cast_signed()), zero_shift); P];
    for group in 0..m.groups {
        let input = m.input.wrapping_add(group * WORDS * T);
        // SAFETY: one of the `WORDS * T` words of this group.
        let word = |field: Field, t: usize| unsafe { *input.wrapping_add(field.word(T, t)) };
        let mut sums = [[_mm512_setzero_si512(); P]; T];
        // A minimum takes the place of a zero.
        for (t, sums) in sums.iter_mut().enumerate().filter(|_| !MINS) {
            *sums = start(word(if HALVES { Field::NegatedSumLow } else { Field::NegatedSum }, t));
        }
        let codes: [*const Line; P] = std::array::from_fn(|p| rows(m, p, offset_of!(Panel, codes)))
            .map(|codes: *const Line| codes.wrapping_add(group * LINES));
        macro_rules! for_token {
            ($pair:literal, $lines:ident, $l:literal, $t:literal) => {
                if $t < T {
                    let input = input!(input, Field::Line(2 * $pair + $l).word(T, $t));
                    for p in 0..P {
                        dot!(sums[$t][p], $lines[$l][p], input);
                    }
                }
            };
        }
        macro_rules! for_tokens {
            ($pair:literal, $lines:ident, $t:literal, $next:literal) => {
                for_token!($pair, $lines, 0, $t);
                for_token!($pair, $lines, 0, $next);
                for_token!($pair, $lines, 1, $t);
                for_token!($pair, $lines, 1, $next);
            };
        }
        // Written out: as a loop, every round moves registers.
        macro_rules! pair {
            ($pair:literal) => {
                if HALVES && $pair == LINES / 4 {
                    // SAFETY: initialised for this group, as every kind has these; the group's words are at `input`.
                    unsafe { add_scaled::<P, T, false>(&sums, m, input, offset_of!(Panel, scales), group) };
                    for (t, sums) in sums.iter_mut().enumerate() {
                        *sums = start(word(Field::NegatedSum, t).wrapping_sub(word(Field::NegatedSumLow, t)));
                    }
                }
                let mut lines = [[_mm512_setzero_si512(); P]; 2];
                for p in 0..P {
                    lines[0][p] = line!(codes[p], 2 * $pair);
                }
                for p in 0..P {
                    lines[1][p] = line!(codes[p], 2 * $pair + 1);
                }
                for_tokens!($pair, lines, 0, 1);
                for_tokens!($pair, lines, 2, 3);
            };
        }
        pair!(0);
        pair!(1);
        pair!(2);
        pair!(3);
        let scales = if HALVES { offset_of!(Panel, scales_high) } else { offset_of!(Panel, scales) };
        // SAFETY: initialised for this group, `scales_high` as the kind has two scales; the group's words are at
        // `input`.
        unsafe { add_scaled::<P, T, MINS>(&sums, m, input, scales, group) };
    }
}

/// Where a field of panel number `p` begins.
fn rows<R>(m: &Micro, p: usize, field: usize) -> *const R {
    m.panels.wrapping_add(p).wrapping_byte_add(field).cast()
}

/// `out = fma(sum, scale · 2^e, out)`, then `fma(-min, Σ input · 2^e, out)`. The power of two goes into the exponent of
/// the scale.
///
/// # Safety
/// As [`micro`]; `scales` is the place of initialised scales in a panel, and the words of the group are at `input`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn add_scaled<const P: usize, const T: usize, const MINS: bool>(
    sums: &[[__m512i; P]; T],
    m: &Micro,
    input: *const u32,
    scales: usize,
    group: usize,
) {
    let mut bits = [_mm512_setzero_si512(); P];
    let mut mins = [_mm512_setzero_ps(); P];
    for p in 0..P {
        let scales: *const Sums = rows(m, p, scales);
        // SAFETY: initialised, by the contract of this function.
        bits[p] = unsafe { _mm512_loadu_si512(scales.wrapping_add(group).cast()) };
        if MINS {
            let at: *const Sums = rows(m, p, offset_of!(Panel, mins));
            // SAFETY: initialised, as the kind has minima.
            mins[p] = unsafe { _mm512_loadu_ps(at.wrapping_add(group).cast()) };
        }
    }
    for (t, sums) in sums.iter().enumerate() {
        // SAFETY: one of the `WORDS * T` words of the group.
        let word = |field: Field| unsafe { *input.wrapping_add(field.word(T, t)) };
        let power = _mm512_set1_epi32(word(Field::Exponent).cast_signed());
        for (p, &sum) in sums.iter().enumerate() {
            let scale = _mm512_castsi512_ps(_mm512_add_epi32(bits[p], power));
            let at: *mut f32 = m.out.wrapping_add(t * P + p).cast();
            // SAFETY: one of `T * P` sums.
            let mut out = unsafe { _mm512_loadu_ps(at) };
            out = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, out);
            if MINS {
                let sum = _mm512_set1_ps(f32::from_bits(word(Field::ScaledSum)));
                out = _mm512_fnmadd_ps(mins[p], sum, out);
            }
            // SAFETY: as above.
            unsafe { _mm512_storeu_ps(at, out) };
        }
    }
}
