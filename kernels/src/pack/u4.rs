//! Panels of 4-bit codes with one scale, and perhaps a zero point, for 32, 64 or 128 inputs: AWQ and GPTQ.
//!
//! ```text
//! a unit is 128 inputs:  4 groups of 256 bytes, see `codes`
//!                        scales[128 / G][row]   f16
//!                        zeros[128 / G][row]    u8, 0 to 15, if there are zero points
//! y = s · (q - z), z = 8 without zero points
//! ```
//! With zero points it is `s · q - s · z`, a minimum: both products and the difference are exact in f32.

use half::f16;
use halfbyte_formats::quant::{GROUP, Group, PanelType, U4Group};

use super::codes;
use super::format::PanelFormat;
use crate::KernelError;
use crate::error::{product, same_len, whole_units};
use crate::panel::{Kind, ROWS};

/// Inputs of a unit.
const UNIT: usize = 128;
/// Bytes of a group of codes, and of a unit's.
const CODES: usize = codes::group_bytes(4);
const ALL_CODES: usize = UNIT / GROUP * CODES;

/// Marks panels with a scale for `G` inputs, with zero points or without.
#[derive(Clone, Copy, Debug)]
pub(crate) struct U4<const G: usize, const ZEROS: bool>;

impl<const G: usize, const ZEROS: bool> PanelFormat for U4<G, ZEROS> {
    const PANEL: PanelType = PanelType::U4 {
        group: match G {
            32 => U4Group::G32,
            64 => U4Group::G64,
            _ => U4Group::G128,
        },
        zeros: ZEROS,
    };
    const KIND: Kind = Kind { bits: 4, zero_shift: if ZEROS { 32 } else { 3 }, halves: false, mins: ZEROS };

    fn group(unit: &[u8], index: usize, row: usize) -> Option<Group> {
        let (groups, tail) = unit.split_first_chunk::<ALL_CODES>()?;
        let at = index * GROUP / G * ROWS + row;
        let scale = f16::from_le_bytes(*tail.as_chunks().0.get(at)?).to_f32();
        let zero = if ZEROS { *tail.get(UNIT / G * ROWS * 2 + at)? } else { 0 };
        let codes = codes::take::<CODES>(groups.as_chunks().0.get(index)?, row);
        Some(Group { codes, scales: [scale; 2], min: if ZEROS { scale * f32::from(zero) } else { 0.0 } })
    }
}

/// Up to 16 rows of 4-bit codes, as an importer has them.
#[derive(Clone, Copy, Debug)]
pub struct U4Rows<'a> {
    /// `(rows, depth)`, one code of 0 to 15 a byte.
    pub codes: &'a [u8],
    /// `(rows, depth / group)`, f16, little-endian.
    pub scales: &'a [[u8; 2]],
    /// `(rows, depth / group)`, 0 to 15.
    pub zeros: Option<&'a [u8]>,
}

/// Writes a panel of [`PanelType::U4`] for 1 to 16 rows of `depth` inputs, with zero points if `rows` has them; rows
/// that are missing to 16 repeat the last one.
///
/// # Errors
/// [`KernelError::NotMultiple`] if `depth` is not a multiple of 128 or `rows.codes` not whole rows,
/// [`KernelError::Empty`], [`KernelError::OutOfRange`] for more than 16 rows or a code or zero point above 15,
/// [`KernelError::ShapeMismatch`] for the other lengths.
pub fn pack_u4(group: U4Group, depth: usize, rows: &U4Rows<'_>, panel: &mut [u8]) -> Result<(), KernelError> {
    let ty = PanelType::U4 { group, zeros: rows.zeros.is_some() };
    whole_units("depth", UNIT, depth)?;
    let count = super::rows::row_count(rows.codes.len(), depth)?;
    let scales = depth / group.inputs();
    same_len("scales", count * scales, rows.scales.len())?;
    same_len("zero points", rows.zeros.map_or(0, |_| count * scales), rows.zeros.unwrap_or_default().len())?;
    same_len("panel", product("panel", depth / UNIT, ty.unit_bytes())?, panel.len())?;
    for values in [rows.codes, rows.zeros.unwrap_or_default()] {
        if let Some(&found) = values.iter().find(|value| **value > 15) {
            return Err(KernelError::OutOfRange { what: "4-bit code", limit: 15, found: found.into() });
        }
    }
    // A unit's, of one row.
    let per_unit = UNIT / group.inputs();
    for (u, unit) in panel.chunks_exact_mut(ty.unit_bytes()).enumerate() {
        let Some((groups, tail)) = unit.split_first_chunk_mut::<ALL_CODES>() else { continue };
        let (unit_scales, unit_zeros) = tail.split_at_mut(per_unit * ROWS * 2);
        for row in 0..ROWS {
            let from = row.min(count - 1);
            let codes = &rows.codes[from * depth + u * UNIT..][..UNIT];
            for (group, codes) in groups.as_chunks_mut::<CODES>().0.iter_mut().zip(codes.as_chunks().0) {
                codes::put(group, row, codes);
            }
            let first = from * scales + u * per_unit;
            for i in 0..per_unit {
                unit_scales.as_chunks_mut().0[i * ROWS + row] = rows.scales[first + i];
                if let Some(zeros) = rows.zeros {
                    unit_zeros[i * ROWS + row] = zeros[first + i];
                }
            }
        }
    }
    Ok(())
}

const _: () = assert!(PanelType::U4 { group: U4Group::G64, zeros: true }.unit_bytes() == ALL_CODES + 2 * ROWS * 3);
