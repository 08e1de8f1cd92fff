//! Products of stored panels with one tile of tokens.
//!
//! Codes are taken apart in the registers that multiply them. Scales, of which there are few, are brought into the
//! order of a [`Panel`] before, for as many groups as one has.

use std::marker::PhantomData;
use std::mem::{MaybeUninit, offset_of};

use super::bytes;
use super::columns::Columns;
use super::product::{self, COLUMNS, Product};
use crate::aarch64::neon::lanes::Neon;
use crate::aarch64::neon::micro::factors;
use crate::panel::build::{Lanes, Scale, Scales, Sink, Source, StoredGroup};
use crate::panel::gemv::{Gemv, GemvFn};
use crate::panel::{GROUPS, Panel, ROWS, Sums};
use crate::quantized::WORDS;

/// Bytes of a line.
const LINE: usize = 4 * ROWS;

/// Where the codes of some groups are, and their scales.
#[repr(C, align(64))]
struct Groups {
    offsets: [usize; GROUPS],
    scales: [Scale; GROUPS],
    scales_high: [Scale; GROUPS],
    mins: [Scale; GROUPS],
}

// Scales are as far from each other as those of a panel.
const _: () = {
    let from = [offset_of!(Groups, scales), offset_of!(Panel, scales)];
    assert!(offset_of!(Groups, scales_high) - from[0] == offset_of!(Panel, scales_high) - from[1]);
    assert!(offset_of!(Groups, mins) - from[0] == offset_of!(Panel, mins) - from[1]);
};

/// Takes down the groups of a unit.
struct Unit<'a, F: Source> {
    groups: &'a mut Groups,
    /// Number of its first group.
    first: usize,
    /// What offsets count from.
    origin: *const u8,
    of: PhantomData<F>,
}

impl<F: Source> Sink<Neon> for Unit<'_, F> {
    #[inline(always)]
    fn begin(&mut self, _: Neon, _slot: usize, _group: usize) {}

    /// Stored groups have no others.
    #[inline(always)]
    fn line(&mut self, _: Neon, _slot: usize, _group: usize, _line: usize, _codes: <Neon as Lanes>::Words) {}

    #[inline(always)]
    unsafe fn stored(&mut self, _: Neon, _slot: usize, group: usize, line: usize, stored: &StoredGroup<Neon>) {
        if line == 0 {
            self.groups.offsets[self.first + group] = stored.lines.addr() - self.origin.addr();
        }
    }

    #[inline(always)]
    fn end(&mut self, l: Neon, _slot: usize, group: usize, scales: Scales<Neon>) {
        let group = self.first + group;
        l.store_floats(scales.low, &mut self.groups.scales[group]);
        if F::KIND.halves {
            l.store_floats(scales.high, &mut self.groups.scales_high[group]);
        }
        if F::KIND.mins {
            l.store_floats(scales.min, &mut self.groups.mins[group]);
        }
    }
}

/// The [`GemvFn`] for stored panels, and for other weights that of the tier below.
pub(super) const fn gemv<F: Source>(below: Option<GemvFn>) -> Option<GemvFn> {
    if F::STORED { Some(tiles::<F>) } else { below }
}

/// A [`GemvFn`] for stored panels.
///
/// # Safety
/// As there.
pub(in crate::aarch64) unsafe fn tiles<F: Source>(g: &Gemv<'_>, out: *mut Sums) {
    const {
        let (bits, halves) = (F::KIND.bits, F::KIND.halves);
        assert!(!F::STORED || bits >= 4 && bits <= 6 && halves == (bits == 6), "there is an instance");
    }
    let tile: GemvFn = match g.tokens {
        1 => tile::<F, 1>,
        2 => tile::<F, 2>,
        3 => tile::<F, 3>,
        _ => tile::<F, 4>,
    };
    // SAFETY: the contract is the same; it is the function for so many tokens.
    unsafe { tile(g, out) };
}

/// A [`GemvFn`] for `T` tokens.
///
/// # Safety
/// As there.
#[target_feature(enable = "neon,sve")]
unsafe fn tile<F: Source, const T: usize>(g: &Gemv<'_>, out: *mut Sums) {
    let bytes = bytes();
    // SAFETY: the contract is the same.
    unsafe { columns::<F, T>(g, out, bytes) };
}

/// The same for registers of `bytes` bytes. A function without features, as closures of one that has them are called.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn columns<F: Source, const T: usize>(g: &Gemv<'_>, out: *mut Sums, bytes: usize) {
    // SAFETY: sums of `T` tokens can be written.
    unsafe { out.write_bytes(0, T) };
    let step = F::BYTES / F::GROUPS;
    let mut factors = [const { MaybeUninit::uninit() }; GROUPS];
    let mut places = Groups {
        offsets: [0; GROUPS],
        scales: [const { Scale::uninit() }; GROUPS],
        scales_high: [const { Scale::uninit() }; GROUPS],
        mins: [const { Scale::uninit() }; GROUPS],
    };
    let origin = g.rows[0];
    for start in (0..g.groups).step_by(GROUPS) {
        let groups = GROUPS.min(g.groups - start);
        for unit in 0..groups / F::GROUPS {
            let mut sink = Unit::<F> { groups: &mut places, first: unit * F::GROUPS, origin, of: PhantomData };
            // SAFETY: one of the units of `rows`.
            unsafe { F::unit(Neon, g.rows, start / F::GROUPS + unit, &mut sink) };
        }
        let input = g.input.wrapping_add(start * WORDS * T);
        // SAFETY: the words of `T` tokens and all groups can be read.
        unsafe { self::factors::<T>(F::KIND, true, input, groups, &mut factors) };
        let mut columns = Columns::new(1, LINE, bytes);
        loop {
            let (some, count) = columns.take::<COLUMNS>();
            if count == 0 {
                break;
            }
            let p = Product {
                codes: some.map(|c| origin.wrapping_add(c.at)),
                offsets: places.offsets.as_ptr(),
                scales: some.map(|c| (&raw const places.scales).wrapping_byte_add(c.at).cast()),
                left: some.map(|c| LINE - c.at),
                groups,
                factors: factors.as_ptr().cast(),
                input,
                out: some.map(|c| out.wrapping_byte_add(c.at).cast()),
                stride: size_of::<Sums>(),
                ahead: g.ahead.wrapping_add(start * step),
                step,
            };
            let multiply = multiply::<T>(F::KIND.bits, F::KIND.mins, count);
            // SAFETY: stored groups of these rows, and of their kind, which were taken down; a column lies in each of
            // their lines. Sums of `T` tokens were initialised.
            unsafe { multiply(&p) };
        }
    }
}

/// What multiplies one or two columns of stored panels whose codes have so many bits, and minima or not.
#[inline(always)]
fn multiply<const T: usize>(bits: u32, mins: bool, columns: usize) -> unsafe fn(&Product) {
    match (bits, mins, columns) {
        (4, false, 1) => product::multiply::<4, 1, T, false, false>,
        (4, false, _) => product::multiply::<4, 2, T, false, false>,
        (4, true, 1) => product::multiply::<4, 1, T, false, true>,
        (4, true, _) => product::multiply::<4, 2, T, false, true>,
        (5, false, 1) => product::multiply::<5, 1, T, false, false>,
        (5, false, _) => product::multiply::<5, 2, T, false, false>,
        (5, true, 1) => product::multiply::<5, 1, T, false, true>,
        (5, true, _) => product::multiply::<5, 2, T, false, true>,
        (_, _, 1) => product::multiply::<6, 1, T, true, false>,
        _ => product::multiply::<6, 2, T, true, false>,
    }
}
