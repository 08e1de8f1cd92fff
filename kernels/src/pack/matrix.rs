//! A weight matrix with its shape, format and layout, checked once when it is made.
//!
//! The bytes come from a tensor of the model file (a counted view of the memory map) and are read by
//! [`ops::matmul`](crate::ops::matmul) and [`ops::decode_row`](crate::ops::decode_row).

use std::ops::Range;

use halfbyte_formats::Bytes;

use super::PackLayout;
use crate::ActivationType;
use crate::error::{KernelError, product, same_len, whole_units};
use crate::panel::ROWS;

/// Weights `w: (rows, depth)`, ready to be multiplied. Made by [`Kernels::pack`](crate::Kernels::pack) and
/// [`Kernels::packed`](crate::Kernels::packed).
#[derive(Clone, Debug)]
pub struct PackedMatrix {
    rows: usize,
    depth: usize,
    /// Bytes of a row; of a sixteenth of a panel where rows are packed.
    row_bytes: usize,
    layout: PackLayout,
    activations: ActivationType,
    data: Bytes,
}

impl PackedMatrix {
    /// Checks the shape against the data: `depth` is a whole number of blocks or units and `data` exactly `rows` rows.
    pub(crate) fn new(
        shape: [usize; 2],
        layout: PackLayout,
        activations: ActivationType,
        data: Bytes,
    ) -> Result<Self, KernelError> {
        let [rows, depth] = shape;
        let (len, bytes) = layout.unit();
        whole_units("depth", len, depth)?;
        let row_bytes = product("matrix", depth / len, bytes)?;
        same_len("matrix data", product("matrix", layout.stored_rows(rows), row_bytes)?, data.len())?;
        Ok(Self { rows, depth, row_bytes, layout, activations, data })
    }

    /// Outputs: rows of the matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs: elements of a row.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// What it is multiplied with.
    pub fn activations(&self) -> ActivationType {
        self.activations
    }

    /// All bytes, in the order of the layout.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The view of the file that they are.
    pub fn storage(&self) -> &Bytes {
        &self.data
    }

    /// How they are stored.
    pub fn layout(&self) -> PackLayout {
        self.layout
    }

    /// The rows of `range` as the kernels take them.
    ///
    /// # Errors
    /// [`KernelError::RangeReversed`], or [`KernelError::OutOfRange`] if the range ends past the last row.
    pub(crate) fn rows_in(&self, range: Range<usize>) -> Result<WeightRows<'_>, KernelError> {
        let Range { start, end } = range;
        if start > end {
            return Err(KernelError::RangeReversed { what: "rows", start, end });
        }
        let past = || KernelError::OutOfRange { what: "rows", limit: self.rows, found: end };
        if end > self.rows {
            return Err(past());
        }
        let (skip, stored) = match self.layout {
            PackLayout::RowMajor(_) => (0, start..end),
            PackLayout::Panels(_) => (start % ROWS, start - start % ROWS..self.layout.stored_rows(end)),
        };
        // Neither product wraps, as `end <= rows`: that of all stored rows was computed when the matrix was made.
        let bytes = stored.start * self.row_bytes..stored.end * self.row_bytes;
        let data = self.data.get(bytes).ok_or_else(past)?;
        Ok(WeightRows { data, row_bytes: self.row_bytes, layout: self.layout, rows: end - start, skip })
    }
}

/// Rows of a matrix: what a matmul kernel reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WeightRows<'a> {
    /// Row-major: the blocks of all rows. Panels: those of all panels that have one of the rows.
    pub(crate) data: &'a [u8],
    /// Bytes of one row; 0 for a matrix of depth 0.
    pub(crate) row_bytes: usize,
    layout: PackLayout,
    /// Rows meant.
    pub(crate) rows: usize,
    /// Rows of the first panel that are not meant.
    pub(crate) skip: usize,
}

impl WeightRows<'_> {
    /// Panels that have one of the rows.
    pub(crate) fn panels(&self) -> usize {
        (self.skip + self.rows).div_ceil(ROWS)
    }

    /// Of the values of rows `row..` of the panels, those of rows that are meant: the first one's number, counted
    /// without the rows before the first that is meant, and the values.
    pub(crate) fn inside<'v>(&self, row: usize, values: &'v [f32]) -> (usize, &'v [f32]) {
        let before = self.skip.saturating_sub(row);
        (row.saturating_sub(self.skip), values.get(before..).unwrap_or_default())
    }

    /// Where the blocks of group `start` are, in a matrix of `groups` groups a row, for each of the 16 rows of panel
    /// number `panel < self.panels()`. Row-major: rows past the last one are the last one again. Panels: all the same
    /// address.
    #[inline]
    pub(crate) fn pointers(&self, panel: usize, start: usize, groups: usize) -> [*const u8; ROWS] {
        let first = self.data.as_ptr().wrapping_add(panel * ROWS * self.row_bytes + self.bytes(start, groups));
        let last = match self.layout {
            PackLayout::RowMajor(_) => (self.rows - panel * ROWS).min(ROWS) - 1,
            PackLayout::Panels(_) => 0,
        };
        std::array::from_fn(|row| first.wrapping_add(row.min(last) * self.row_bytes))
    }

    /// Bytes from where [`pointers`](Self::pointers) lead for group 0 to group `start`, in a matrix of `groups` groups
    /// a row.
    pub(crate) fn bytes(&self, start: usize, groups: usize) -> usize {
        let row = start * self.row_bytes / groups.max(1);
        match self.layout {
            PackLayout::RowMajor(_) => row,
            PackLayout::Panels(_) => ROWS * row,
        }
    }

    /// Of `len` bytes at the pointer of row `row` of a panel, those to be asked for on behalf of that row: all of them,
    /// or a sixteenth of those that all rows have in common.
    pub(crate) fn share(&self, at: *const u8, row: usize, len: usize) -> (*const u8, usize) {
        match self.layout {
            PackLayout::RowMajor(_) => (at, len),
            PackLayout::Panels(_) => (at.wrapping_add(row * len / ROWS), len / ROWS),
        }
    }
}
