//! The micro-kernel: columns of all panels, up to four at a time.

use std::mem::{MaybeUninit, offset_of};

use super::product::{self, COLUMNS, Product};
use crate::aarch64::i8mm::panel::operands;
use crate::aarch64::sve::bytes;
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
    let mut operands = [const { MaybeUninit::uninit() }; GROUPS];
    // SAFETY: the contract is the same.
    unsafe { self::operands::<T, HALVES>(m, &mut operands) };
    let bytes = bytes();
    // Columns of a panel, and of all.
    let each = LINES.div_ceil(bytes);
    let all = m.count * each;
    let mut first = 0;
    while first < all {
        // Their panels, and where they begin in a pair of lines.
        let columns: [_; COLUMNS] = std::array::from_fn(|i| {
            let column = (first + i).min(all - 1);
            (column / each, column % each * bytes)
        });
        let field =
            |(number, at): (usize, usize), field: usize| m.panels.wrapping_add(number).wrapping_byte_add(field + at);
        let row = |at: usize| at / ROW * size_of::<f32>();
        let scales = offset_of!(Panel, scales);
        let p = Product {
            codes: columns.map(|column| field(column, offset_of!(Panel, codes)).cast()),
            scales: columns.map(|(number, at)| field((number, row(at)), scales).cast()),
            left: columns.map(|(_, at)| LINES - at),
            groups: m.groups,
            operands: operands.as_ptr().cast(),
            out: columns.map(|(number, at)| m.out.wrapping_add(number).wrapping_byte_add(row(at)).cast()),
            stride: m.count * size_of::<Sums>(),
        };
        let (multiply, count): (unsafe fn(&Product), usize) = match all - first {
            1 => (product::multiply::<1, T, HALVES, MINS>, 1),
            2 | 3 => (product::multiply::<2, T, HALVES, MINS>, 2),
            _ => (product::multiply::<COLUMNS, T, HALVES, MINS>, COLUMNS),
        };
        // SAFETY: by the contract panels and sums of all tokens are there, and operands are written; a column lies in a
        // pair of lines of its panel.
        unsafe { multiply(&p) };
        first += count;
    }
}
