//! Tokens of a batch of 8-bit activations, copied into another one.

use crate::QuantTile;
use crate::error::{KernelError, same_len};
use crate::quantized::{GROUP, TILE, WORDS, is_poisoned, quantized_words, token_words};

/// `out[i] = x[from[i]]`, as an expert takes the tokens it was given, without rounding them again. A token may be taken
/// any number of times; one of no use stays so.
///
/// Shapes: `x: quantized_words(tokens, depth)`; `out` is a window of a batch of `from.len()` tokens of the same depth.
///
/// # Errors
/// [`KernelError::NotMultiple`] if `depth` is not a multiple of 32, [`KernelError::ShapeMismatch`] for `x` or `out`,
/// [`KernelError::OutOfRange`] for a token that `x` does not have.
pub fn gather(
    x: &[u32],
    tokens: usize,
    depth: usize,
    from: impl ExactSizeIterator<Item = usize> + Clone,
    out: &mut QuantTile<'_>,
) -> Result<(), KernelError> {
    same_len("gather input", quantized_words(tokens, depth)?, x.len())?;
    same_len("gather depth", depth, out.depth())?;
    same_len("gather output", from.len(), out.tokens())?;
    let inside = |token| {
        if token < tokens {
            Ok(token)
        } else {
            Err(KernelError::OutOfRange { what: "token", limit: tokens, found: token })
        }
    };
    from.clone().try_for_each(|token| inside(token).map(drop))?;
    let (all, window) = (depth / GROUP, out.window());
    // An iterator need not keep what it promises: it may give more tokens than it said, or others than its clone did.
    for (to, token) in from.take(out.tokens()).enumerate() {
        let token = inside(token)?;
        let (tile, to_tile) = (token - token % TILE, to - to % TILE);
        let (n, to_n) = (TILE.min(tokens - tile), TILE.min(out.tokens() - to_tile));
        // Rows of a word of each token of a tile.
        let start = tile * token_words(all) + window.start * WORDS * n;
        let words = x.get(start..).unwrap_or_default().chunks_exact(n);
        let to_words = out.words_mut(to_tile, 0..window.len()).chunks_exact_mut(to_n);
        to_words.zip(words).for_each(|(to_words, words)| to_words[to % TILE] = words[token % TILE]);
        if is_poisoned(x, tokens, all, token) {
            out.poison(to);
        }
    }
    Ok(())
}
