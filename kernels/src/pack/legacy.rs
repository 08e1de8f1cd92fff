//! Panels of Q4_0, Q5_0 and Q8_0: a unit is 64 inputs, two groups.
//!
//! ```text
//! Q4_0, 576 bytes:    2 groups of 256, see `codes`
//! Q5_0, 704 bytes:    2 groups of 320, with a plane of fifth bits
//! Q8_0, 1088 bytes:   2 groups of 512: line l, l in 0..8, byte 4 r + i: code of input 4 l + i of row r, signed
//! then, in all:       scales[group][row], f16: 64 bytes
//! ```
//! With their scales, two groups of Q4_0 are nine whole cache lines.

use half::f16;
use halfbyte_formats::quant::{BlockFormat, GROUP, Group, GroupFormat, PanelType, Q4_0, Q5_0, Q8_0};

use super::codes;
use super::format::{BlockPanels, PanelFormat};
use crate::panel::{Kind, ROWS};

/// Groups of a unit.
const GROUPS: usize = 2;
/// Bytes of a unit's scales.
const SCALES: usize = GROUPS * ROWS * 2;

/// The codes of a group and the scale of one row in it.
fn parts<const CODES: usize>(unit: &[u8], index: usize, row: usize) -> Option<(&[u8; CODES], [f32; 2])> {
    let scale = unit.last_chunk::<SCALES>()?.as_chunks().0.get(index * ROWS + row)?;
    Some((unit.as_chunks().0.get(index)?, [f16::from_le_bytes(*scale).to_f32(); 2]))
}

/// Writes the blocks of a row; each begins with its scale.
fn put<F: GroupFormat, const CODES: usize>(
    unit: &mut [u8],
    row: usize,
    blocks: &[u8],
    put: fn(&mut [u8; CODES], usize, &[u8; GROUP]),
) -> Option<()> {
    for (index, block) in blocks.chunks_exact(F::BYTES).enumerate() {
        put(unit.as_chunks_mut().0.get_mut(index)?, row, &F::group(block, 0)?.codes);
        let scales: &mut [[u8; 2]] = unit.last_chunk_mut::<SCALES>()?.as_chunks_mut().0;
        *scales.get_mut(index * ROWS + row)? = *block.first_chunk()?;
    }
    Some(())
}

impl PanelFormat for Q4_0 {
    const PANEL: PanelType = PanelType::Q4_0;
    const KIND: Kind = Kind::of::<Self>();

    fn group(unit: &[u8], index: usize, row: usize) -> Option<Group> {
        let (group, scales) = parts::<{ codes::group_bytes(4) }>(unit, index, row)?;
        Some(Group { codes: codes::take(group, row), scales, min: 0.0 })
    }
}

impl BlockPanels for Q4_0 {
    fn put(unit: &mut [u8], row: usize, blocks: &[u8]) -> Option<()> {
        put::<Self, { codes::group_bytes(4) }>(unit, row, blocks, codes::put)
    }
}

impl PanelFormat for Q5_0 {
    const PANEL: PanelType = PanelType::Q5_0;
    const KIND: Kind = Kind::of::<Self>();

    fn group(unit: &[u8], index: usize, row: usize) -> Option<Group> {
        let (group, scales) = parts::<{ codes::group_bytes(5) }>(unit, index, row)?;
        Some(Group { codes: codes::take(group, row), scales, min: 0.0 })
    }
}

impl BlockPanels for Q5_0 {
    fn put(unit: &mut [u8], row: usize, blocks: &[u8]) -> Option<()> {
        put::<Self, { codes::group_bytes(5) }>(unit, row, blocks, codes::put)
    }
}

impl PanelFormat for Q8_0 {
    const PANEL: PanelType = PanelType::Q8_0;
    const KIND: Kind = Kind::of::<Self>();

    fn group(unit: &[u8], index: usize, row: usize) -> Option<Group> {
        let (group, scales) = parts::<{ GROUP * ROWS }>(unit, index, row)?;
        let codes = std::array::from_fn(|k| group[k / 4 * 4 * ROWS + 4 * row + k % 4] ^ 0x80);
        Some(Group { codes, scales, min: 0.0 })
    }
}

impl BlockPanels for Q8_0 {
    fn put(unit: &mut [u8], row: usize, blocks: &[u8]) -> Option<()> {
        put::<Self, { GROUP * ROWS }>(unit, row, blocks, |group, row, codes| {
            for (k, code) in codes.iter().enumerate() {
                group[k / 4 * 4 * ROWS + 4 * row + k % 4] = code ^ 0x80;
            }
        })
    }
}

const _: () = {
    assert!(Q4_0::LEN * GROUPS == PanelType::Q4_0.unit_len());
    assert!(PanelType::Q4_0.unit_bytes() == GROUPS * codes::group_bytes(4) + SCALES);
    assert!(PanelType::Q5_0.unit_bytes() == GROUPS * codes::group_bytes(5) + SCALES);
    assert!(PanelType::Q8_0.unit_bytes() == GROUPS * GROUP * ROWS + SCALES);
};
