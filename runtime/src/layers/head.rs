//! The residual stream to logits, for as many positions as the caller wants.

use super::{Exec, Inputs, Linear, Norm, linear::Store};
use crate::{RuntimeError, exec::LOGIT_ROWS};

/// What is wanted of a pass.
pub(crate) enum Want<'a> {
    /// The logits of the last token, in the first row of the buffer.
    Last,
    /// Those of every token: called with the index in the batch and the logits, in order. Those of the last one end up
    /// where [`Want::Last`] puts them.
    Each(&'a mut dyn FnMut(usize, &[f32])),
    /// The residual stream of every token before the last norm, in `scratch.x`; no logits.
    Stream,
}

impl Want<'_> {
    /// Whether the stream of all tokens but the last is of no use after the last layer.
    pub(crate) fn only_last(&self) -> bool {
        matches!(self, Self::Last)
    }
}

/// `x: (tokens, hidden)` → norm → logits, in groups of rows of `logits: (LOGIT_ROWS, vocab)`; the first token has the index
/// `first`.
#[expect(clippy::too_many_arguments, reason = "weights, activations and scratch of one step")]
pub(crate) fn head(
    exec: Exec<'_>,
    norm: &Norm,
    output: &Linear,
    x: &[f32],
    normed: &mut Inputs,
    logits: &mut [f32],
    first: usize,
    want: &mut Want<'_>,
) -> Result<(), RuntimeError> {
    let (hidden, vocab) = (norm.weight.len(), output.weight.rows());
    match want {
        Want::Stream => Ok(()),
        Want::Last => {
            let last = x.len().saturating_sub(hidden);
            norm.forward(exec, &x[last..], normed, &[output])?;
            output.forward(exec, normed.of(1), Store::Set, &mut logits[..vocab])
        }
        Want::Each(each) => {
            let rows = logits.len().checked_div(vocab).unwrap_or(1).clamp(1, LOGIT_ROWS);
            let mut last = 0;
            for (group, x) in x.chunks(rows * hidden).enumerate() {
                let tokens = x.len() / hidden;
                norm.forward(exec, x, normed, &[output])?;
                let out = &mut logits[..tokens * vocab];
                output.forward(exec, normed.of(tokens), Store::Set, out)?;
                for (row, logits) in out.chunks_exact(vocab).enumerate() {
                    each(first + group * rows + row, logits);
                }
                last = out.len() - vocab;
            }
            logits.copy_within(last..last + vocab, 0);
            Ok(())
        }
    }
}
