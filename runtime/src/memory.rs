//! Allocations whose size a file or an option decides: too much is an error, not the end of the process.

use crate::RuntimeError;

/// An empty vector with room for `len` elements; `what` they are is only for the error.
///
/// # Errors
/// [`RuntimeError::OutOfMemory`].
pub(crate) fn with_room<T>(what: &'static str, len: usize) -> Result<Vec<T>, RuntimeError> {
    let mut out = Vec::new();
    let bytes = len.saturating_mul(size_of::<T>());
    out.try_reserve_exact(len).map_err(|_| RuntimeError::OutOfMemory { what, bytes })?;
    Ok(out)
}
