//! Activations rounded to 8 bits: what the kernels of quantised weights multiply.
//!
//! Groups of 32 inputs of a token share a scale that is a power of two, the smallest with which every rounded value
//! lies within ±127. A power of two is applied to a weight's scale by adding to its exponent: one instruction less, and
//! none on the multipliers, for every group, row and token. A best scale would be up to twice as fine; bits per byte of
//! the bundled models differ by 0.02 % at most.
//!
//! Four tokens lie interleaved, as a tile; the last tile of a batch may have fewer. In words of 32 bits, for `n`
//! tokens:
//!
//! ```text
//! tile:   group 0 | group 1 | … | [flag: n]              flag: 1 if an input is not finite, or beyond 127 · 2^96
//! group:  [line 0: n words] … [line 7: n words]          word: inputs 4 line .. 4 line + 4, one i8 a byte
//!         [negated sum: n] [that of inputs 0..16: n]     i32
//!         [exponent: n]                                  scale = 2^e, as e << 23
//!         [scaled sum: n]                                f32, scale · sum
//! ```
//! A group with such an input is stored as zeros; the results of the token are then made NaN.

use crate::error::{KernelError, product, whole_units};

/// Tokens of a full tile.
pub(crate) const TILE: usize = 4;
/// Inputs that share a scale.
pub(crate) const GROUP: usize = 32;
/// Lines of four inputs in a group.
pub(crate) const LINES: usize = GROUP / 4;
/// Words of a group and token.
pub(crate) const WORDS: usize = LINES + 4;
/// Least exponent of a scale; inputs far below it round to zero.
pub(crate) const MIN_EXPONENT: i32 = -96;
/// Largest input: beyond it, a product with a weight's scale might overflow.
pub(crate) const MAX_INPUT: f32 = 127.0 * (1u128 << 96) as f32;

/// Where the words of one group of a tile are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// The four inputs of this line.
    Line(usize),
    NegatedSum,
    NegatedSumLow,
    Exponent,
    ScaledSum,
}

impl Field {
    /// The word of `token` among the `WORDS * n` of a group of `n` tokens.
    pub(crate) const fn word(self, n: usize, token: usize) -> usize {
        let row = match self {
            Self::Line(line) => line,
            Self::NegatedSum => LINES,
            Self::NegatedSumLow => LINES + 1,
            Self::Exponent => LINES + 2,
            Self::ScaledSum => LINES + 3,
        };
        row * n + token
    }
}

/// Inputs of a product: `(tokens, depth)`.
#[derive(Clone, Copy, Debug)]
pub enum Activations<'a> {
    /// As they are, contiguous.
    F32(&'a [f32]),
    /// As [`ops::quantize`](crate::ops::quantize) wrote them.
    Q8(&'a [u32]),
}

/// Which [`Activations`] a matrix is multiplied with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActivationType {
    /// [`Activations::F32`].
    F32,
    /// [`Activations::Q8`].
    Q8,
}

impl ActivationType {
    /// The name used in error messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Q8 => "q8",
        }
    }
}

impl Activations<'_> {
    /// Which kind they are.
    pub(crate) fn ty(&self) -> ActivationType {
        match self {
            Self::F32(_) => ActivationType::F32,
            Self::Q8(_) => ActivationType::Q8,
        }
    }
}

/// Words that [`ops::quantize`](crate::ops::quantize) writes for `tokens` of `depth` inputs:
/// `tokens · (depth · 3 / 8 + 1)`.
///
/// # Errors
/// [`KernelError::NotMultiple`] if `depth` is not a whole number of groups of 32, [`KernelError::TooLarge`].
pub fn quantized_words(tokens: usize, depth: usize) -> Result<usize, KernelError> {
    whole_units("depth", GROUP, depth)?;
    let token = product("activations", depth / GROUP, WORDS)?.checked_add(1);
    product("activations", token.ok_or(KernelError::TooLarge { what: "activations" })?, tokens)
}

/// Words of one token of `groups` groups.
pub(crate) const fn token_words(groups: usize) -> usize {
    groups * WORDS + 1
}

/// The numbers of the tokens whose flag is set, in words of `tokens` tokens of `groups` groups.
pub(crate) fn poisoned(words: &[u32], tokens: usize, groups: usize) -> impl Iterator<Item = usize> {
    (0..tokens).filter(move |&token| is_poisoned(words, tokens, groups, token))
}

/// Whether the flag of a token is set.
pub(crate) fn is_poisoned(words: &[u32], tokens: usize, groups: usize, token: usize) -> bool {
    let tile = token - token % TILE;
    let n = TILE.min(tokens - tile);
    words.get(tile * token_words(groups) + n * groups * WORDS + token % TILE) == Some(&1)
}
