//! Allocations whose size a file or an option decides: too much is an error, not the end of the process.

use std::{
    fmt,
    marker::PhantomData,
    ops::{Deref, DerefMut},
};

use bytemuck::Pod;
use memmap2::MmapMut;

use crate::{RuntimeError, budget::Lease};

/// Buffers from this size on ask for pages of 2 MiB.
#[cfg(target_os = "linux")]
const HUGE: usize = 4 << 20;

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

/// Appends `value`, where how many there will be is not known before.
///
/// # Errors
/// [`RuntimeError::OutOfMemory`].
pub(crate) fn push<T>(what: &'static str, list: &mut Vec<T>, value: T) -> Result<(), RuntimeError> {
    let bytes = size_of::<T>().saturating_mul(list.len() + 1);
    list.try_reserve(1).map_err(|_| RuntimeError::OutOfMemory { what, bytes })?;
    list.push(value);
    Ok(())
}

/// A slice of numbers in memory of its own, zero at first. Pages that nothing was written to cost address space only.
pub(crate) struct Buffer<T> {
    /// Nothing for a length of zero.
    memory: Option<MmapMut>,
    /// What it takes of a budget.
    lease: Lease,
    elements: PhantomData<T>,
}

impl<T: Pod> Buffer<T> {
    /// `shape[0] · shape[1]` zeros, for which memory was set aside in `from` or is asked for; `what` they are is only
    /// for the error.
    ///
    /// # Errors
    /// [`RuntimeError::BudgetExceeded`], [`RuntimeError::OutOfMemory`].
    pub(crate) fn zeros(from: &mut Lease, what: &'static str, shape: [usize; 2]) -> Result<Self, RuntimeError> {
        let bytes = shape[0].saturating_mul(shape[1]).saturating_mul(size_of::<T>());
        let lease = from.take(bytes)?;
        let map = || -> Result<MmapMut, RuntimeError> {
            let memory = MmapMut::map_anon(bytes).map_err(|_| RuntimeError::OutOfMemory { what, bytes })?;
            #[cfg(target_os = "linux")]
            if bytes >= HUGE {
                // Small pages will do where there are no large ones.
                let _ = memory.advise(memmap2::Advice::HugePage);
            }
            Ok(memory)
        };
        Ok(Self { memory: (bytes > 0).then(map).transpose()?, lease, elements: PhantomData })
    }

    /// Gives the memory back; what is left is that it was set aside.
    pub(crate) fn into_lease(self) -> Lease {
        self.lease
    }
}

impl<T: Pod> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.memory.as_deref().map_or(&[], bytemuck::cast_slice)
    }
}

impl<T: Pod> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.memory.as_deref_mut().map_or(&mut [], bytemuck::cast_slice_mut)
    }
}

impl<T: Pod> fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("len", &self.len()).finish()
    }
}
