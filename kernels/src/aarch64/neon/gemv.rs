//! Products with one tile of tokens, as [`crate::panel::gemv`] describes them, for the registers of Arm.
//!
//! ```text
//! a stored line:   low  = line & 15,         and the bits of planes      codes
//!                  high = line >> 4, signed, and the bits of planes      codes less 8, as the layout flips their fourth bit
//! a group:         BASE + Σ low · input + Σ high · input, then as in `micro`
//! ```
//! An input is a lane of a register, which four of them share.

use std::array;
use std::marker::PhantomData;

use super::intrinsics::*;
use super::lanes::{Neon, each};
use super::micro::{copy, less, power, start, twice};
use crate::aarch64::mem;
use crate::panel::Sums;
use crate::panel::build::{Lanes, Line, SLOTS, Scales, Sink, Source, StoredGroup, StoredLanes};
use crate::panel::gemv::Gemv;
use crate::quantized::{Field, LINES, WORDS};

/// How one line is multiplied. A value is the proof that this CPU can do it.
pub(in crate::aarch64) trait Dot: Copy {
    /// Sums of sixteen rows, of which [`total`](Self::total) knows the meaning.
    type Sums: Copy;

    /// The sums of nothing, for a group of these inputs.
    fn open(self, inputs: *const u32) -> Self::Sums;

    /// Adds the products of signed codes and four inputs within ±127, `word` of those at `inputs`. A group, of 8 lines,
    /// may be added, of codes within ±31; half of one, if they are larger.
    ///
    /// # Safety
    /// As many words as a multiple of four, of which `word` is one, can be read at `inputs`.
    unsafe fn dot(self, sums: Self::Sums, codes: [int8x16_t; 4], inputs: *const u32, word: usize) -> Self::Sums;

    /// The same for lines `line` and `line + 4` of four bits and one token, as line `line` of those at `lines` stores
    /// them. What lies at `ahead` is asked for on the way.
    ///
    /// # Safety
    /// A group of `inputs`, and 64 bytes of the line, can be read.
    #[inline(always)]
    unsafe fn four_bits(
        self,
        sums: Self::Sums,
        lines: *const u8,
        inputs: *const u32,
        line: usize,
        ahead: *const u8,
    ) -> Self::Sums {
        mem::ask(ahead);
        // SAFETY: by the contract.
        let both = unsafe { stored_line(lines, line) };
        let (low, high) = (each!(low_nibbles, both), each!(high_nibbles, both));
        // SAFETY: the contract is the same.
        let sums = unsafe { self.dot(sums, low, inputs, line) };
        // SAFETY: likewise.
        unsafe { self.dot(sums, high, inputs, line + LINES / 2) }
    }

    /// [`BASE`](super::micro::BASE) and the sums.
    fn total(self, sums: Self::Sums) -> [float32x4_t; 4];
}

/// A [`GemvFn`](crate::panel::gemv::GemvFn) for `T` tokens.
///
/// # Safety
/// As there.
#[inline(always)]
pub(in crate::aarch64) unsafe fn gemv<F: Source, D: Dot, const T: usize>(d: D, g: &Gemv<'_>, out: *mut Sums) {
    let mut sums = [[vdupq_n_f32(0.0); 4]; T];
    let mut ahead = g.ahead;
    for unit in 0..g.groups / F::GROUPS {
        let input = g.input.wrapping_add(unit * F::GROUPS * WORDS * T);
        let open = [[[d.open(input); T]; 2]; SLOTS];
        let mut products = Products::<F, D, T> { d, input, ahead, open, sums, of: PhantomData };
        // SAFETY: one of the units of `rows`.
        unsafe { F::unit(Neon, g.rows, unit, &mut products) };
        sums = products.sums;
        ahead = products.ahead.wrapping_add(Products::<F, D, T>::REST);
    }
    mem::spent(ahead);
    for (t, sums) in sums.into_iter().enumerate() {
        for (r, sum) in sums.into_iter().enumerate() {
            // SAFETY: four of sixteen sums of token `t < T`, which can be written.
            unsafe { vst1q_f32(out.wrapping_add(t).cast::<f32>().wrapping_add(4 * r), sum) };
        }
    }
}

/// The products of a unit.
struct Products<F: Source, D: Dot, const T: usize> {
    d: D,
    /// `WORDS * T` a group, of all groups.
    input: *const u32,
    /// What is asked for next.
    ahead: *const u8,
    /// Sums of the groups that have begun; of the last four lines apart, if they have a scale of their own.
    open: [[[D::Sums; T]; 2]; SLOTS],
    /// Of this unit and all before.
    sums: [[float32x4_t; 4]; T],
    of: PhantomData<F>,
}

impl<F: Source, D: Dot, const T: usize> Products<F, D, T> {
    /// Cache lines asked for with each line that is read.
    const ASKS: usize = if F::STORED && F::KIND.bits > 4 { 2 } else { 1 };

    /// Bytes from one of them to the next.
    const STEP: usize = F::BYTES / F::GROUPS / Self::ASKS / if F::STORED { LINES / 2 } else { LINES };

    /// Bytes of a unit that are not asked for.
    const REST: usize = F::BYTES - F::BYTES / Self::STEP * Self::STEP;

    /// # Safety
    /// The words of this group can be read; `token < T`.
    #[inline(always)]
    unsafe fn word(&self, group: usize, field: Field, token: usize) -> u32 {
        // SAFETY: by the contract of this function.
        unsafe { *self.input.wrapping_add(group * WORDS * T + field.word(T, token)) }
    }

    /// Adds a line of signed codes.
    #[inline(always)]
    fn add(&mut self, slot: usize, group: usize, line: usize, codes: [int8x16_t; 4]) {
        let half = if F::KIND.halves { 2 * line / LINES } else { 0 };
        let inputs = self.input.wrapping_add(group * WORDS * T);
        macro_rules! token {
            ($token:literal) => {
                if $token < T {
                    let sums = &mut self.open[slot][half][$token];
                    // SAFETY: a source gives groups of the unit only, whose words `gemv` may read: `LINES * T` are
                    // inputs.
                    *sums = unsafe { self.d.dot(*sums, codes, inputs, Field::Line(line).word(T, $token)) };
                }
            };
        }
        token!(0);
        token!(1);
        token!(2);
        token!(3);
    }

    #[inline(always)]
    fn ask(&mut self) {
        self.ahead = mem::asked(self.ahead).wrapping_add(Self::STEP);
    }
}

impl<F: Source, D: Dot, const T: usize> Sink<Neon> for Products<F, D, T> {
    #[inline(always)]
    fn begin(&mut self, _: Neon, slot: usize, group: usize) {
        let inputs = self.input.wrapping_add(group * WORDS * T);
        for token in 0..T {
            for half in 0..2 {
                self.open[slot][half][token] = self.d.open(inputs.wrapping_add(2 * token + half));
            }
        }
    }

    #[inline(always)]
    fn line(&mut self, _: Neon, slot: usize, group: usize, line: usize, codes: [uint32x4_t; 4]) {
        self.ask();
        let codes = each!(vreinterpretq_s8_u32, codes);
        let zero = [vdupq_n_s8(-128); 4];
        self.add(slot, group, line, if F::KIND.bits == 8 { each!(veorq_s8, codes, zero) } else { codes });
    }

    #[inline(always)]
    unsafe fn stored(&mut self, _: Neon, slot: usize, group: usize, line: usize, stored: &StoredGroup<Neon>) {
        if stored.bits == 4 && T == 1 {
            let inputs = self.input.wrapping_add(group * WORDS);
            let sums = &mut self.open[slot][0][0];
            // SAFETY: see `add`; the line is there by the contract.
            *sums = unsafe { self.d.four_bits(*sums, stored.lines, inputs, line, self.ahead) };
            self.ahead = self.ahead.wrapping_add(Self::STEP);
            return;
        }
        for _ in 0..Self::ASKS {
            self.ask();
        }
        // SAFETY: by the contract.
        let both = unsafe { stored_line(stored.lines, line) };
        let first = each!(vreinterpretq_u8_u32, stored.planes[0]);
        let second = each!(vreinterpretq_u8_u32, stored.planes[1]);
        let (mut low, mut high) = ([vdupq_n_s8(0); 4], [vdupq_n_s8(0); 4]);
        for r in 0..4 {
            (low[r], high[r]) = match stored.bits {
                4 => (low_nibbles(both[r]), high_nibbles(both[r])),
                5 => five_bits(both[r], first[r], line),
                _ => six_bits(both[r], [first[r], second[r]], line),
            };
        }
        self.add(slot, group, line, low);
        self.add(slot, group, line + LINES / 2, high);
    }

    #[inline(always)]
    fn end(&mut self, l: Neon, slot: usize, group: usize, scales: Scales<Neon>) {
        if Self::STEP > 64 {
            self.ahead = mem::asked(self.ahead.wrapping_sub(1)).wrapping_add(1);
        }
        for token in 0..T {
            // SAFETY: see `add`.
            let word = |field| unsafe { self.word(group, field, token) };
            let (all, low) = (word(Field::NegatedSum), word(Field::NegatedSumLow));
            let high = all.wrapping_sub(low);
            let exponent = word(Field::Exponent);
            let mut out = self.sums[token];
            let mut add = |half: usize, start: u32, scales: [float32x4_t; 4]| {
                let total = self.d.total(self.open[slot][half][token]);
                let less = &twice([less(start, exponent); 2]);
                let less = [copy::<0>(less), copy::<1>(less), copy::<2>(less), copy::<3>(less)];
                let scaled = array::from_fn(|r| vfmaq_n_f32(less[r], total[r], power(exponent)));
                out = l.fma(scaled, scales, out);
            };
            // The second half of the codes was less by 8.
            let eight = if F::STORED { high << 3 } else { 0 };
            if F::KIND.halves {
                add(0, start(F::KIND, low), scales.low);
                add(1, start(F::KIND, high).wrapping_sub(eight), scales.high);
            } else {
                add(0, start(F::KIND, all).wrapping_sub(eight), scales.low);
            }
            if F::KIND.mins {
                // Negated here, as there are four registers of minima.
                let inputs = f32::from_bits(word(Field::ScaledSum) ^ (1 << 31));
                out = l.fma(scales.min, l.splat_float(inputs), out);
            }
            self.sums[token] = out;
        }
    }
}

/// Line `line` of those at `lines`.
///
/// # Safety
/// Its 64 bytes can be read.
#[inline(always)]
unsafe fn stored_line(lines: *const u8, line: usize) -> [uint8x16_t; 4] {
    // SAFETY: by the contract.
    let line = unsafe { Neon.line(lines.wrapping_add(line * size_of::<Line>())) };
    each!(vreinterpretq_u8_u32, line)
}

/// Codes, and codes less 8.
type Codes = (int8x16_t, int8x16_t);

/// Codes of four bits.
#[inline(always)]
fn low_nibbles(both: uint8x16_t) -> int8x16_t {
    vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(0xf)))
}

/// Codes of four bits, less 8.
#[inline(always)]
fn high_nibbles(both: uint8x16_t) -> int8x16_t {
    vshrq_n_s8::<4>(vreinterpretq_s8_u8(both))
}

/// Codes of five bits, of lines `t` and `t + 4`: the fifth are bits `t` and `t + 4` of the plane.
#[inline(always)]
fn five_bits(both: uint8x16_t, plane: uint8x16_t, t: usize) -> Codes {
    let fifth = vdupq_n_u8(0x10);
    let shifted = |n: i8| vandq_u8(vshlq_u8(plane, vdupq_n_s8(n)), fifth);
    let (below, above) = (shifted(4 - t as i8), shifted(-(t as i8)));
    let low = vorrq_u8(vandq_u8(both, vdupq_n_u8(0xf)), below);
    (vreinterpretq_s8_u8(low), vsraq_n_s8::<4>(vreinterpretq_s8_u8(above), vreinterpretq_s8_u8(both)))
}

/// Codes of six bits, of lines `t` and `t + 4`: the last two are bits `2 t` and `2 t + 1` of a plane each. Once for two
/// lines they are brought to bits 0 and 1, or 4 and 5, with zeros beside them; then an instruction inserts them, or the
/// others beside them.
#[inline(always)]
fn six_bits(both: uint8x16_t, planes: [uint8x16_t; 2], t: usize) -> Codes {
    let pairs = vdupq_n_u8(0x33);
    let two = |plane| vandq_u8(if t.is_multiple_of(2) { plane } else { vshrq_n_u8::<2>(plane) }, pairs);
    let (below, above) = (two(planes[0]), two(planes[1]));
    let (low, above) = if t < 2 {
        (vsliq_n_u8::<4>(both, below), vshlq_n_u8::<4>(above))
    } else {
        (vbslq_u8(vdupq_n_u8(0xf), both, below), vandq_u8(above, vdupq_n_u8(0x30)))
    };
    (vreinterpretq_s8_u8(low), vsraq_n_s8::<4>(vreinterpretq_s8_u8(above), vreinterpretq_s8_u8(both)))
}
