//! What [`super::board`] takes from the standard library; its model test puts loom's in their place.

pub(super) use std::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, fence},
};
use std::{
    hint::spin_loop,
    sync::PoisonError,
    thread::yield_now,
    time::{Duration, Instant},
};

/// A number that orders nothing and may be out of date where it is read: what is done with it is then slower, not
/// wrong.
pub(super) type Hint = AtomicUsize;

/// Looks at `ready` between two looks at the clock: a look costs a few cycles, the clock 20 to 50 ns.
const LOOKS: u32 = 32;
/// How often a thread that has spun in vain offers its core before it sleeps.
const YIELDS: u32 = 8;

/// Spins until `ready`, at most for about `limit`. Whether it came to be.
pub(super) fn spin_until(limit: Duration, mut ready: impl FnMut() -> bool) -> bool {
    let mut start = None;
    loop {
        for _ in 0..LOOKS {
            if ready() {
                return true;
            }
            spin_loop();
        }
        if start.get_or_insert_with(Instant::now).elapsed() >= limit {
            return ready();
        }
    }
}

/// Lets other threads have this core a few times, until `ready`. Whether it came to be.
pub(super) fn yield_until(mut ready: impl FnMut() -> bool) -> bool {
    (0..YIELDS).any(|_| {
        yield_now();
        ready()
    })
}

/// When something began.
pub(super) struct Start(Instant);

impl Start {
    pub(super) fn now() -> Self {
        Self(Instant::now())
    }

    /// Whether that is at most so long ago.
    pub(super) fn is_within(&self, limit: Duration) -> bool {
        self.0.elapsed() <= limit
    }
}

/// How long a thread runs before it offers its core: less than any scheduler's time slice.
const STINT: Duration = Duration::from_micros(1500);

/// The time that a thread has had a core, as far as it knows.
pub(super) struct Stint(Instant);

impl Stint {
    /// Begins now.
    pub(super) fn new() -> Self {
        Self(Instant::now())
    }

    /// Offers the core to others if it is time to. To be called where that does not make anybody wait.
    pub(super) fn offer(&mut self) {
        if self.0.elapsed() >= STINT {
            yield_now();
            *self = Self::new();
        }
    }
}

/// Sleeps until `bell` rings, at most for `limit`. Whether it was the time that ended it; it may wake for no reason.
pub(super) fn sleep<'a, T>(bell: &Condvar, guard: MutexGuard<'a, T>, limit: Duration) -> (MutexGuard<'a, T>, bool) {
    let (guard, ended) = bell.wait_timeout(guard, limit).unwrap_or_else(PoisonError::into_inner);
    (guard, ended.timed_out())
}
