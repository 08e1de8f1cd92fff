//! The micro-kernel: columns of all panels, up to four at a time.

use std::mem::{MaybeUninit, offset_of};

use super::product::{self, COLUMNS, Product};
use crate::aarch64::i8mm::panel::operands;
use crate::aarch64::sve::bytes;
use crate::aarch64::sve::columns::{Column, Columns};
use crate::panel::{GROUPS, Micro, Panel, ROWS, Sums, instance};

/// Bytes of a pair of lines, and of a row in it.
const LINES: usize = 8 * ROWS;
const ROW: usize = 8;

/// A [`MicroFn`](crate::panel::MicroFn), for panels as [`build`](super::build) leaves them.
///
/// # Safety
/// As there.
#[target_feature(enable = "neon,dotprod,i8mm,sve")]
pub(super) unsafe fn micro(m: &Micro) {
    let product: unsafe fn(&Micro) = instance!(product, m);
    // SAFETY: the contract is the same; it is the instance for `m`.
    unsafe { product(m) };
}

/// All panels by `T` tokens.
///
/// # Safety
/// As [`micro`], for `T` tokens and a kind of these parts.
#[target_feature(enable = "neon,dotprod,i8mm,sve")]
unsafe fn product<const T: usize, const HALVES: bool, const MINS: bool>(m: &Micro) {
    let bytes = bytes();
    // SAFETY: the contract is the same.
    unsafe { columns::<T, HALVES, MINS>(m, bytes) };
}

/// The same for registers of `bytes` bytes. A function without features, as closures of one that has them are called.
///
/// # Safety
/// As [`product`].
#[inline(always)]
unsafe fn columns<const T: usize, const HALVES: bool, const MINS: bool>(m: &Micro, bytes: usize) {
    let mut operands = [const { MaybeUninit::uninit() }; GROUPS];
    // SAFETY: the contract is the same.
    unsafe { self::operands::<T, HALVES>(m, &mut operands) };
    let mut columns = Columns::new(m.count, LINES, bytes);
    loop {
        let (some, count) = columns.take::<COLUMNS>();
        let multiply: unsafe fn(&Product) = match count {
            0 => return,
            1 => product::multiply::<1, T, HALVES, MINS>,
            2 => product::multiply::<2, T, HALVES, MINS>,
            3 => product::multiply::<3, T, HALVES, MINS>,
            _ => product::multiply::<COLUMNS, T, HALVES, MINS>,
        };
        // Bytes of an `f32` for each row before.
        let row = |c: Column| c.at / ROW * size_of::<f32>();
        let field = |c: Column, offset: usize| m.panels.wrapping_add(c.panel).wrapping_byte_add(offset);
        let p = Product {
            codes: some.map(|c| field(c, offset_of!(Panel, codes) + c.at).cast()),
            scales: some.map(|c| field(c, offset_of!(Panel, scales) + row(c)).cast()),
            left: some.map(|c| LINES - c.at),
            groups: m.groups,
            operands: operands.as_ptr().cast(),
            out: some.map(|c| m.out.wrapping_add(c.panel).wrapping_byte_add(row(c)).cast()),
            stride: m.count * size_of::<Sums>(),
        };
        // SAFETY: by the contract panels and sums of all tokens are there, and operands are written; a column lies in a
        // pair of lines of its panel.
        unsafe { multiply(&p) };
    }
}
