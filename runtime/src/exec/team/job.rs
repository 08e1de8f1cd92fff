//! One step: what is to be done for each of its units, and what came of it.

use std::{
    mem::forget,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use halfbyte_kernels::KernelError;

use crate::RuntimeError;

/// What a part of a step gives back.
pub(crate) type Done = Result<(), KernelError>;

/// One step, on the caller's stack while it runs.
pub(super) struct Job<'a> {
    units: usize,
    /// Fewest and most units of a chunk, as far as there are that many.
    chunk: (usize, usize),
    body: &'a (dyn Fn(Range<usize>) -> Done + Sync),
    /// Set by the first failure: what is left need not be computed, only counted.
    failed: AtomicBool,
    failure: Mutex<Option<RuntimeError>>,
}

impl<'a> Job<'a> {
    /// `body` runs once for each of `units`, in chunks of `min` to `max` of them.
    pub(super) fn new(
        units: usize,
        (min, max): (usize, usize),
        body: &'a (dyn Fn(Range<usize>) -> Done + Sync),
    ) -> Self {
        let min = min.max(1);
        Self { units, chunk: (min, max.max(min)), body, failed: false.into(), failure: None.into() }
    }

    pub(super) fn units(&self) -> usize {
        self.units
    }

    /// Fewest and most units of a chunk.
    pub(super) fn chunk(&self) -> (usize, usize) {
        self.chunk
    }

    /// Runs `units`; a failure is kept. Does not unwind.
    pub(super) fn run(&self, units: Range<usize>) {
        if self.failed.load(Ordering::Relaxed) {
            return;
        }
        let failure = match catch_unwind(AssertUnwindSafe(|| (self.body)(units))) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.into(),
            Err(payload) => {
                // Its destructor may panic in turn; nobody would catch that.
                forget(payload);
                RuntimeError::WorkerPanicked
            }
        };
        self.failed.store(true, Ordering::Relaxed);
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
    }

    /// Runs all units on this thread, in chunks as well.
    pub(super) fn run_alone(&self) {
        let max = self.chunk.1;
        (0..self.units).step_by(max).for_each(|start| self.run(start..self.units.min(start.saturating_add(max))));
    }

    /// The first failure, if there was one.
    pub(super) fn finish(self) -> Result<(), RuntimeError> {
        self.failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}
