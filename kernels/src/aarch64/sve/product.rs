//! Products of one or two columns with up to four tokens, in registers of any length.
//!
//! ```text
//! a column:   the rows of a panel that fill a register, four bytes each: 8 of them in 256 bits, all 16 in 512 or more
//! registers:  for 2 columns by 4 tokens sums, some twice, and outputs; a line of each column; inputs of 4 tokens
//! a line:     for 4 tokens, 2 columns:  sdot sum, codes, inputs[token]
//! a group:    for 4 tokens, 2 columns:  fmad sum, power, less;  fmla output, sum, scale            see `neon::micro`
//! ```
//! Rust has no types for such registers, and an `asm!` loses what they hold: so this is a single one, over all groups.
//! What an instance does not have is left out by `.if`. Where a register is longer than its column, predicates make the
//! rest zeros, and do not write it.

use std::arch::asm;
use std::mem::offset_of;

use crate::aarch64::neon::micro::{BASE, Factors};
use crate::panel::{Panel, ROWS};
use crate::quantized::WORDS;

/// Columns that are multiplied at a time, at most.
pub(super) const COLUMNS: usize = 2;

/// What columns are multiplied with, and where they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    /// Where the codes of each column are; of one, both are the same.
    pub(super) codes: [*const u8; COLUMNS],
    /// How far from there those of each group begin.
    pub(super) offsets: *const usize,
    /// The scales of each column in the first group of a [`Panel`].
    pub(super) scales: [*const f32; COLUMNS],
    /// Bytes from each column to the end of a line.
    pub(super) left: [usize; COLUMNS],
    pub(super) groups: usize,
    /// Of each group.
    pub(super) factors: *const Factors,
    /// `WORDS * T` a group.
    pub(super) input: *const u32,
    /// The outputs of each column for the first token.
    pub(super) out: [*mut f32; COLUMNS],
    /// Bytes from one token to the next.
    pub(super) stride: usize,
    /// What is asked for on the way, any address; for stored codes.
    pub(super) ahead: *const u8,
    /// Bytes of that for each group.
    pub(super) step: usize,
}

/// Codes of a byte each, below 128, in a panel.
pub(super) const PANEL: u32 = 7;
/// Those of 8 bits, which are made less by 128.
pub(super) const PANEL_EIGHT: u32 = 8;

/// Adds the products of `N` columns by `T` tokens to the outputs. `CODES` is the number of bits of stored codes, 4 to
/// 6, of which the last four lines are less by 8, or one of the above.
///
/// # Safety
/// - The CPU has the features of this tier.
/// - Of each line of each group the bytes of a column, `left` but not more than a register has, can be read: of eight
///   lines of a panel, or of four stored ones and of the planes behind them.
/// - So can the column's scales and, with `HALVES` and `MINS`, what else a panel has of it; factors and inputs of all
///   groups.
/// - The column's outputs for `T` tokens can be read and written.
#[inline(never)]
#[target_feature(enable = "neon,sve")]
pub(super) unsafe fn multiply<
    const CODES: u32,
    const N: usize,
    const T: usize,
    const HALVES: bool,
    const MINS: bool,
>(
    p: &Product,
) {
    const { assert!(N <= COLUMNS && T <= 4 && CODES >= 4 && CODES <= 8) };
    static START: f32 = BASE;
    // SAFETY: reads and writes what the contract of this function says; `prfm` is a hint that does not fault; all
    // registers that it changes are named.
    unsafe {
        asm!(
            r"
            // Does something for each column: its number, registers of codes and more, rows that it has, addresses.
            .macro columns do, line
            \do 0, z0, z4, p0, {at0}, {scales0}, \line
            .if {columns} > 1
            \do 1, z1, z5, p1, {at1}, {scales1}, \line
            .endif
            .endm

            // Does something for each token and column: sums of the first lines and of others, outputs.
            .macro cells do, line
            cell \do, 0, z8.s, z16.s, z24.s, z12.s, z20.s, z28.s, \line
            cell \do, 1, z9.s, z17.s, z25.s, z13.s, z21.s, z29.s, \line
            cell \do, 2, z10.s, z18.s, z26.s, z14.s, z22.s, z30.s, \line
            cell \do, 3, z11.s, z19.s, z27.s, z15.s, z23.s, z31.s, \line
            .endm
            .macro cell do, token, first0, last0, output0, first1, last1, output1, line
            .if \token < {tokens}
            \do 0, \token, \first0, \last0, \output0, \line
            .if {columns} > 1
            \do 1, \token, \first1, \last1, \output1, \line
            .endif
            .endif
            .endm

            .macro load_output n, token, first, last, output, line
            .if \n == 0
            ld1w {{\output}}, p0/z, [{out0}]
            add {out0}, {out0}, {stride}
            .else
            ld1w {{\output}}, p1/z, [{out1}]
            add {out1}, {out1}, {stride}
            .endif
            .endm

            .macro store_output n, token, first, last, output, line
            .if \n == 0
            st1w {{\output}}, p0, [{out0}]
            add {out0}, {out0}, {stride}
            .else
            st1w {{\output}}, p1, [{out1}]
            add {out1}, {out1}, {stride}
            .endif
            .endm

            .macro open n, token, first, last, output, line
            ld1rw {{\first}}, p2/z, [{start}]
            .if {stored} && {halves}
            ld1rw {{\last}}, p2/z, [{start}]
            .elseif {stored} && {split}
            mov \last, #0
            .endif
            .endm

            .macro add_up n, token, first, last, output, line
            add \first, \first, \last
            .endm

            .macro load_panel n, codes, other, rows, at, scales, line
            ld1b {{\codes\().b}}, \rows/z, [\at, x\line]
            .if {codes} == 8
            eor \codes\().b, \codes\().b, #0x80
            .endif
            .endm

            .macro load_stored n, codes, other, rows, at, scales, line
            ld1b {{\codes\().b}}, \rows/z, [\at, x\line]
            and \other\().d, \codes\().d, z6.d
            asr \codes\().b, \codes\().b, #4
            .if {codes} == 5
            ld1b {{z7.b}}, \rows/z, [\at, x4]
            lsl z7.b, z7.b, #(4 - \line)
            and z7.b, z7.b, #0x10
            orr \other\().d, \other\().d, z7.d
            ld1b {{z7.b}}, \rows/z, [\at, x4]
            .if \line > 0
            lsr z7.b, z7.b, #\line
            .endif
            and z7.b, z7.b, #0x10
            add \codes\().b, \codes\().b, z7.b
            .elseif {codes} == 6
            load_two x4, \rows, \at, \line
            orr \other\().d, \other\().d, z7.d
            load_two x5, \rows, \at, \line
            add \codes\().b, \codes\().b, z7.b
            .endif
            .endm

            // Bits 2 line and 2 line + 1 of a plane, in the place of bits 4 and 5.
            .macro load_two plane, rows, at, line
            ld1b {{z7.b}}, \rows/z, [\at, \plane]
            .if \line < 2
            lsl z7.b, z7.b, #(4 - 2 * \line)
            .elseif \line > 2
            lsr z7.b, z7.b, #2
            .endif
            and z7.b, z7.b, #0x30
            .endm

            .macro load_inputs inputs, word
            .if (\word) % 4 == 0
            ld1rqw {{\inputs}}, p2/z, [{input}, #((\word) * 4)]
            .endif
            .endm

            .macro dot_first n, token, first, last, output, line
            .if \n == 0
            load_inputs z2.s, \line*{tokens}+\token
            .endif
            sdot \first, z\n\().b, z2.b[(\line * {tokens} + \token) % 4]
            .endm

            .macro dot_last n, token, first, last, output, line
            .if \n == 0
            load_inputs z2.s, (\line+4)*{tokens}+\token
            .endif
            sdot \first, z\n\().b, z2.b[(\line * {tokens} + \token) % 4]
            .endm

            .macro dot_both n, token, first, last, output, line
            .if \n == 0
            load_inputs z2.s, \line*{tokens}+\token
            load_inputs z3.s, (\line+4)*{tokens}+\token
            sdot \first, z4.b, z2.b[(\line * {tokens} + \token) % 4]
            .else
            sdot \first, z5.b, z2.b[(\line * {tokens} + \token) % 4]
            .endif
            .if {split}
            sdot \last, z\n\().b, z3.b[(\line * {tokens} + \token) % 4]
            .else
            sdot \first, z\n\().b, z3.b[(\line * {tokens} + \token) % 4]
            .endif
            .endm

            .macro load_scales n, codes, other, rows, at, scales, line
            ld1w {{\codes\().s}}, \rows/z, [\scales]
            .endm

            .macro load_high_scales n, codes, other, rows, at, scales, line
            ld1w {{\codes\().s}}, \rows/z, [\scales, x6, lsl #2]
            .endm

            .macro load_minima n, codes, other, rows, at, scales, line
            ld1w {{\codes\().s}}, \rows/z, [\scales, x7, lsl #2]
            .endm

            .macro next_scales n, codes, other, rows, at, scales, line
            add \scales, \scales, #{row}
            .endm

            .macro close n, token, sum, output, half
            .if \n == 0
            ld1rw {{z2.s}}, p2/z, [{factors}, #({power} + 4 * \token)]
            ld1rw {{z3.s}}, p2/z, [{factors}, #({less} + 16 * (4 * \half + \token))]
            .endif
            fmad \sum, p2/m, z2.s, z3.s
            fmla \output, p2/m, \sum, z\n\().s
            .endm

            .macro close_low n, token, first, last, output, line
            close \n, \token, \first, \output, 0
            .endm

            .macro close_high n, token, first, last, output, line
            .if {stored}
            close \n, \token, \last, \output, 1
            .else
            close \n, \token, \first, \output, 1
            .endif
            .endm

            .macro subtract_minima n, token, first, last, output, line
            .if \n == 0
            ld1rw {{z2.s}}, p2/z, [{factors}, #({sum} + 4 * \token)]
            .endif
            fmla \output, p2/m, z\n\().s, z2.s
            .endm

            whilelo p0.b, xzr, {at0}
            whilelo p1.b, xzr, {at1}
            ptrue p2.b
            cells load_output
            mov z6.b, #0xf
            mov x0, #0
            mov x1, #64
            mov x2, #128
            mov x3, #192
            mov x4, #256
            mov x5, #320
            mov x6, #{high}
            mov x7, #{mins_at}
            cbz {groups}, 3f

            2:
            ldr {at1}, [{offsets}], #8
            add {at0}, {codes0}, {at1}
            add {at1}, {codes1}, {at1}
            cells open
            .if {stored}
            // The four lines, planes and scales.
            .irp ask,0,1,2,3,4,5,6
            .if \ask <= {codes}
            prfm pldl1keep, [{ahead}, #(64 * \ask)]
            .endif
            .endr
            add {ahead}, {ahead}, {step}
            .irp line,0,1,2,3
            columns load_stored, \line
            cells dot_both, \line
            .endr
            columns load_scales
            .if {halves}
            cells close_low
            columns load_high_scales
            cells close_high
            .else
            .if {split}
            cells add_up
            .endif
            cells close_low
            .endif
            .else
            .irp line,0,1,2,3
            columns load_panel, \line
            cells dot_first, \line
            .endr
            .if {halves}
            columns load_scales
            cells close_low
            cells open
            .endif
            add {at0}, {at0}, x4
            add {at1}, {at1}, x4
            .irp line,0,1,2,3
            columns load_panel, \line
            cells dot_last, \line
            .endr
            .if {halves}
            columns load_high_scales
            cells close_high
            .else
            columns load_scales
            cells close_low
            .endif
            .endif
            .if {mins}
            columns load_minima
            cells subtract_minima
            .endif
            columns next_scales
            add {factors}, {factors}, #{factors_bytes}
            add {input}, {input}, #{words_bytes}
            subs {groups}, {groups}, #1
            b.ne 2b

            3:
            .irp token,0,1,2,3
            .if \token < {tokens}
            sub {out0}, {out0}, {stride}
            sub {out1}, {out1}, {stride}
            .endif
            .endr
            cells store_output

            .irp name,columns,cells,cell,load_output,store_output,open,add_up,load_panel,load_stored,load_two,load_inputs
            .purgem \name
            .endr
            .irp name,dot_first,dot_last,dot_both,load_scales,load_high_scales,load_minima,next_scales,close,close_low
            .purgem \name
            .endr
            .irp name,close_high,subtract_minima
            .purgem \name
            .endr
            ",
            columns = const N,
            tokens = const T,
            codes = const CODES,
            stored = const (CODES < PANEL) as u32,
            split = const (HALVES || N == 1) as u32,
            halves = const HALVES as u32,
            mins = const MINS as u32,
            row = const ROWS * size_of::<f32>(),
            high = const (offset_of!(Panel, scales_high) - offset_of!(Panel, scales)) / size_of::<f32>(),
            mins_at = const (offset_of!(Panel, mins) - offset_of!(Panel, scales)) / size_of::<f32>(),
            power = const offset_of!(Factors, power),
            less = const offset_of!(Factors, less),
            sum = const offset_of!(Factors, sum),
            factors_bytes = const size_of::<Factors>(),
            words_bytes = const WORDS * T * size_of::<u32>(),
            at0 = inout(reg) p.left[0] => _,
            at1 = inout(reg) p.left[1] => _,
            codes0 = in(reg) p.codes[0],
            codes1 = in(reg) p.codes[1],
            offsets = inout(reg) p.offsets => _,
            scales0 = inout(reg) p.scales[0] => _,
            scales1 = inout(reg) p.scales[1] => _,
            groups = inout(reg) p.groups => _,
            factors = inout(reg) p.factors => _,
            input = inout(reg) p.input => _,
            out0 = inout(reg) p.out[0] => _,
            out1 = inout(reg) p.out[1] => _,
            stride = in(reg) p.stride,
            ahead = inout(reg) p.ahead => _,
            step = in(reg) p.step,
            start = in(reg) &raw const START,
            out("x0") _, out("x1") _, out("x2") _, out("x3") _, out("x4") _, out("x5") _, out("x6") _, out("x7") _,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v14") _,
            out("v15") _, out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _,
            out("v22") _, out("v23") _, out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _,
            out("v29") _, out("v30") _, out("v31") _, out("p0") _, out("p1") _, out("p2") _,
            options(nostack),
        );
    }
}
