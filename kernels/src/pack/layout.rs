//! How the blocks of a matrix are arranged in memory.
//!
//! A table entry names the layout its kernels read; a [`PackedMatrix`](super::PackedMatrix) remembers the one it has,
//! so that data arranged for one tier is an error in another, not garbage.

use crate::panel::ROWS;

/// An arrangement of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PackLayout {
    /// As stored in a file: the blocks of row 0 in ascending `k`, then those of row 1.
    RowMajor,
    /// Sixteen rows side by side, as `pack::panels` describes for each format; the last rows are padded to sixteen.
    Panels,
}

impl PackLayout {
    /// The name used in error messages.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::RowMajor => "row-major",
            Self::Panels => "panels of 16 rows",
        }
    }

    /// Rows that a matrix of `rows` rows takes the bytes of.
    pub(crate) const fn stored_rows(self, rows: usize) -> usize {
        match self {
            Self::RowMajor => rows,
            Self::Panels => rows.div_ceil(ROWS).saturating_mul(ROWS),
        }
    }
}
