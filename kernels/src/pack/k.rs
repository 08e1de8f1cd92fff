//! Panels of Q4_K and Q5_K: a unit is 256 inputs, eight groups with scales and minima of 6 bits.
//!
//! ```text
//! bytes 0..32     d[row]       f16
//!      32..64     dmin[row]    f16
//!      64..192    byte 16 g + row, g in 0..8: lower four bits of the scale of group g, of its minimum in bits 4..8
//!     192..256    byte 16 h + row, h in 0..4: upper two bits of the scale of group 2 h, its minimum, those of 2 h + 1
//! then 8 groups:  Q4_K: 256 bytes each, see `codes`;  Q5_K: 320, with a plane of fifth bits
//! ```
//! 2304 bytes for Q4_K, 2816 for Q5_K: as many as their blocks take.

use half::f16;
use halfbyte_formats::quant::{GROUP, Group, GroupFormat, PanelType, Q4_K, Q5_K, unpack_k_scales};

use super::codes;
use super::format::{BlockPanels, PanelFormat};
use crate::panel::{Kind, ROWS};

/// Bytes of `d`, and of `dmin`.
const HALVES: usize = 2 * ROWS;
/// Groups of a unit.
const GROUPS: usize = 8;
/// Bytes before the codes.
const HEAD: usize = 2 * HALVES + GROUPS * ROWS + GROUPS / 2 * ROWS;

/// A group of `CODES` bytes of codes.
fn group<const CODES: usize>(unit: &[u8], index: usize, row: usize) -> Option<Group> {
    let (head, groups) = unit.split_first_chunk::<HEAD>()?;
    let (halves, pairs) = head.split_first_chunk::<{ 2 * HALVES }>()?;
    let (lower, upper) = pairs.split_first_chunk::<{ GROUPS * ROWS }>()?;
    let halves: &[[u8; 2]] = halves.as_chunks().0;
    let half = |at: usize| Some(f16::from_le_bytes(*halves.get(at)?).to_f32());
    let lower = lower.get(ROWS * index + row)?;
    let upper = upper.get(ROWS * (index / 2) + row)? >> (4 * (index % 2));
    let (scale, min) = (lower & 15 | (upper & 3) << 4, lower >> 4 | (upper >> 2 & 3) << 4);
    Some(Group {
        codes: codes::take::<CODES>(groups.as_chunks().0.get(index)?, row),
        scales: [half(row)? * f32::from(scale); 2],
        min: half(ROWS + row)? * f32::from(min),
    })
}

/// Writes a block of a row.
fn put<F: GroupFormat, const CODES: usize>(unit: &mut [u8], row: usize, block: &[u8]) -> Option<()> {
    let (head, groups) = unit.split_first_chunk_mut::<HEAD>()?;
    let (halves, pairs) = head.split_first_chunk_mut::<{ 2 * HALVES }>()?;
    let (lower, upper) = pairs.split_first_chunk_mut::<{ GROUPS * ROWS }>()?;
    let &[d0, d1, m0, m1, ref packed @ ..] = block.first_chunk::<16>()?;
    let halves: &mut [[u8; 2]] = halves.as_chunks_mut().0;
    (*halves.get_mut(row)?, *halves.get_mut(ROWS + row)?) = ([d0, d1], [m0, m1]);
    for (index, (scale, min)) in unpack_k_scales(packed).into_iter().enumerate() {
        *lower.get_mut(ROWS * index + row)? = scale & 15 | min << 4;
        let upper = upper.get_mut(ROWS * (index / 2) + row)?;
        let bits = scale >> 4 | min >> 4 << 2;
        *upper = if index % 2 == 0 { bits } else { *upper | bits << 4 };
        codes::put::<CODES>(groups.as_chunks_mut().0.get_mut(index)?, row, &F::group(block, index)?.codes);
    }
    Some(())
}

impl PanelFormat for Q4_K {
    const PANEL: PanelType = PanelType::Q4_K;
    const KIND: Kind = Kind::of::<Self>();

    fn group(unit: &[u8], index: usize, row: usize) -> Option<Group> {
        group::<{ codes::group_bytes(4) }>(unit, index, row)
    }
}

impl BlockPanels for Q4_K {
    fn put(unit: &mut [u8], row: usize, blocks: &[u8]) -> Option<()> {
        put::<Self, { codes::group_bytes(4) }>(unit, row, blocks)
    }
}

impl PanelFormat for Q5_K {
    const PANEL: PanelType = PanelType::Q5_K;
    const KIND: Kind = Kind::of::<Self>();

    fn group(unit: &[u8], index: usize, row: usize) -> Option<Group> {
        group::<{ codes::group_bytes(5) }>(unit, index, row)
    }
}

impl BlockPanels for Q5_K {
    fn put(unit: &mut [u8], row: usize, blocks: &[u8]) -> Option<()> {
        put::<Self, { codes::group_bytes(5) }>(unit, row, blocks)
    }
}

const _: () = {
    assert!(GROUPS * GROUP == PanelType::Q4_K.unit_len() && GROUPS * GROUP == PanelType::Q5_K.unit_len());
    assert!(PanelType::Q4_K.unit_bytes() == HEAD + GROUPS * codes::group_bytes(4));
    assert!(PanelType::Q5_K.unit_bytes() == HEAD + GROUPS * codes::group_bytes(5));
};
