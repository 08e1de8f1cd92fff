//! Allocations whose size a file decides: too much is an error, not the end of the process.

use crate::FormatError;

/// An empty vector with room for `len` elements; `what` they are is only for the error.
pub(super) fn with_room<T>(what: &'static str, len: usize) -> Result<Vec<T>, FormatError> {
    let mut values = Vec::new();
    let need = (len as u64).saturating_mul(size_of::<T>() as u64);
    values.try_reserve_exact(len).map_err(|_| FormatError::OutOfMemory { what, need })?;
    Ok(values)
}
