//! Products of stored panels with one tile of tokens.
//!
//! Codes are taken apart in the registers that multiply them. Scales, of which there are few, are brought into the order
//! of a [`Panel`] before, for as many groups as one has.

use std::mem::{MaybeUninit, offset_of};

use super::bytes;
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
    of: std::marker::PhantomData<F>,
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

/// A [`GemvFn`].
///
/// # Safety
/// As there.
unsafe fn tiles<F: Source>(g: &Gemv<'_>, out: *mut Sums) {
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
    // SAFETY: sums of `T` tokens can be written.
    unsafe { out.write_bytes(0, T) };
    let bytes = bytes();
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
            let first = unit * F::GROUPS;
            let mut sink = Unit::<F> { groups: &mut places, first, origin, of: std::marker::PhantomData };
            // SAFETY: one of the units of `rows`.
            unsafe { F::unit(Neon, g.rows, start / F::GROUPS + unit, &mut sink) };
        }
        let input = g.input.wrapping_add(start * WORDS * T);
        // SAFETY: the words of `T` tokens and all groups can be read.
        unsafe { self::factors::<T>(F::KIND, true, input, groups, &mut factors) };
        for first in (0..LINE).step_by(COLUMNS * bytes) {
            // Of a last one, both are the same.
            let last = if first + bytes < LINE { first + bytes } else { first };
            let columns = [first, last];
            let p = Product {
                codes: [origin.wrapping_add(first), origin.wrapping_add(last)],
                offsets: places.offsets.as_ptr(),
                scales: columns.map(|at| (&raw const places.scales).wrapping_byte_add(at).cast()),
                left: columns.map(|at| LINE - at),
                groups,
                factors: factors.as_ptr().cast(),
                input,
                out: columns.map(|at| out.wrapping_byte_add(at).cast()),
                stride: size_of::<Sums>(),
                ahead: g.ahead.wrapping_add(start * (F::BYTES / F::GROUPS)),
                step: F::BYTES / F::GROUPS,
            };
            let multiply = multiply::<T>(F::KIND.bits, F::KIND.halves, F::KIND.mins, first != last);
            // SAFETY: stored groups of these rows, and of their kind, which were taken down; a column lies in each of
            // their lines. Sums of `T` tokens were initialised.
            unsafe { multiply(&p) };
        }
    }
}

/// What multiplies one or two columns of stored panels that have these parts.
#[inline(always)]
fn multiply<const T: usize>(bits: u32, halves: bool, mins: bool, two: bool) -> unsafe fn(&Product) {
    match (bits, halves, mins, two) {
        (4, _, false, false) => product::multiply::<4, 1, T, false, false>,
        (4, _, false, true) => product::multiply::<4, 2, T, false, false>,
        (4, _, true, false) => product::multiply::<4, 1, T, false, true>,
        (4, _, true, true) => product::multiply::<4, 2, T, false, true>,
        (5, _, false, false) => product::multiply::<5, 1, T, false, false>,
        (5, _, false, true) => product::multiply::<5, 2, T, false, false>,
        (5, _, true, false) => product::multiply::<5, 1, T, false, true>,
        (5, _, true, true) => product::multiply::<5, 2, T, false, true>,
        (_, _, _, false) => product::multiply::<6, 1, T, true, false>,
        (_, _, _, true) => product::multiply::<6, 2, T, true, false>,
    }
}
