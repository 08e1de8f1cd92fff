//! Token ids to rows of the embedding.

use halfbyte_kernels::{PackedMatrix, ops};

use crate::RuntimeError;

/// `table: (vocab, hidden)`, `tokens` → `out: (tokens, hidden)`.
pub(crate) fn embed(table: &PackedMatrix, tokens: &[u32], out: &mut [f32]) -> Result<(), RuntimeError> {
    for (&id, row) in tokens.iter().zip(out.chunks_exact_mut(table.depth())) {
        let index = usize::try_from(id).unwrap_or(usize::MAX);
        if index >= table.rows() {
            return Err(RuntimeError::TokenOutOfRange { id, vocab: table.rows() });
        }
        ops::decode_row(table, index, row)?;
    }
    Ok(())
}
