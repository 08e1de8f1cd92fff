//! How a matrix is stored.
//!
//! A [`PackedMatrix`](super::PackedMatrix) remembers it; the table of a tier has a kernel for each.

use halfbyte_formats::QuantType;
use halfbyte_formats::quant::{PANEL_ROWS, PanelType};

/// An arrangement of weights, and their format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PackLayout {
    /// Blocks as in other files: those of row 0 in ascending `k`, then those of row 1.
    RowMajor(QuantType),
    /// Sixteen rows side by side; the last rows are padded to sixteen.
    Panels(PanelType),
}

impl PackLayout {
    /// The name used in error messages.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::RowMajor(_) => "row-major blocks",
            Self::Panels(_) => "panels of 16 rows",
        }
    }

    /// Inputs of the smallest piece of a row, and its bytes (a sixteenth of those of a panel's).
    pub(crate) const fn unit(self) -> (usize, usize) {
        match self {
            Self::RowMajor(ty) => (ty.block_len(), ty.block_bytes()),
            Self::Panels(ty) => (ty.unit_len(), ty.unit_bytes() / PANEL_ROWS),
        }
    }

    /// Rows that a matrix of `rows` rows takes the bytes of.
    pub(crate) const fn stored_rows(self, rows: usize) -> usize {
        match self {
            Self::RowMajor(_) => rows,
            Self::Panels(_) => rows.div_ceil(PANEL_ROWS).saturating_mul(PANEL_ROWS),
        }
    }
}
