//! Panels of Q6_K: a unit is 256 inputs, eight groups with two scales of 8 bits each.
//!
//! ```text
//! 8 groups:  384 bytes each, see `codes`: lines, then two planes of two upper bits
//! then       byte 16 h + row, h in 0..16: scale of inputs 16 h .. 16 h + 16, signed      256 bytes
//! then       d[row], f16                                                                  32 bytes
//! ```
//! 3360 bytes: as many as its blocks take.

use half::f16;
use halfbyte_formats::quant::{BlockFormat, GROUP, Group, GroupFormat, PanelType, Q6_K};

use super::codes;
use super::format::{BlockPanels, PanelFormat};
use crate::panel::{Kind, ROWS};

/// Groups of a unit.
const GROUPS: usize = 8;
/// Bytes of a group's codes.
const CODES: usize = codes::group_bytes(6);
/// Bytes of the scales and of `d`.
const SCALES: usize = 2 * GROUPS * ROWS;
const HALVES: usize = 2 * ROWS;

impl PanelFormat for Q6_K {
    const PANEL: PanelType = PanelType::Q6_K;
    const KIND: Kind = Kind::of::<Self>();

    fn group(unit: &[u8], index: usize, row: usize) -> Option<Group> {
        let (groups, tail) = unit.split_last_chunk::<{ SCALES + HALVES }>()?;
        let (scales, halves) = tail.split_first_chunk::<SCALES>()?;
        let d = f16::from_le_bytes(*halves.as_chunks().0.get(row)?).to_f32();
        let scale = |half: usize| Some(d * f32::from(*scales.get(ROWS * half + row)? as i8));
        Some(Group {
            codes: codes::take::<CODES>(groups.as_chunks().0.get(index)?, row),
            scales: [scale(2 * index)?, scale(2 * index + 1)?],
            min: 0.0,
        })
    }
}

impl BlockPanels for Q6_K {
    fn put(unit: &mut [u8], row: usize, block: &[u8]) -> Option<()> {
        let (groups, tail) = unit.split_last_chunk_mut::<{ SCALES + HALVES }>()?;
        let (scales, halves) = tail.split_first_chunk_mut::<SCALES>()?;
        let (before, d) = <&[u8; Self::BYTES]>::try_from(block).ok()?.split_last_chunk::<2>()?;
        *halves.as_chunks_mut().0.get_mut(row)? = *d;
        for (half, scale) in before.last_chunk::<16>()?.iter().enumerate() {
            *scales.get_mut(ROWS * half + row)? = *scale;
        }
        for (index, group) in groups.as_chunks_mut::<CODES>().0.iter_mut().enumerate() {
            codes::put(group, row, &<Self as GroupFormat>::group(block, index)?.codes);
        }
        Some(())
    }
}

const _: () = {
    assert!(GROUPS * GROUP == PanelType::Q6_K.unit_len());
    assert!(PanelType::Q6_K.unit_bytes() == GROUPS * CODES + SCALES + HALVES);
};
