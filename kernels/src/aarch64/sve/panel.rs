//! The micro-kernel: columns of all panels, two at a time.

use std::mem::{MaybeUninit, offset_of};

use super::bytes;
use super::columns::{Column, Columns};
use super::product::{self, COLUMNS, PANEL, PANEL_EIGHT, Product};
use crate::aarch64::neon::micro::factors;
use crate::panel::{GROUPS, Kind, Micro, MicroFn, Panel, ROWS, Sums, instance};
use crate::quantized::LINES;
use crate::scalar;

/// Bytes of a line.
const LINE: usize = 4 * ROWS;

/// Where the codes of each group of a panel begin.
static OFFSETS: [usize; GROUPS] = {
    let mut offsets = [0; GROUPS];
    let mut group = 0;
    while group < GROUPS {
        offsets[group] = group * LINES * LINE;
        group += 1;
    }
    offsets
};

/// The [`MicroFn`] for a kind of panels.
pub(in crate::aarch64) const fn micro(kind: Kind) -> MicroFn {
    match (kind.bits, kind.zero()) {
        (0..=7, _) => panels::<PANEL>,
        (8, 128) => panels::<PANEL_EIGHT>,
        _ => scalar::panel::micro,
    }
}

/// A [`MicroFn`].
///
/// # Safety
/// As there.
#[target_feature(enable = "neon,sve")]
unsafe fn panels<const CODES: u32>(m: &Micro) {
    let product: unsafe fn(&Micro) = instance!(product::<CODES>, m);
    // SAFETY: the contract is the same; it is the instance for `m`.
    unsafe { product(m) };
}

/// All panels by `T` tokens.
///
/// # Safety
/// As [`panels`], for `T` tokens and a kind of these parts.
#[target_feature(enable = "neon,sve")]
unsafe fn product<const CODES: u32, const T: usize, const HALVES: bool, const MINS: bool>(m: &Micro) {
    let bytes = bytes();
    // SAFETY: the contract is the same.
    unsafe { columns::<CODES, T, HALVES, MINS>(m, bytes) };
}

/// The same for registers of `bytes` bytes. A function without features, as closures of one that has them are called.
///
/// # Safety
/// As [`product`].
#[inline(always)]
unsafe fn columns<const CODES: u32, const T: usize, const HALVES: bool, const MINS: bool>(m: &Micro, bytes: usize) {
    let mut factors = [const { MaybeUninit::uninit() }; GROUPS];
    // SAFETY: the words of `T` tokens and `m.groups` groups can be read.
    unsafe { self::factors::<T>(m.kind, false, m.input, m.groups, &mut factors) };
    let mut columns = Columns::new(m.count, LINE, bytes);
    loop {
        let (some, count) = columns.take::<COLUMNS>();
        let multiply: unsafe fn(&Product) = match count {
            0 => return,
            1 => product::multiply::<CODES, 1, T, HALVES, MINS>,
            _ => product::multiply::<CODES, COLUMNS, T, HALVES, MINS>,
        };
        let field = |c: Column, field: usize| m.panels.wrapping_add(c.panel).wrapping_byte_add(field + c.at);
        let p = Product {
            codes: some.map(|c| field(c, offset_of!(Panel, codes)).cast()),
            offsets: OFFSETS.as_ptr(),
            scales: some.map(|c| field(c, offset_of!(Panel, scales)).cast()),
            left: some.map(|c| LINE - c.at),
            groups: m.groups,
            factors: factors.as_ptr().cast(),
            input: m.input,
            out: some.map(|c| m.out.wrapping_add(c.panel).wrapping_byte_add(c.at).cast()),
            stride: m.count * size_of::<Sums>(),
            ahead: m.panels.cast(),
            step: 0,
        };
        // SAFETY: by the contract panels, inputs and sums of all tokens are there, and factors are written; a column
        // lies in a line of its panel.
        unsafe { multiply(&p) };
    }
}
