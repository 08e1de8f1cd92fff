//! Products with a packed weight matrix.

use std::ops::Range;

use halfbyte_formats::quant;

use crate::dispatch::table::Kernel;
use crate::error::{KernelError, not_zero, product, same_len, whole_units};
use crate::pack::{self, PackLayout, WeightRows};
use crate::panel::{self, Sums};
use crate::quantized::{GROUP, TILE, poisoned, quantized_words, token_words};
use crate::{Activations, Kernels, PackedMatrix, Tile};

/// Rounds tokens to 8 bits, for matrices whose [`PackedMatrix::activations`] are [`Q8`](crate::ActivationType::Q8): 32
/// inputs share a scale, the smallest power of two with which all lie within ±127, ties to even.
///
/// Shapes: `x: (tokens, depth)`, `out` has [`quantized_words`]`(tokens, depth)` words. A token with an input that is
/// not finite, or beyond 127 · 2^96, gives NaN in every product.
///
/// Four tokens at a time lie interleaved in `out`, so parts of a batch may be rounded apart if each part but the last
/// is a multiple of four tokens.
///
/// # Errors
/// [`KernelError::Empty`] for a depth of 0, [`KernelError::NotMultiple`] if `depth` is not a multiple of 32 or `x` not
/// whole tokens, [`KernelError::ShapeMismatch`] for `out`.
pub fn quantize(k: &Kernels, x: &[f32], depth: usize, out: &mut [u32]) -> Result<(), KernelError> {
    not_zero("depth", depth)?;
    whole_units("quantize input", depth, x.len())?;
    same_len("quantize output", quantized_words(x.len() / depth, depth)?, out.len())?;
    for (x, out) in x.chunks(TILE * depth).zip(out.chunks_mut(TILE * token_words(depth / GROUP))) {
        let tokens = x.len() / depth;
        let (groups, flags) = out.split_at_mut(out.len() - tokens);
        // SAFETY: `k` proves that this CPU runs its table; the shapes were checked above.
        let poisoned = unsafe { (k.table().quantize)(x, depth, tokens, groups) };
        for (token, flag) in flags.iter_mut().enumerate() {
            *flag = poisoned >> token & 1;
        }
    }
    Ok(())
}

/// What a product does with its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// `out = w · x`
    Set,
    /// `out += w · x`, the residual connection.
    Add,
}

/// Multiplies a range of rows with every token: `out[t][r - rows.start] = Σ_k w[r][k] · x[t][k]`, or adds that to
/// `out`.
///
/// Shapes: `w: (rows, depth)`, `x: (tokens, depth)` of the kind [`PackedMatrix::activations`] names,
/// `out: (tokens, rows.len())`; `tokens` is that of `out`. Nothing happens for zero rows or tokens. The order of
/// summation is fixed per row: an element of the result does not depend on the other rows and tokens of the call.
///
/// # Errors
/// [`KernelError::RangeReversed`] or [`KernelError::OutOfRange`] for rows the matrix does not have,
/// [`KernelError::ShapeMismatch`] for `x` or `out`, [`KernelError::ActivationMismatch`] for the wrong kind of `x`,
/// [`KernelError::LayoutMismatch`] if `w` was made by other kernels.
pub fn matmul(
    k: &Kernels,
    w: &PackedMatrix,
    rows: Range<usize>,
    x: Activations<'_>,
    store: Store,
    out: &mut Tile<'_>,
) -> Result<(), KernelError> {
    let tokens = out.tokens();
    let weights = check(w, rows.clone(), x, tokens, out)?;
    let kernel = (k.table().kernel)(w.layout()).ok_or(KernelError::LayoutMismatch { found: w.layout().name() })?;
    match (x, kernel, store) {
        _ if rows.is_empty() || tokens == 0 => {}
        _ if w.depth() == 0 => {
            for token in (0..tokens).filter(|_| store == Store::Set) {
                out.row_mut(token).fill(0.0);
            }
        }
        (Activations::F32(x), Kernel::Float { gemv, gemm }, Store::Set) => {
            let kernel = if tokens == 1 { gemv } else { gemm };
            // SAFETY: `k` proves that this CPU runs its table; the shapes were checked above.
            unsafe { kernel(weights, w.depth(), x, out) };
        }
        _ => {
            products(k, w, rows, x, tokens, |row, token, products| {
                let out = out.row_mut(token).get_mut(row..).unwrap_or_default().iter_mut().zip(products);
                match store {
                    Store::Set => out.for_each(|(out, product)| *out = *product),
                    Store::Add => out.for_each(|(out, product)| *out += *product),
                }
            })?;
            useless(x, tokens, w.depth()).for_each(|token| out.row_mut(token).fill(f32::NAN));
        }
    }
    Ok(())
}

/// Multiplies a range of rows with tokens and adds each token's result, weighted, to a row of a larger batch, as
/// experts do with the tokens they were given: for `to[i] = (t, weight)`, `out[t][r - rows.start] += weight · Σ_k
/// w[r][k] · x[i][k]`.
///
/// Shapes: as for [`matmul`], but `x: (to.len(), depth)` and `out: (tokens, rows.len())`. The products are those of
/// [`matmul`], bit for bit; each is multiplied, rounded and added, in the order of `to`.
///
/// # Errors
/// As [`matmul`]; [`KernelError::OutOfRange`] for a token that `out` does not have.
pub fn matmul_scatter(
    k: &Kernels,
    w: &PackedMatrix,
    rows: Range<usize>,
    x: Activations<'_>,
    to: &[(usize, f32)],
    out: &mut Tile<'_>,
) -> Result<(), KernelError> {
    check(w, rows.clone(), x, to.len(), out)?;
    if let Some(&(found, _)) = to.iter().find(|&&(token, _)| token >= out.tokens()) {
        return Err(KernelError::OutOfRange { what: "token", limit: out.tokens(), found });
    }
    if rows.is_empty() || to.is_empty() || w.depth() == 0 {
        return Ok(());
    }
    products(k, w, rows, x, to.len(), |row, i, products| {
        let (token, weight) = to[i];
        let out = out.row_mut(token).get_mut(row..).unwrap_or_default();
        out.iter_mut().zip(products).for_each(|(out, product)| *out += weight * *product);
    })?;
    useless(x, to.len(), w.depth()).for_each(|i| out.row_mut(to[i].0).fill(f32::NAN));
    Ok(())
}

/// Checks the shapes of a product of `rows` with `tokens` inputs, whose outputs are as wide as `out`.
fn check<'w>(
    w: &'w PackedMatrix,
    rows: Range<usize>,
    x: Activations<'_>,
    tokens: usize,
    out: &Tile<'_>,
) -> Result<WeightRows<'w>, KernelError> {
    let depth = w.depth();
    let weights = w.rows_in(rows.clone())?;
    same_len("matmul output rows", rows.len(), out.rows())?;
    if x.ty() != w.activations() {
        return Err(KernelError::ActivationMismatch { expected: w.activations().name(), found: x.ty().name() });
    }
    match x {
        Activations::F32(x) => same_len("matmul input", product("matmul input", tokens, depth)?, x.len())?,
        Activations::Q8(x) => same_len("matmul input", quantized_words(tokens, depth)?, x.len())?,
    }
    Ok(weights)
}

/// Calls `put(row, token, products)` with runs of products of rows from `rows.start + row` on, until all have come for
/// every token; there may be more of them than rows are left. Shapes were checked, nothing is empty.
fn products(
    k: &Kernels,
    w: &PackedMatrix,
    rows: Range<usize>,
    x: Activations<'_>,
    tokens: usize,
    mut put: impl FnMut(usize, usize, &[f32]),
) -> Result<(), KernelError> {
    /// What fits the stack, for kernels that write to a tile.
    const ROWS: usize = 64;
    const TOKENS: usize = 8;
    let weights = w.rows_in(rows.clone())?;
    match (x, (k.table().kernel)(w.layout())) {
        (Activations::Q8(x), Some(Kernel::Panels(kernel))) => {
            let put = |row: usize, token: usize, sums: &[Sums]| {
                let (row, sums) = weights.inside(row, sums.as_flattened());
                put(row, token, sums);
            };
            panel::ask(&kernel, &weights, tokens);
            // SAFETY: the kernel comes from the table of a CPU that runs it, under the format and layout of `w`; the
            // words of `x` were counted.
            unsafe { panel::matmul(&kernel, &weights, w.depth(), x, tokens, weights.data.as_ptr_range().end, put) };
        }
        (Activations::F32(x), Some(Kernel::Float { .. })) => {
            let mut buffer = [0.0; ROWS * TOKENS];
            for start in rows.clone().step_by(ROWS) {
                let piece = start..rows.end.min(start + ROWS);
                let (n_rows, row) = (piece.len(), start - rows.start);
                for (tile, x) in x.chunks(TOKENS * w.depth()).enumerate() {
                    let tokens = x.len() / w.depth();
                    let products = &mut buffer[..tokens * n_rows];
                    let mut part = Tile::new(products, tokens, n_rows)?;
                    matmul(k, w, piece.clone(), Activations::F32(x), Store::Set, &mut part)?;
                    for (token, products) in products.chunks_exact(n_rows).enumerate() {
                        put(row, tile * TOKENS + token, products);
                    }
                }
            }
        }
        _ => return Err(KernelError::LayoutMismatch { found: w.layout().name() }),
    }
    Ok(())
}

/// The tokens whose 8-bit inputs are of no use.
fn useless(x: Activations<'_>, tokens: usize, depth: usize) -> impl Iterator<Item = usize> {
    let words = match x {
        Activations::Q8(words) => words,
        Activations::F32(_) => &[],
    };
    poisoned(words, tokens, depth / GROUP)
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
        PackLayout::RowMajor(ty) => quant::decode(ty, weights.data, out).map_err(|_| KernelError::ShapeMismatch {
            what: "decoded row",
            expected: w.depth(),
            found: out.len(),
        }),
        PackLayout::Panels(ty) => {
            pack::decode_row(ty, weights.data, weights.skip, out);
            Ok(())
        }
    }
}
