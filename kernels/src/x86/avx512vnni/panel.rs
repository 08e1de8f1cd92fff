//! The micro-kernel: 48 rows by four tokens.
//!
//! ```text
//! registers: 12 sums (16 rows each), 6 lines (2 of each panel), 2 inputs
//! a pair of lines:  for 2 tokens, 2 lines, 3 panels:  vpdpbusd sum, line, input      then the other 2 tokens
//! ```
//! Built on `vpdpbusd zmm`, u8 codes by s8 inputs into i32, of which Zen 4, Zen 5 and Ice Lake start one or two a cycle. The
//! order decides: six products between two uses of a sum keep Zen 5 at 97 % of its peak, eight at 93 %, sixteen at 77 %
//! (sums come from the bypass network, not from the register file). So instructions stand here one by one, in `asm!`,
//! whose order the compiler keeps; left to itself it hoists loads until it spills.

use std::arch::asm;
use std::arch::x86_64::*;

use crate::panel::{Micro, Panel};
use crate::quantized::{Field, LINES, WORDS};
use crate::scalar;

/// Loads a line of a panel.
macro_rules! line {
    ($at:expr) => {{
        let line: __m512i;
        // SAFETY: reads 64 bytes of a group of a panel, initialised by the contract of `micro`; keeps no other register.
        unsafe {
            asm!("vmovdqa64 {line}, [{at}]", line = out(zmm_reg) line, at = in(reg) $at,
                options(nostack, preserves_flags, readonly));
        }
        line
    }};
}

/// Loads four inputs of a token into every lane.
macro_rules! input {
    ($at:expr) => {{
        let input: __m512i;
        // SAFETY: reads one word of the input, there by the contract of `micro`.
        unsafe {
            asm!("vpbroadcastd {input}, dword ptr [{at}]", input = out(zmm_reg) input, at = in(reg) $at,
                options(nostack, preserves_flags, readonly));
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
    // SAFETY: the contract is the same.
    unsafe {
        match (m.normal, m.count) {
            (false, _) => scalar::panel::micro(m),
            (_, 1) => tokens::<1>(m),
            (_, 2) => tokens::<2>(m),
            (_, _) => tokens::<3>(m),
        }
    }
}

/// By number of tokens and kind.
///
/// # Safety
/// As [`micro`], for `P` panels of finite scales.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn tokens<const P: usize>(m: &Micro) {
    // SAFETY: the contract is the same.
    unsafe {
        match (m.tokens, m.kind.halves, m.kind.mins) {
            (1, false, false) => product::<1, P, false, false>(m),
            (2, false, false) => product::<2, P, false, false>(m),
            (3, false, false) => product::<3, P, false, false>(m),
            (_, false, false) => product::<4, P, false, false>(m),
            (1, false, true) => product::<1, P, false, true>(m),
            (2, false, true) => product::<2, P, false, true>(m),
            (3, false, true) => product::<3, P, false, true>(m),
            (_, false, true) => product::<4, P, false, true>(m),
            (1, true, _) => product::<1, P, true, false>(m),
            (2, true, _) => product::<2, P, true, false>(m),
            (3, true, _) => product::<3, P, true, false>(m),
            (_, true, _) => product::<4, P, true, false>(m),
        }
    }
}

/// `T` tokens by `P` panels.
///
/// # Safety
/// As [`micro`], for these numbers and kind, and finite scales.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn product<const T: usize, const P: usize, const HALVES: bool, const MINS: bool>(m: &Micro) {
    let zero_shift = _mm_cvtsi32_si128(m.kind.zero_shift.cast_signed());
    let start = |sum: u32| [_mm512_sll_epi32(_mm512_set1_epi32(sum.cast_signed()), zero_shift); P];
    let mut input = m.input;
    for group in 0..m.groups {
        // SAFETY: one of the `WORDS * T` words of this group.
        let word = |field: Field, t: usize| unsafe { *input.add(field.word(T, t)) };
        let mut sums = [[_mm512_setzero_si512(); P]; T];
        for (t, sums) in sums.iter_mut().enumerate() {
            *sums = start(word(if HALVES { Field::NegatedSumLow } else { Field::NegatedSum }, t));
        }
        for pair in 0..LINES / 2 {
            if HALVES && pair == LINES / 4 {
                // SAFETY: initialised for this group, as every kind has these; the group's words are at `input`.
                unsafe { add_scaled(&sums, m, input, |panel| (&raw const (*panel).scales[group]).cast()) };
                for (t, sums) in sums.iter_mut().enumerate() {
                    *sums = start(word(Field::NegatedSum, t).wrapping_sub(word(Field::NegatedSumLow, t)));
                }
            }
            let mut lines = [[_mm512_setzero_si512(); P]; 2];
            for (l, lines) in lines.iter_mut().enumerate() {
                for (p, line) in lines.iter_mut().enumerate() {
                    // SAFETY: a line of this group of one of `P` panels.
                    let at: *const u8 = unsafe { (&raw const (*m.panels.add(p)).codes[group][2 * pair + l]).cast() };
                    *line = line!(at);
                }
            }
            for two in (0..T).step_by(2) {
                for (l, lines) in lines.iter().enumerate() {
                    for t in two..T.min(two + 2) {
                        let at = input.wrapping_add(Field::Line(2 * pair + l).word(T, t));
                        let input = input!(at);
                        for (sum, line) in sums[t].iter_mut().zip(lines) {
                            dot!(*sum, *line, input);
                        }
                    }
                }
            }
        }
        // SAFETY: initialised for this group, `scales_high` if the kind has two scales; the group's words are at `input`.
        unsafe {
            if HALVES {
                add_scaled(&sums, m, input, |panel| (&raw const (*panel).scales_high[group]).cast());
            } else {
                add_scaled(&sums, m, input, |panel| (&raw const (*panel).scales[group]).cast());
            }
        }
        if MINS {
            for t in 0..T {
                let sum = _mm512_set1_ps(f32::from_bits(word(Field::ScaledSum, t)));
                for p in 0..P {
                    // SAFETY: initialised, as the kind has minima.
                    let min = unsafe { _mm512_load_ps((&raw const (*m.panels.add(p)).mins[group]).cast()) };
                    // SAFETY: one of `T * P` sums.
                    let out: *mut f32 = unsafe { m.out.add(t * P + p) }.cast();
                    // SAFETY: as above.
                    unsafe { _mm512_storeu_ps(out, _mm512_fnmadd_ps(min, sum, _mm512_loadu_ps(out))) };
                }
            }
        }
        input = input.wrapping_add(WORDS * T);
    }
}

/// `out = fma(sum, scale · 2^e, out)`: the power of two goes into the exponent of the scale.
///
/// # Safety
/// As [`micro`]; `scales` gives 16 aligned scales of a panel, and the words of the group are at `input`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn add_scaled<const T: usize, const P: usize>(
    sums: &[[__m512i; P]; T],
    m: &Micro,
    input: *const u32,
    scales: impl Fn(*const Panel) -> *const f32,
) {
    let mut bits = [_mm512_setzero_si512(); P];
    for (p, bits) in bits.iter_mut().enumerate() {
        // SAFETY: one of `P` panels.
        let panel = unsafe { m.panels.add(p) };
        // SAFETY: by the contract of this function.
        *bits = unsafe { _mm512_castps_si512(_mm512_load_ps(scales(panel))) };
    }
    for (t, sums) in sums.iter().enumerate() {
        // SAFETY: one of the `WORDS * T` words of the group.
        let power = unsafe { *input.add(Field::Exponent.word(T, t)) };
        let power = _mm512_set1_epi32(power.cast_signed());
        for (p, (&sum, &bits)) in sums.iter().zip(&bits).enumerate() {
            let scale = _mm512_castsi512_ps(_mm512_add_epi32(bits, power));
            // SAFETY: one of `T * P` sums.
            let out: *mut f32 = unsafe { m.out.add(t * P + p) }.cast();
            // SAFETY: as above.
            unsafe { _mm512_storeu_ps(out, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, _mm512_loadu_ps(out))) };
        }
    }
}
