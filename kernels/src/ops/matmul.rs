//! Products with a packed weight matrix.

use std::ops::Range;

use halfbyte_formats::quant;

use crate::error::{KernelError, product, same_len};
use crate::pack::PackLayout;
use crate::{Kernels, PackedMatrix, Tile};

/// Multiplies a range of rows with every token: `out[t][r - rows.start] = Σ_k w[r][k] · x[t][k]`.
///
/// Shapes: `w: (rows, depth)`, `x: (tokens, depth)` contiguous, `out: (tokens, rows.len())`; `tokens` is that of `out`.
/// Nothing happens for zero rows or tokens. The order of summation is fixed per row: an element of the result does not
/// depend on the other rows and tokens of the call.
///
/// # Errors
/// [`KernelError::RangeReversed`] or [`KernelError::OutOfRange`] for rows the matrix does not have,
/// [`KernelError::ShapeMismatch`] for `x` or `out`, [`KernelError::LayoutMismatch`] if `w` was packed by other kernels.
pub fn matmul(
    k: &Kernels,
    w: &PackedMatrix,
    rows: Range<usize>,
    x: &[f32],
    out: &mut Tile<'_>,
) -> Result<(), KernelError> {
    let n_rows = rows.len();
    let weights = w.rows_in(rows)?;
    let tokens = out.tokens();
    same_len("matmul output rows", n_rows, out.rows())?;
    same_len("matmul input", product("matmul input", tokens, w.depth())?, x.len())?;
    let entry = k.table().matmul(w.ty()).ok_or(KernelError::UnsupportedType { ty: w.ty() })?;
    if entry.layout != w.layout() {
        return Err(KernelError::LayoutMismatch { expected: entry.layout.name(), found: w.layout().name() });
    }
    if n_rows == 0 || tokens == 0 {
        return Ok(());
    }
    if w.depth() == 0 {
        for token in 0..tokens {
            out.row_mut(token).fill(0.0);
        }
        return Ok(());
    }
    let kernel = if tokens == 1 { entry.gemv } else { entry.gemm };
    kernel(weights, w.depth(), x, out);
    Ok(())
}

/// Decodes one row to `f32` (the look-up in an embedding): `out[k] = w[row][k]`, `out: (depth,)`.
///
/// # Errors
/// [`KernelError::OutOfRange`] if there is no such row, [`KernelError::ShapeMismatch`] for `out`.
pub fn decode_row(w: &PackedMatrix, row: usize, out: &mut [f32]) -> Result<(), KernelError> {
    same_len("decoded row", w.depth(), out.len())?;
    let end = row.checked_add(1).ok_or(KernelError::TooLarge { what: "row" })?;
    let weights = w.rows_in(row..end)?;
    match w.layout() {
        PackLayout::RowMajor => quant::decode(w.ty(), weights.data, out).map_err(|_| KernelError::ShapeMismatch {
            what: "decoded row",
            expected: w.depth(),
            found: out.len(),
        }),
    }
}
