//! Products with a tile of tokens, or two: weights are multiplied as they are taken apart, and never written.
//!
//! The sums are those of the micro-kernel, and so is the result, bit for bit: a scale times a power of two is exact,
//! whether multiplied or added to the exponent.

use super::{ROWS, Sums};

/// Sixteen rows, and a tile of tokens, or two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gemv<'a> {
    pub(crate) rows: &'a [*const u8; ROWS],
    /// Groups of a row: whole units.
    pub(crate) groups: usize,
    /// The words of the first tile; those of the second follow its flags.
    pub(crate) input: *const u32,
    /// 1 to 4; 8 where the kernel takes two tiles.
    pub(crate) tokens: usize,
    /// What is asked for on the way: from here on as many bytes as the rows have.
    pub(crate) ahead: *const u8,
}

/// Multiplies: `out[token][row] = Σ_k w[row][k] · x[token][k]`.
///
/// # Safety
/// - The CPU has the features of the tier.
/// - What a [`BuildFn`](super::BuildFn) may read of `rows` can be read, and at `input` `quantized_words` of so many
///   tokens and groups.
/// - `ahead` is any address.
/// - `tokens` sums can be written at `out`, and `tokens` is within its limits.
pub(crate) type GemvFn = unsafe fn(g: &Gemv<'_>, out: *mut Sums);
