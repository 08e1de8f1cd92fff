//! Products with a tile of tokens, or two, as [`crate::panel::gemv`] describes them, for the registers of x86.

use std::marker::PhantomData;

use crate::panel::Sums;
use crate::panel::build::{Lanes, SLOTS, Scale, Scales, Sink, Source, StoredLanes};
use crate::panel::gemv::Gemv;
use crate::quantized::{Field, LINES, WORDS, token_words};

/// How one line is multiplied. A value is the proof that this CPU can do it.
pub(super) trait Dot: Copy {
    /// The vectors of its instruction set.
    type Lanes: StoredLanes;
    /// Most bits of codes of which a sum of eight lines has room.
    const EIGHT: u32;
    /// Whether [`dot`](Self::dot) takes 128 off codes of 8 bits.
    const CENTRED: bool;

    /// The vectors.
    fn lanes(self) -> Self::Lanes;

    /// Adds the products of four inputs within ±127 and codes below `2^bits` to sums, of which [`total`](Self::total)
    /// knows the meaning. Four lines may be added, eight of at most [`EIGHT`](Self::EIGHT) bits; zeros stand for none.
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

/// A [`GemvFn`](crate::panel::gemv::GemvFn) for `N` tiles of `T` tokens.
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn gemv<F: Source, D: Dot, const T: usize, const N: usize>(d: D, g: &Gemv<'_>, out: *mut Sums) {
    let l = d.lanes();
    let mut sums = [[l.splat_float(0.0); T]; N];
    for unit in 0..g.groups / F::GROUPS {
        let input = g.input.wrapping_add(unit * F::GROUPS * WORDS * T);
        let ahead = g.ahead.wrapping_add(unit * F::BYTES);
        let open = [[[[l.splat(0); T]; N]; 2]; SLOTS];
        let tile = T * token_words(g.groups);
        let mut products = Products::<F, D, T, N> { d, input, tile, ahead, open, sums, of: PhantomData };
        // SAFETY: one of the units of `rows`.
        unsafe { F::unit(l, g.rows, unit, &mut products) };
        sums = products.sums;
    }
    for (t, sum) in sums.into_iter().flatten().enumerate() {
        let out: *mut Scale = out.wrapping_add(t).cast();
        // SAFETY: one of the sums that can be written.
        l.store_floats(sum, unsafe { &mut *out });
    }
}

/// Sums by slot, half of a group, tile and token.
type Open<L, const T: usize, const N: usize> = [[[[<L as Lanes>::Words; T]; N]; 2]; SLOTS];

/// The products of a unit.
struct Products<F: Source, D: Dot, const T: usize, const N: usize> {
    d: D,
    /// `WORDS * T` a group, of all groups.
    input: *const u32,
    /// Words from a tile to the next.
    tile: usize,
    /// What is asked for next.
    ahead: *const u8,
    /// Sums of the groups that have begun; of the last four lines apart, if they have a scale of their own or there is
    /// no room.
    open: Open<D::Lanes, T, N>,
    /// Of this unit and all before.
    sums: [[<D::Lanes as Lanes>::Floats; T]; N],
    of: PhantomData<F>,
}

impl<F: Source, D: Dot, const T: usize, const N: usize> Products<F, D, T, N> {
    const APART: bool = F::KIND.halves || F::KIND.bits > D::EIGHT;

    /// Bytes asked for with each line that is multiplied.
    const STEP: usize = F::BYTES / F::GROUPS / LINES;

    /// # Safety
    /// The words of this group can be read; `tile < N`, `token < T`.
    #[inline(always)]
    unsafe fn word(&self, group: usize, field: Field, [tile, token]: [usize; 2]) -> u32 {
        // SAFETY: by the contract of this function.
        unsafe { *self.input.wrapping_add(tile * self.tile + group * WORDS * T + field.word(T, token)) }
    }
}

impl<F: Source, D: Dot, const T: usize, const N: usize> Sink<D::Lanes> for Products<F, D, T, N> {
    #[inline(always)]
    fn begin(&mut self, l: D::Lanes, slot: usize, _group: usize) {
        self.open[slot] = [[[l.splat(0); T]; N]; 2];
    }

    #[inline(always)]
    fn line(&mut self, _l: D::Lanes, slot: usize, group: usize, line: usize, codes: <D::Lanes as Lanes>::Words) {
        self.d.prefetch(self.ahead);
        self.ahead = self.ahead.wrapping_add(Self::STEP);
        let half = if Self::APART { 2 * line / LINES } else { 0 };
        for tile in 0..N {
            for token in 0..T {
                // SAFETY: a source gives groups of the unit only, whose words `gemv` may read.
                let input = unsafe { self.word(group, Field::Line(line), [tile, token]) };
                let sum = &mut self.open[slot][half][tile][token];
                *sum = self.d.dot(F::KIND.bits, *sum, codes, input);
            }
        }
    }

    #[inline(always)]
    fn end(&mut self, l: D::Lanes, slot: usize, group: usize, scales: Scales<D::Lanes>) {
        if Self::STEP > 64 {
            self.d.prefetch(self.ahead.wrapping_sub(1));
        }
        let start = |sum: u32| match F::KIND.bits {
            8 if D::CENTRED => l.splat(0),
            _ => l.shl(l.splat(sum), F::KIND.zero_shift.cast_signed()),
        };
        let [first, last] = self.open[slot];
        for place in (0..N * T).map(|i| [i / T, i % T]) {
            let [tile, token] = place;
            // SAFETY: see `line`.
            let word = |of: &Self, field| unsafe { of.word(group, field, place) };
            let (all, low) = (word(self, Field::NegatedSum), word(self, Field::NegatedSumLow));
            let power = f32::from_bits(word(self, Field::Exponent).wrapping_add(1f32.to_bits()));
            let (power, inputs) = (l.splat_float(power), f32::from_bits(word(self, Field::ScaledSum)));
            let first = self.d.total(F::KIND.bits, first[tile][token]);
            let last = self.d.total(F::KIND.bits, last[tile][token]);
            let mut out = self.sums[tile][token];
            if F::KIND.halves {
                let (first, last) = (l.add(first, start(low)), l.add(last, start(all.wrapping_sub(low))));
                out = l.fma(l.floats(first), l.mul(scales.low, power), out);
                out = l.fma(l.floats(last), l.mul(scales.high, power), out);
            } else {
                let sum = if Self::APART { l.add(first, last) } else { first };
                out = l.fma(l.floats(l.add(sum, start(all))), l.mul(scales.low, power), out);
            }
            if F::KIND.mins {
                out = l.fnma(scales.min, l.splat_float(inputs), out);
            }
            self.sums[tile][token] = out;
        }
    }
}
