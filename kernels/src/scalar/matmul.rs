//! Matrix products for every weight format: decode a piece of a row to the stack, then multiply it with each token.
//!
//! ```text
//! row-major:   row 0: block 0 | block 1 | …      row 1: block 0 | …
//! piece:       256 elements of two rows, decoded to f32 (2 KiB, stays in L1), used by up to 8 tokens
//! ```
//! Two rows at a time share the loads of `x` and keep eight chains of additions in flight. Which rows are paired and
//! which tokens share a piece changes no result: every (row, token) has its own partial sums (see `dot`).

use halfbyte_formats::QuantType;
use halfbyte_formats::quant::{
    BF16, BlockFormat, F32, IQ4_NL, IQ4_XS, MXFP4, Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0,
};

use super::dot::{DECODED, LANES, accumulate, decode_run, reduce};
use super::half::Half;
use super::panel;
use crate::Tile;
use crate::dispatch::table::Kernel;
use crate::pack::{PackLayout, WeightRows};

/// Tokens that share a decoded piece.
const TOKENS: usize = 8;

/// Elements of a piece; every block length divides it.
const PIECE: usize = 256;

/// The kernel of weights in `layout`; `None` if there is none.
pub(super) fn kernel(layout: PackLayout) -> Option<Kernel> {
    let ty = match layout {
        PackLayout::Panels(ty) => return Some(Kernel::Panels(panel::packed(ty))),
        PackLayout::RowMajor(ty) => ty,
    };
    Some(match ty {
        QuantType::F32 => blocks::<F32>(),
        QuantType::F16 => blocks::<Half>(),
        QuantType::BF16 => blocks::<BF16>(),
        QuantType::Q4_0 => blocks::<Q4_0>(),
        QuantType::Q4_1 => blocks::<Q4_1>(),
        QuantType::Q5_0 => blocks::<Q5_0>(),
        QuantType::Q5_1 => blocks::<Q5_1>(),
        QuantType::Q8_0 => blocks::<Q8_0>(),
        QuantType::Q2_K => blocks::<Q2_K>(),
        QuantType::Q3_K => blocks::<Q3_K>(),
        QuantType::Q4_K => blocks::<Q4_K>(),
        QuantType::Q5_K => blocks::<Q5_K>(),
        QuantType::Q6_K => blocks::<Q6_K>(),
        QuantType::IQ4_NL => blocks::<IQ4_NL>(),
        QuantType::IQ4_XS => blocks::<IQ4_XS>(),
        QuantType::MXFP4 => blocks::<MXFP4>(),
        _ => return None,
    })
}

/// The kernel of row-major blocks of `F`.
fn blocks<F: BlockFormat>() -> Kernel {
    const { assert!(PIECE.is_multiple_of(F::LEN)) };
    Kernel::Float { gemv: product::<F, 1>, gemm: product::<F, TOKENS> }
}

/// `out[t][r] = Σ_k w[r][k] · x[t][k]`, at most `T` tokens at a time.
fn product<F: BlockFormat, const T: usize>(w: WeightRows<'_>, depth: usize, x: &[f32], out: &mut Tile<'_>) {
    if depth == 0 || w.row_bytes == 0 {
        return;
    }
    for (tile, x) in x.chunks(T * depth).enumerate() {
        let first = tile * T;
        let mut pairs = w.data.chunks_exact(2 * w.row_bytes);
        let mut row = 0;
        for pair in &mut pairs {
            let (a, b) = pair.split_at(w.row_bytes);
            rows::<F, T, 2>([a, b], depth, x, row, first, out);
            row += 2;
        }
        let last = pairs.remainder();
        if !last.is_empty() {
            rows::<F, T, 1>([last], depth, x, row, first, out);
        }
    }
}

/// `R` rows times at most `T` tokens `x: (tokens, depth)`, written from row `row` and token `first` of `out` on.
#[inline(always)]
fn rows<F: BlockFormat, const T: usize, const R: usize>(
    w: [&[u8]; R],
    depth: usize,
    x: &[f32],
    row: usize,
    first: usize,
    out: &mut Tile<'_>,
) {
    let mut sums = [[[0.0; LANES]; R]; T];
    let mut decoded = [DECODED; R];
    for start in (0..depth).step_by(PIECE) {
        let end = depth.min(start + PIECE);
        let (from, to) = (start / F::LEN * F::BYTES, end / F::LEN * F::BYTES);
        for (decoded, w) in decoded.iter_mut().zip(w) {
            decode_run::<F>(w.get(from..to).unwrap_or_default(), decoded);
        }
        for (sums, x) in sums.iter_mut().zip(x.chunks_exact(depth)) {
            accumulate(sums, &decoded, x.get(start..end).unwrap_or_default());
        }
    }
    let tokens = x.len() / depth;
    for (token, sums) in sums.iter().take(tokens).enumerate() {
        let out = out.row_mut(first + token).iter_mut().skip(row);
        for (out, sums) in out.zip(sums) {
            *out = reduce(sums);
        }
    }
}
