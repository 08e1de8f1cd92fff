//! The product with one token: weights are multiplied as they are taken apart, and never written.
//!
//! The sums are those of the micro-kernel, and so is the result, bit for bit: a scale times a power of two is exact, whether
//! multiplied or added to the exponent.

use std::marker::PhantomData;

use super::build::{Lanes, SLOTS, Scale, Scales, Sink, Source, StoredLanes};
use super::{ROWS, Sums};
use crate::quantized::{Field, LINES, WORDS};

/// Multiplies 16 rows of `groups` groups, whole units, with one token: `out = Σ_k w[row][k] · x[k]`.
///
/// # Safety
/// - The CPU has the features of the tier.
/// - What a [`BuildFn`](super::BuildFn) may read of `rows` can be read, and `groups * WORDS` words at `input`.
/// - `ahead` is any address: as many bytes from there on as the rows have are asked for.
pub(crate) type GemvFn =
    unsafe fn(rows: &[*const u8; ROWS], groups: usize, input: *const u32, ahead: *const u8, out: &mut Sums);

/// How one line is multiplied. A value is the proof that this CPU can do it.
pub(crate) trait Dot: Copy {
    /// The vectors of its instruction set.
    type Lanes: StoredLanes;
    /// Most bits of codes of which a sum of eight lines has room.
    const EIGHT: u32;
    /// Whether [`dot`](Self::dot) takes 128 off codes of 8 bits.
    const CENTRED: bool;

    /// The vectors.
    fn lanes(self) -> Self::Lanes;

    /// Adds the products of four inputs within ±127 and codes below `2^bits` to sums, of which [`total`](Self::total) knows
    /// the meaning. Four lines may be added, eight of at most [`EIGHT`](Self::EIGHT) bits; zeros stand for none.
    fn dot(
        self,
        bits: u32,
        sum: <Self::Lanes as Lanes>::Words,
        codes: <Self::Lanes as Lanes>::Words,
        input: u32,
    ) -> <Self::Lanes as Lanes>::Words;

    /// `Σ codes[row] · input`
    fn total(self, bits: u32, sum: <Self::Lanes as Lanes>::Words) -> <Self::Lanes as Lanes>::Words;

    /// Asks for the cache line at an address, any address.
    fn prefetch(self, at: *const u8);
}

/// A [`GemvFn`].
///
/// # Safety
/// As there.
#[inline(always)]
pub(crate) unsafe fn gemv<F: Source, D: Dot>(
    d: D,
    rows: &[*const u8; ROWS],
    groups: usize,
    input: *const u32,
    ahead: *const u8,
    out: &mut Sums,
) {
    let l = d.lanes();
    let mut sum = l.splat_float(0.0);
    for unit in 0..groups / F::GROUPS {
        let input = input.wrapping_add(unit * F::GROUPS * WORDS);
        let ahead = ahead.wrapping_add(unit * F::BYTES);
        let mut products = Products::<F, D> { d, input, ahead, open: [[l.splat(0); 2]; SLOTS], sum, of: PhantomData };
        // SAFETY: one of the units of `rows`.
        unsafe { F::unit(l, rows, unit, &mut products) };
        sum = products.sum;
    }
    let mut result = Scale::uninit();
    l.store_floats(sum, &mut result);
    // SAFETY: just written.
    *out = unsafe { result.assume_init() };
}

/// The products of a unit.
struct Products<F: Source, D: Dot> {
    d: D,
    /// `WORDS` a group, of all groups.
    input: *const u32,
    /// What is asked for, of all groups.
    ahead: *const u8,
    /// Sums of the groups that have begun; of the last four lines apart, if they have a scale of their own or there is no room.
    open: [[<D::Lanes as Lanes>::Words; 2]; SLOTS],
    /// Of this unit and all before.
    sum: <D::Lanes as Lanes>::Floats,
    of: PhantomData<F>,
}

/// # Safety
/// The words of this group can be read.
#[inline(always)]
unsafe fn word(input: *const u32, group: usize, field: Field) -> u32 {
    // SAFETY: by the contract of this function.
    unsafe { *input.wrapping_add(group * WORDS + field.word(1, 0)) }
}

impl<F: Source, D: Dot> Products<F, D> {
    const APART: bool = F::KIND.halves || F::KIND.bits > D::EIGHT;

    /// Bytes asked for with each line that is multiplied.
    const STEP: usize = F::BYTES / F::GROUPS / LINES;
}

impl<F: Source, D: Dot> Sink<D::Lanes> for Products<F, D> {
    #[inline(always)]
    fn begin(&mut self, l: D::Lanes, slot: usize, _group: usize) {
        self.open[slot] = [l.splat(0); 2];
    }

    #[inline(always)]
    fn line(&mut self, _l: D::Lanes, slot: usize, group: usize, line: usize, codes: <D::Lanes as Lanes>::Words) {
        self.d.prefetch(self.ahead);
        self.ahead = self.ahead.wrapping_add(Self::STEP);
        // SAFETY: a source gives groups of the unit only, whose words `gemv` may read.
        let input = unsafe { word(self.input, group, Field::Line(line)) };
        let sum = &mut self.open[slot][if Self::APART { 2 * line / LINES } else { 0 }];
        *sum = self.d.dot(F::KIND.bits, *sum, codes, input);
    }

    #[inline(always)]
    fn end(&mut self, l: D::Lanes, slot: usize, group: usize, scales: Scales<D::Lanes>) {
        if Self::STEP > 64 {
            self.d.prefetch(self.ahead.wrapping_sub(1));
        }
        let input = self.input;
        let [first, last] = self.open[slot];
        let (first, last) = (self.d.total(F::KIND.bits, first), self.d.total(F::KIND.bits, last));
        // SAFETY: see `line`.
        let word = |field| unsafe { word(input, group, field) };
        let start = |sum: u32| match F::KIND.bits {
            8 if D::CENTRED => l.splat(0),
            _ => l.shl(l.splat(sum), F::KIND.zero_shift.cast_signed()),
        };
        let all = word(Field::NegatedSum);
        let power = l.splat_float(f32::from_bits(word(Field::Exponent).wrapping_add(1f32.to_bits())));
        if F::KIND.halves {
            let low = word(Field::NegatedSumLow);
            let (first, last) = (l.add(first, start(low)), l.add(last, start(all.wrapping_sub(low))));
            self.sum = l.fma(l.floats(first), l.mul(scales.low, power), self.sum);
            self.sum = l.fma(l.floats(last), l.mul(scales.high, power), self.sum);
        } else {
            let sum = if Self::APART { l.add(first, last) } else { first };
            let sum = l.add(sum, start(all));
            self.sum = l.fma(l.floats(sum), l.mul(scales.low, power), self.sum);
        }
        if F::KIND.mins {
            let inputs = l.splat_float(f32::from_bits(word(Field::ScaledSum)));
            self.sum = l.fnma(scales.min, inputs, self.sum);
        }
    }
}
