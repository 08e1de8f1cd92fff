//! The residual stream to logits, for as many positions as the caller wants.

use super::{Exec, Linear, Norm, Store};
use crate::{
    RuntimeError,
    exec::{Chunks, LOGIT_ROWS, Rows, Scratch},
    generate::{PEAK_RUN, peak},
};

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

/// `x: (tokens, hidden)` → norm → logits, in groups of rows of `scratch.logits: (LOGIT_ROWS, vocab)`, and the peaks of
/// the last ones. The first token has the index `first`; `scratch.normed` is overwritten.
pub(crate) fn head(
    exec: Exec<'_>,
    norm: &Norm,
    output: &Linear,
    scratch: &mut Scratch,
    tokens: usize,
    first: usize,
    want: &mut Want<'_>,
) -> Result<(), RuntimeError> {
    let (hidden, vocab) = (norm.weight.len(), output.weight.rows());
    let Scratch { x, normed, logits, peaks, .. } = scratch;
    let x = &x[..tokens * hidden];
    match want {
        Want::Stream => Ok(()),
        Want::Last => {
            let last = x.len().saturating_sub(hidden);
            norm.forward(exec, &x[last..], normed, output.wants_q8())?;
            let split = (Rows::new(&mut logits[..vocab], vocab, PEAK_RUN), Chunks::new(peaks, 1));
            let x = normed.of(1);
            let units = vocab.div_ceil(PEAK_RUN);
            exec.team.run(units, output.grain(PEAK_RUN, 1), split, |units, (mut logits, peaks)| {
                let rows = units.start * PEAK_RUN..vocab.min(units.end * PEAK_RUN);
                output.rows(exec, rows, x, Store::Set, &mut logits)?;
                fill_peaks(logits.row_mut(0), peaks);
                Ok(())
            })
        }
        Want::Each(each) => {
            let rows = logits.len().checked_div(vocab).unwrap_or(1).clamp(1, LOGIT_ROWS);
            let mut last = 0;
            for (group, x) in x.chunks(rows * hidden).enumerate() {
                let tokens = x.len() / hidden;
                norm.forward(exec, x, normed, output.wants_q8())?;
                let out = &mut logits[..tokens * vocab];
                output.forward(exec, normed.of(tokens), Store::Set, out)?;
                for (row, logits) in out.chunks_exact(vocab).enumerate() {
                    each(first + group * rows + row, logits);
                }
                last = out.len() - vocab;
            }
            logits.copy_within(last..last + vocab, 0);
            fill_peaks(&logits[..vocab], peaks);
            Ok(())
        }
    }
}

/// The largest of each run of `logits`.
pub(crate) fn fill_peaks(logits: &[f32], peaks: &mut [f32]) {
    for (peak_of_run, run) in peaks.iter_mut().zip(logits.chunks(PEAK_RUN)) {
        *peak_of_run = peak(run);
    }
}
