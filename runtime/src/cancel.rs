//! Stopping a session from another thread.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// A flag shared by a session and whoever may want to stop it; asked whenever a thread takes a chunk of work, which is
/// 5 ms of it at most, or one unit of a step if that is more.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Asks the session to stop; its current call returns [`RuntimeError::Cancelled`](crate::RuntimeError::Cancelled).
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether a stop was asked for.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Makes the session usable again.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
