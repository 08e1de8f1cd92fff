//! The product with one token: weights are multiplied as they are taken apart, and never written.
//!
//! The sums are those of the micro-kernel, and so is the result, bit for bit: a scale times a power of two is exact, whether
//! multiplied or added to the exponent.

use std::marker::PhantomData;
use std::slice;

use super::build::{Lanes, Scale, Scales, Sink, Source, StoredLanes};
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
    /// Whether [`dot`](Self::dot) takes 128 off codes of 8 bits.
    const CENTRED: bool;

    /// The vectors.
    fn lanes(self) -> Self::Lanes;

    /// `sum[row] + Σ codes[row] · input`, four inputs within ±127, codes below `2^bits`.
    fn dot(
        self,
        bits: u32,
        sum: <Self::Lanes as Lanes>::Words,
        codes: <Self::Lanes as Lanes>::Words,
        input: u32,
    ) -> <Self::Lanes as Lanes>::Words;

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
        // SAFETY: the words of this unit, by the contract.
        let input = unsafe { slice::from_raw_parts(input, F::GROUPS * WORDS) };
        let ahead = ahead.wrapping_add(unit * F::BYTES);
        let mut products = Products::<F, D> { d, input, ahead, sum, of: PhantomData };
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
struct Products<'a, F: Source, D: Dot> {
    d: D,
    /// `WORDS` a group.
    input: &'a [u32],
    /// What is asked for, of all groups.
    ahead: *const u8,
    /// Of this unit and all before.
    sum: <D::Lanes as Lanes>::Floats,
    of: PhantomData<F>,
}

impl<F: Source, D: Dot> Sink<D::Lanes> for Products<'_, F, D> {
    #[inline(always)]
    fn group(
        &mut self,
        l: D::Lanes,
        index: usize,
        lines: [<D::Lanes as Lanes>::Words; LINES],
        scales: Scales<D::Lanes>,
    ) {
        let piece = F::BYTES / F::GROUPS;
        for offset in (0..piece).step_by(64) {
            self.d.prefetch(self.ahead.wrapping_add(index * piece + offset));
        }
        let input = &self.input[index * WORDS..(index + 1) * WORDS];
        let word = |field: Field| input[field.word(1, 0)];
        let start = |sum: u32| match F::KIND.bits {
            8 if D::CENTRED => l.splat(0),
            _ => l.shl(l.splat(sum), F::KIND.zero_shift.cast_signed()),
        };
        let (all, low) = (word(Field::NegatedSum), word(Field::NegatedSumLow));
        // Two chains of additions.
        let mut sums = [start(low), start(all.wrapping_sub(low))];
        for i in 0..LINES {
            let half = 2 * i / LINES;
            sums[half] = self.d.dot(F::KIND.bits, sums[half], lines[i], word(Field::Line(i)));
        }
        let power = l.splat_float(f32::from_bits(word(Field::Exponent).wrapping_add(1f32.to_bits())));
        if F::KIND.halves {
            self.sum = l.fma(l.floats(sums[0]), l.mul(scales.low, power), self.sum);
            self.sum = l.fma(l.floats(sums[1]), l.mul(scales.high, power), self.sum);
        } else {
            let sum = l.add(sums[0], sums[1]);
            self.sum = l.fma(l.floats(sum), l.mul(scales.low, power), self.sum);
        }
        if F::KIND.mins {
            let inputs = l.splat_float(f32::from_bits(word(Field::ScaledSum)));
            self.sum = l.fnma(scales.min, inputs, self.sum);
        }
    }
}
