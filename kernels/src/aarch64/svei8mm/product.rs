//! Products of up to four columns with up to four tokens, in registers of any length.
//!
//! ```text
//! a column:   the rows of a panel that fill a register, eight bytes each: 4 of them in 256 bits, 8 in 512, all 16 in 1024
//! registers:  for 4 columns by 2 pairs of tokens sums and outputs, in squares of 2 rows by 2 tokens, one each 128 bits
//! 8 inputs:   for 2 pairs of tokens, 4 columns:  usmmla sum, codes, inputs
//! a group:    for 2 pairs of tokens, 4 columns:  fmad sum, power, less;  fmla output, sum, scale
//! ```
//! What `build` has doubled, 64 bits a row, is as far from the codes in each column, but nearer by some bytes with
//! every group. One `asm!`, as in the tier whose registers these are; see there. A row of a column is 64 bits of the
//! register, of which the first half is a scale or the output of one token when it is loaded and stored.

use std::arch::asm;
use std::mem::offset_of;

use crate::aarch64::i8mm::panel::Operands;
use crate::aarch64::neon::micro::BASE;
use crate::panel::{Panel, ROWS};
use crate::quantized::LINES;

/// Columns that are multiplied at a time, at most.
pub(super) const COLUMNS: usize = 4;

/// What columns are multiplied with, and where they are; columns that are not multiplied are like the last one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    /// The first group's codes of each column, in pairs of rows and lines.
    pub(super) codes: [*const u8; COLUMNS],
    /// The scales of each column in the first group of a [`Panel`].
    pub(super) scales: [*const f32; COLUMNS],
    /// Bytes from each column to the end of a pair of lines.
    pub(super) left: [usize; COLUMNS],
    pub(super) groups: usize,
    /// Of each group.
    pub(super) operands: *const Operands,
    /// The outputs of each column for the first token.
    pub(super) out: [*mut f32; COLUMNS],
    /// Bytes from one token to the next.
    pub(super) stride: usize,
}

/// Adds the products of `N` columns by `T` tokens to the outputs.
///
/// # Safety
/// - The CPU has the features of this tier.
/// - Of each of four pairs of lines of each group the bytes of a column, `left` but not more than a register has, can
///   be read; so can its scales and, with `HALVES` and `MINS`, what else a panel has of it.
/// - Operands of all groups can be read.
/// - The column's outputs for `T` tokens can be read and written.
#[inline(never)]
#[target_feature(enable = "neon,dotprod,i8mm,sve")]
pub(super) unsafe fn multiply<const N: usize, const T: usize, const HALVES: bool, const MINS: bool>(p: &Product) {
    const { assert!(N <= COLUMNS && T <= 4) };
    static START: f32 = BASE;
    // Immediate operands reach so far to both sides.
    const MIDDLE: usize = offset_of!(Operands, less);
    // SAFETY: reads and writes what the contract of this function says; all registers that it changes are named.
    unsafe {
        asm!(
            r"
            // Does something for each column: its registers, the rows that it has, and addresses.
            .macro columns do, line
            \do z4, p0, {codes0}, {scales0}, {out0}, \line
            .if {columns} > 1
            \do z5, p1, {codes1}, {scales1}, {out1}, \line
            .endif
            .if {columns} > 2
            \do z6, p2, {codes2}, {scales2}, {out2}, \line
            .endif
            .if {columns} > 3
            \do z7, p3, {codes3}, {scales3}, {out3}, \line
            .endif
            .endm

            // Does something for each pair of tokens and column: sums and outputs, what the column has.
            .macro cells do, of_pair, half
            cell \do, \of_pair, \half, 0, z16, z24, z17, z25, z18, z26, z19, z27
            .if {tokens} > 2
            cell \do, \of_pair, \half, 1, z20, z28, z21, z29, z22, z30, z23, z31
            .endif
            .endm
            .macro cell do, of_pair, half, pair, sum0, out0, sum1, out1, sum2, out2, sum3, out3
            \of_pair \pair, \half
            \do \pair, \sum0, \out0, z4, p0, {out0}
            .if {columns} > 1
            \do \pair, \sum1, \out1, z5, p1, {out1}
            .endif
            .if {columns} > 2
            \do \pair, \sum2, \out2, z6, p2, {out2}
            .endif
            .if {columns} > 3
            \do \pair, \sum3, \out3, z7, p3, {out3}
            .endif
            .endm
            .macro nothing pair, half
            .endm

            .macro load_output pair, sum, output, codes, rows, at
            ld1w {{\output\().d}}, \rows/z, [\at]
            add \at, \at, {stride}
            .if 2 * \pair + 1 < {tokens}
            ld1w {{z0.d}}, \rows/z, [\at]
            add \at, \at, {stride}
            trn1 \output\().s, \output\().s, z0.s
            .endif
            .endm

            .macro store_output pair, sum, output, codes, rows, at
            st1w {{\output\().d}}, \rows, [\at]
            add \at, \at, {stride}
            .if 2 * \pair + 1 < {tokens}
            lsr \output\().d, \output\().d, #32
            st1w {{\output\().d}}, \rows, [\at]
            add \at, \at, {stride}
            .endif
            .endm

            .macro rewind codes, rows, at, scales, out, line
            .irp token,0,1,2,3
            .if \token < {tokens}
            sub \out, \out, {stride}
            .endif
            .endr
            .endm

            .macro open pair, sum, output, codes, rows, at
            ld1rw {{\sum\().s}}, p4/z, [{start}]
            .endm

            .macro load_codes codes, rows, at, scales, out, line
            ld1b {{\codes\().b}}, \rows/z, [\at, x\line]
            .endm

            .macro load_inputs pair, line
            ld1rqw {{z0.s}}, p4/z, [{operands}, #(32 * \line + 16 * \pair - {middle})]
            .endm

            .macro dot pair, sum, output, codes, rows, at
            usmmla \sum\().s, \codes\().b, z0.b
            .endm

            .macro load_scales codes, rows, at, scales, out, line
            ld1w {{\codes\().d}}, \rows/z, [\scales]
            trn1 \codes\().s, \codes\().s, \codes\().s
            .endm

            .macro load_high_scales codes, rows, at, scales, out, line
            ld1w {{\codes\().d}}, \rows/z, [\scales, x5, lsl #2]
            trn1 \codes\().s, \codes\().s, \codes\().s
            .endm

            .macro load_doubled codes, rows, at, scales, out, line
            ld1w {{\codes\().s}}, \rows/z, [\at, x4, lsl #2]
            .endm

            .macro load_factors pair, half
            ld1rqw {{z0.s}}, p4/z, [{operands}, #({power} + 16 * \pair - {middle})]
            ld1rqw {{z1.s}}, p4/z, [{operands}, #({less} + 32 * \half + 16 * \pair - {middle})]
            .endm

            .macro close pair, sum, output, codes, rows, at
            fmad \sum\().s, p4/m, z0.s, z1.s
            fmla \output\().s, p4/m, \sum\().s, \codes\().s
            .endm

            .macro load_sums pair, half
            ld1rqw {{z0.s}}, p4/z, [{operands}, #({sum} + 16 * \pair - {middle})]
            .endm

            .macro subtract_minima pair, sum, output, codes, rows, at
            fmla \output\().s, p4/m, \codes\().s, z0.s
            .endm

            .macro next codes, rows, at, scales, out, line
            add \at, \at, #{group}
            add \scales, \scales, #{row}
            .endm

            whilelo p0.b, xzr, x0
            whilelo p1.b, xzr, x1
            whilelo p2.b, xzr, x2
            whilelo p3.b, xzr, x3
            ptrue p4.b
            cells load_output, nothing, 0
            columns rewind, 0
            mov x0, #0
            mov x1, #128
            mov x2, #256
            mov x3, #384
            mov x4, #{doubled}
            mov x5, #{high}
            cbz {groups}, 3f

            2:
            cells open, nothing, 0
            .irp line,0,1
            columns load_codes, \line
            cells dot, load_inputs, \line
            .endr
            .if {halves}
            columns load_scales, 0
            cells close, load_factors, 0
            cells open, nothing, 0
            .endif
            .irp line,2,3
            columns load_codes, \line
            cells dot, load_inputs, \line
            .endr
            .if {halves}
            columns load_high_scales, 0
            cells close, load_factors, 1
            .elseif {mins}
            columns load_scales, 0
            cells close, load_factors, 0
            columns load_doubled, 0
            cells subtract_minima, load_sums, 0
            .else
            columns load_doubled, 0
            cells close, load_factors, 0
            .endif
            columns next, 0
            sub x4, x4, #{behind}
            add {operands}, {operands}, #{operands_bytes}
            subs {groups}, {groups}, #1
            b.ne 2b

            3:
            cells store_output, nothing, 0

            .irp name,columns,cells,cell,nothing,load_output,store_output,rewind,open,load_codes,load_inputs,dot,close,next
            .purgem \name
            .endr
            .irp name,load_scales,load_high_scales,load_doubled,load_factors,load_sums,subtract_minima
            .purgem \name
            .endr
            ",
            columns = const N,
            tokens = const T,
            halves = const HALVES as u32,
            mins = const MINS as u32,
            middle = const MIDDLE,
            power = const offset_of!(Operands, power),
            less = const offset_of!(Operands, less),
            sum = const offset_of!(Operands, sum),
            operands_bytes = const size_of::<Operands>(),
            group = const 4 * ROWS * LINES,
            row = const ROWS * size_of::<f32>(),
            high = const (offset_of!(Panel, scales_high) - offset_of!(Panel, scales)) / size_of::<f32>(),
            doubled = const (offset_of!(Panel, scales_high) - offset_of!(Panel, codes)) / size_of::<f32>(),
            behind = const (4 * ROWS * LINES - 2 * ROWS * size_of::<f32>()) / size_of::<f32>(),
            codes0 = inout(reg) p.codes[0] => _,
            codes1 = inout(reg) p.codes[1] => _,
            codes2 = inout(reg) p.codes[2] => _,
            codes3 = inout(reg) p.codes[3] => _,
            scales0 = inout(reg) p.scales[0] => _,
            scales1 = inout(reg) p.scales[1] => _,
            scales2 = inout(reg) p.scales[2] => _,
            scales3 = inout(reg) p.scales[3] => _,
            out0 = inout(reg) p.out[0] => _,
            out1 = inout(reg) p.out[1] => _,
            out2 = inout(reg) p.out[2] => _,
            out3 = inout(reg) p.out[3] => _,
            groups = inout(reg) p.groups => _,
            operands = inout(reg) p.operands.wrapping_byte_add(MIDDLE) => _,
            stride = in(reg) p.stride,
            start = in(reg) &raw const START,
            inout("x0") p.left[0] => _, inout("x1") p.left[1] => _, inout("x2") p.left[2] => _,
            inout("x3") p.left[3] => _, out("x4") _, out("x5") _,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v14") _,
            out("v15") _, out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _,
            out("v22") _, out("v23") _, out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _,
            out("v29") _, out("v30") _, out("v31") _, out("p0") _, out("p1") _, out("p2") _, out("p3") _, out("p4") _,
            options(nostack),
        );
    }
}
