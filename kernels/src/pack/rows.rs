//! Row-major blocks to panels.

use halfbyte_formats::QuantType;
use halfbyte_formats::quant::PanelType;

use super::format;
use crate::KernelError;
use crate::error::{not_zero, product, same_len, whole_units};
use crate::panel::ROWS;

/// Writes a panel for 1 to 16 rows of row-major blocks of `ty`, in whole [units](PanelType::unit_len) of `depth`
/// inputs; rows that are missing to 16 repeat the last one. The values stay exactly what they are.
///
/// Shapes: `rows: (n, depth)` in bytes of the format, `panel: PanelType::matrix_bytes(16, depth)`.
///
/// ```
/// use halfbyte_formats::{Bytes, QuantType, quant::PanelType};
/// use halfbyte_kernels::{Kernels, ops, pack_rows};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let rows = [0x3c; 2 * 34]; // One row of 64 weights.
/// let mut panel = vec![0; PanelType::Q8_0.matrix_bytes(1, 64)?];
/// pack_rows(QuantType::Q8_0, 64, &rows, &mut panel)?;
///
/// let packed = Kernels::detect().packed(PanelType::Q8_0, 1, 64, Bytes::from(panel))?;
/// let mut row = [0.0; 64];
/// ops::decode_row(&packed, 0, &mut row)?;
/// assert_eq!(row, [60.0 * 1.0585938; 64]); // code 0x3c, scale 0x3c3c
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`KernelError::NoPanels`] if `ty` has none, [`KernelError::NotMultiple`] if `depth` is no whole number of units or
/// `rows` not whole rows, [`KernelError::Empty`], [`KernelError::OutOfRange`] for more than 16 rows,
/// [`KernelError::ShapeMismatch`] for `panel`.
pub fn pack_rows(ty: QuantType, depth: usize, rows: &[u8], panel: &mut [u8]) -> Result<(), KernelError> {
    let to = PanelType::of(ty).ok_or(KernelError::NoPanels { ty })?;
    let pack = format::row_packer(to).ok_or(KernelError::NoPanels { ty })?;
    whole_units("depth", to.unit_len(), depth)?;
    let row_bytes = product("row", depth / ty.block_len(), ty.block_bytes())?;
    let count = row_count(rows.len(), row_bytes)?;
    same_len("panel", product("panel", depth / to.unit_len(), to.unit_bytes())?, panel.len())?;
    let rows = std::array::from_fn(|row| rows.chunks_exact(row_bytes).nth(row.min(count - 1)).unwrap_or_default());
    pack(&rows, panel);
    Ok(())
}

/// The rows of a panel, 1 to 16, that `len` elements are, `row` each.
pub(super) fn row_count(len: usize, row: usize) -> Result<usize, KernelError> {
    not_zero("depth", row)?;
    not_zero("rows", len)?;
    whole_units("rows", row, len)?;
    let found = len / row;
    if found > ROWS { Err(KernelError::OutOfRange { what: "rows of a panel", limit: ROWS, found }) } else { Ok(found) }
}
