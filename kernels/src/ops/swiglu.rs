//! The first half of a gated feed-forward layer, in one step.

use std::ops::Range;

use crate::dispatch::table::Kernel;
use crate::error::{KernelError, same_len, whole_units};
use crate::pack::WeightRows;
use crate::panel::{self, PanelKernel, Sums};
use crate::quantized::{GROUP, TILE, poisoned, quantized_words};
use crate::{Kernels, PackedMatrix, QuantTile};

/// Rows that [`swiglu`] computes at a time: whole groups, and whole triples of panels. Its rows are best cut there.
pub const SWIGLU_ROWS: usize = 96;
/// Tokens computed at a time.
const TOKENS: usize = 512;
/// The same for fewer tokens, an expert's: a smaller place on the stack to clear, for each block of rows.
const FEWER_TOKENS: usize = 128;

/// What [`swiglu`] says.
const _: () = assert!(size_of::<[[f32; SWIGLU_ROWS]; TOKENS]>() == 192 << 10 && panel::SCRATCH <= 133 << 10);

/// `out[t][r] = round(silu(Σ_k gate[r][k] · x[t][k]) · Σ_k up[r][k] · x[t][k])`, `silu(g) = g / (1 + exp(-g))` (Shazeer
/// 2020, eq. 5), rounded to 8 bits as [`quantize`](super::quantize) does: the intermediate never reaches memory.
///
/// Shapes: `gate` and `up: (rows, depth)`, both multiplied with 8-bit activations, `x: quantized_words(tokens, depth)`;
/// `out` is the window `rows` (whole groups of 32) of a batch of as many tokens. The scratch is on the stack: at most
/// 192 KiB of values and, for the products, 133 KiB of sums and panels.
///
/// # Errors
/// [`KernelError::RangeReversed`] or [`KernelError::OutOfRange`] for rows the matrices do not have,
/// [`KernelError::NotMultiple`] if `rows` does not begin and end with a group, [`KernelError::ShapeMismatch`] for `up`,
/// `x` or `out`, [`KernelError::LayoutMismatch`] if a matrix takes other activations or was made by other kernels.
pub fn swiglu(
    k: &Kernels,
    [gate, up]: [&PackedMatrix; 2],
    rows: Range<usize>,
    x: &[u32],
    out: &mut QuantTile<'_>,
) -> Result<(), KernelError> {
    let depth = gate.depth();
    same_len("swiglu depth", depth, up.depth())?;
    same_len("swiglu input", quantized_words(out.tokens(), depth)?, x.len())?;
    whole_units("swiglu rows", GROUP, rows.start)?;
    whole_units("swiglu rows", GROUP, rows.end)?;
    gate.rows_in(rows.clone())?;
    up.rows_in(rows.clone())?;
    same_len("swiglu output groups", rows.len() / GROUP, out.groups())?;
    let kernel = |w: &PackedMatrix| match (k.table().kernel)(w.layout()) {
        Some(Kernel::Panels(kernel)) => Ok(kernel),
        _ => Err(KernelError::LayoutMismatch { found: w.layout().name() }),
    };
    let step = Step { k, gate: (gate, kernel(gate)?), up: (up, kernel(up)?), x, depth };
    if out.tokens() == 0 {
        // Rows of a depth of 0 take no memory, so there may be more than can be counted through.
        return Ok(());
    }
    let block = |start: usize| start..rows.end.min(start + SWIGLU_ROWS);
    panel::ask(&step.gate.1, &gate.rows_in(block(rows.start))?, out.tokens());
    for start in rows.clone().step_by(SWIGLU_ROWS) {
        let group = (start - rows.start) / GROUP;
        if out.tokens() <= TILE {
            step.rows::<TILE>(block(start), group, out)?
        } else if out.tokens() <= FEWER_TOKENS {
            step.rows::<FEWER_TOKENS>(block(start), group, out)?
        } else {
            step.rows::<TOKENS>(block(start), group, out)?
        }
    }
    for token in poisoned(x, out.tokens(), depth / GROUP) {
        out.poison(token);
    }
    Ok(())
}

/// What is the same for all rows.
struct Step<'a> {
    k: &'a Kernels,
    gate: (&'a PackedMatrix, PanelKernel),
    up: (&'a PackedMatrix, PanelKernel),
    x: &'a [u32],
    depth: usize,
}

impl Step<'_> {
    /// At most [`SWIGLU_ROWS`] rows, `T` tokens at a time; `group` is their first group in `out`.
    fn rows<const T: usize>(
        &self,
        rows: Range<usize>,
        group: usize,
        out: &mut QuantTile<'_>,
    ) -> Result<(), KernelError> {
        let mut values = [[0.0; SWIGLU_ROWS]; T];
        let words = quantized_words(1, self.depth)?;
        let (gate, up) = (self.gate.0.rows_in(rows.clone())?, self.up.0.rows_in(rows.clone())?);
        // Each matrix in turn, so they are asked for in turn, too.
        let (first_up, next_gate) = (up.data.as_ptr(), gate.data.as_ptr_range().end);
        for first in (0..out.tokens()).step_by(T) {
            let tokens = T.min(out.tokens() - first);
            let x = self.x.get(first * words..(first + tokens) * words).unwrap_or_default();
            self.product(&self.gate.1, &gate, x, tokens, first_up, |row, token, sums| {
                let values = values[token][row..].iter_mut();
                values.zip(sums.as_flattened()).for_each(|(value, sum)| *value = *sum);
            });
            self.product(&self.up.1, &up, x, tokens, next_gate, |row, token, sums| {
                let len = sums.as_flattened().len().min(SWIGLU_ROWS - row);
                let (gate, up) = (&mut values[token][row..][..len], &sums.as_flattened()[..len]);
                // SAFETY: `k` proves that this CPU runs its table; both have the same length.
                unsafe { (self.k.table().silu_mul)(gate, up) };
            });
            for tile in (0..tokens).step_by(TILE) {
                let n = TILE.min(tokens - tile);
                let groups = group..group + rows.len() / GROUP;
                let words = out.words_mut(first + tile, groups);
                let x = values[tile..tile + n].as_flattened();
                // SAFETY: `k` proves that this CPU runs its table; `n` tokens of `SWIGLU_ROWS` values, of which the
                // first `rows.len()` become whole groups of words.
                let poisoned = unsafe { (self.k.table().quantize)(x, SWIGLU_ROWS, n, words) };
                (0..n).filter(|token| poisoned >> token & 1 == 1).for_each(|token| out.poison(first + tile + token));
            }
        }
        Ok(())
    }

    /// The product of rows of one matrix with `tokens` tokens.
    fn product(
        &self,
        kernel: &PanelKernel,
        w: &WeightRows<'_>,
        x: &[u32],
        tokens: usize,
        next: *const u8,
        put: impl FnMut(usize, usize, &[Sums]),
    ) {
        // SAFETY: the kernel comes from the table of a CPU that runs it, under the format and layout of `w`; the words
        // of `x` were counted. Rows are a multiple of 32, so packed panels begin with the first of them.
        unsafe { panel::matmul(kernel, w, self.depth, x, tokens, next, put) };
    }
}
