//! A weight matrix with its shape, format and layout, checked once when it is made.
//!
//! The bytes come from a tensor of the model file (a counted view of the memory map) and are read by
//! [`ops::matmul`](crate::ops::matmul) and [`ops::decode_row`](crate::ops::decode_row).

use std::ops::Range;

use halfbyte_formats::{Bytes, QuantType};

use super::PackLayout;
use crate::error::{KernelError, product, same_len, whole_units};

/// Weights `w: (rows, depth)`, ready to be multiplied. Made by [`Kernels::pack`](crate::Kernels::pack).
#[derive(Clone, Debug)]
pub struct PackedMatrix {
    ty: QuantType,
    rows: usize,
    depth: usize,
    row_bytes: usize,
    layout: PackLayout,
    data: Bytes,
}

impl PackedMatrix {
    /// Checks the shape against the data: `depth` is a whole number of blocks and `data` exactly `rows` rows.
    pub(crate) fn new(
        ty: QuantType,
        rows: usize,
        depth: usize,
        layout: PackLayout,
        data: Bytes,
    ) -> Result<Self, KernelError> {
        whole_units("depth", ty.block_len(), depth)?;
        let row_bytes = product("matrix", depth / ty.block_len(), ty.block_bytes())?;
        same_len("matrix data", product("matrix", rows, row_bytes)?, data.len())?;
        Ok(Self { ty, rows, depth, row_bytes, layout, data })
    }

    /// Outputs: rows of the matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs: elements of a row.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// The format of the blocks.
    pub fn ty(&self) -> QuantType {
        self.ty
    }

    /// All bytes, in the order of the layout.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The arrangement of the blocks.
    pub(crate) fn layout(&self) -> PackLayout {
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
        // Neither product wraps for `end <= rows`: `rows * row_bytes` was computed when the matrix was made.
        let data = if end <= self.rows { self.data.get(start * self.row_bytes..end * self.row_bytes) } else { None };
        let data = data.ok_or(KernelError::OutOfRange { what: "rows", limit: self.rows, found: end })?;
        Ok(WeightRows { data, row_bytes: self.row_bytes })
    }
}

/// Whole rows of a row-major matrix: what a matmul kernel reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WeightRows<'a> {
    /// The blocks of all rows: `rows * row_bytes` long.
    pub(crate) data: &'a [u8],
    /// Bytes of one row; 0 for a matrix of depth 0.
    pub(crate) row_bytes: usize,
}
