//! The codes of a group of 32 inputs, of all rows of a panel.
//!
//! ```text
//! line l, l in 0..4, 64 bytes:  byte 4 r + i    bits 0..4: code of input 4 l + i of row r, its lower four bits
//!                                               bits 4..8: that of input 16 + 4 l + i, XOR 8
//! planes of b upper bits, if codes have more than four; one of 64 bytes for b = 1, two for b = 2:
//!   plane p:                    byte 4 r + i    bits b t .. b t + b: upper bits of input 4 (8 / b · p + t) + i
//! ```
//! A line is what one vector multiplies: four inputs of each of 16 rows, and four more in its upper halves. Those are
//! stored less 8, as signed numbers, for instruction sets whose products are of signed bytes (`& 0xf0` is sixteen times
//! the code); others undo it by the operation that takes the halves apart.

use halfbyte_formats::quant::GROUP;

use crate::panel::ROWS;

/// Bytes of a line or a plane.
const LINE: usize = 4 * ROWS;
/// Bytes of a group's lines.
const LINES: usize = 4 * LINE;

/// Bytes of a group whose codes have `bits` bits, 4 to 6.
pub(crate) const fn group_bytes(bits: u32) -> usize {
    LINES + (bits as usize - 4) * LINE
}

/// Writes the codes of a row into a group of [`group_bytes`].
pub(super) fn put<const BYTES: usize>(group: &mut [u8; BYTES], row: usize, codes: &[u8; GROUP]) {
    let (lines, planes) = group.split_at_mut(LINES);
    for (l, line) in lines.as_chunks_mut::<LINE>().0.iter_mut().enumerate() {
        for i in 0..4 {
            let (low, high) = (codes[4 * l + i], codes[16 + 4 * l + i]);
            line[4 * row + i] = low & 15 | (high ^ 8) << 4;
        }
    }
    let bits = planes.len() / LINE;
    for (p, plane) in planes.as_chunks_mut::<LINE>().0.iter_mut().enumerate() {
        for i in 0..4 {
            let upper = (0..8 / bits).map(|t| codes[4 * (8 / bits * p + t) + i] >> 4 << (bits * t));
            plane[4 * row + i] = upper.fold(0, |all, bits| all | bits);
        }
    }
}

/// The codes of a row: the inverse of [`put`].
pub(super) fn take<const BYTES: usize>(group: &[u8; BYTES], row: usize) -> [u8; GROUP] {
    let (lines, planes) = group.split_at(LINES);
    let mut codes = [0; GROUP];
    for (l, line) in lines.as_chunks::<LINE>().0.iter().enumerate() {
        for i in 0..4 {
            let both = line[4 * row + i];
            (codes[4 * l + i], codes[16 + 4 * l + i]) = (both & 15, both >> 4 ^ 8);
        }
    }
    let bits = planes.len() / LINE;
    for (p, plane) in planes.as_chunks::<LINE>().0.iter().enumerate() {
        for i in 0..4 {
            for t in 0..8 / bits {
                let upper = plane[4 * row + i] >> (bits * t) & ((1 << bits) - 1);
                codes[4 * (8 / bits * p + t) + i] |= upper << 4;
            }
        }
    }
    codes
}
