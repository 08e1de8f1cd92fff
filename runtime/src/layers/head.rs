//! The residual stream to logits, for as many positions as the caller wants.

use super::{Exec, Linear, Norm};
use crate::{RuntimeError, exec::LOGIT_ROWS};

/// Positions whose logits are wanted.
pub(crate) enum Want<'a> {
    /// Only the last one; its logits stay in the first row of the buffer.
    Last,
    /// Every one: called with the index in the batch and the logits, in order. Those of the last one end up where
    /// [`Want::Last`] puts them.
    Each(&'a mut dyn FnMut(usize, &[f32])),
}

/// `x: (tokens, hidden)` → norm → logits, in groups of rows of `logits: (LOGIT_ROWS, vocab)`.
///
/// `normed: (tokens, hidden)` is scratch.
#[expect(clippy::too_many_arguments, reason = "weights, activations and scratch of one step")]
pub(crate) fn head(
    exec: Exec<'_>,
    norm: &Norm,
    output: &Linear,
    x: &[f32],
    normed: &mut [f32],
    logits: &mut [f32],
    first: usize,
    want: &mut Want<'_>,
) -> Result<(), RuntimeError> {
    let (hidden, vocab) = (norm.weight.len(), output.weight.rows());
    match want {
        Want::Last => {
            let last = x.len().saturating_sub(hidden);
            norm.forward(exec, &x[last..], &mut normed[..hidden])?;
            output.forward(exec, &normed[..hidden], &mut logits[..vocab])
        }
        Want::Each(each) => {
            norm.forward(exec, x, &mut normed[..x.len()])?;
            let rows = logits.len().checked_div(vocab).unwrap_or(1).clamp(1, LOGIT_ROWS);
            let mut last = 0;
            for (group, part) in normed[..x.len()].chunks(rows * hidden).enumerate() {
                let out = &mut logits[..part.len() / hidden * vocab];
                output.forward(exec, part, out)?;
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
