//! What the scheduler's threads and its callers share: the door, behind one lock, and the clock.
//!
//! The thread that runs the model looks in between two passes; a second thread does nothing but send away who has
//! waited too long, because a pass can take longer than that is to be late.

use std::{
    cell::Cell,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    admission::Admission,
    generation::Outlet,
    queue::{Id, Priority},
    request::Request,
    stats::Counters,
};
use crate::{CancelToken, RuntimeError};

/// A request in the queue.
pub(super) struct Waiting {
    pub(super) request: Request,
    pub(super) outlet: Outlet,
    pub(super) cancel: CancelToken,
    pub(super) submitted: Instant,
    /// The budget's [`returns`](crate::Budget::returns) when there was too little memory for it.
    pub(super) short_at: Cell<Option<usize>>,
}

/// What is behind the lock.
pub(super) struct Door {
    pub(super) admission: Admission<Waiting>,
    pub(super) closed: bool,
    /// With which those that run are stopped.
    pub(super) active: Vec<CancelToken>,
    pub(super) counters: Counters,
}

/// See the head of this file.
pub(super) struct Core {
    door: Mutex<Door>,
    /// Wakes the thread that runs the model.
    work: Condvar,
    /// Wakes the one that watches the queue.
    watch: Condvar,
    start: Instant,
    timeout: Duration,
    queue: usize,
}

impl Core {
    pub(super) fn new(admission: Admission<Waiting>, timeout: Duration, queue: usize) -> Self {
        let door = Mutex::new(Door { admission, closed: false, active: Vec::new(), counters: Counters::new() });
        Self { door, work: Condvar::new(), watch: Condvar::new(), start: Instant::now(), timeout, queue }
    }

    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Callbacks are never called under this lock, and what is done under it does not panic half-way.
    pub(super) fn lock(&self) -> MutexGuard<'_, Door> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a request.
    pub(super) fn submit(&self, priority: Priority, waiting: Waiting) -> Result<Id, RuntimeError> {
        let mut door = self.lock();
        if door.closed {
            return Err(RuntimeError::SchedulerClosed);
        }
        let id = door.admission.submit(self.now(), priority, waiting);
        if id.is_err() {
            door.counters.refused_queue += 1;
        }
        drop(door);
        // What is given back is dropped here, outside the lock.
        let id = id.map_err(|_| RuntimeError::QueueFull { limit: self.queue })?;
        self.work.notify_one();
        self.watch.notify_one();
        Ok(id)
    }

    /// Has the thread that runs the model look again: who looked before this sleeps by now, or will see.
    pub(super) fn call(&self) {
        drop(self.lock());
        self.work.notify_one();
    }

    /// Sends `id` away if it waits; if it runs, its own token tells.
    pub(super) fn cancel(&self, id: Id) {
        let mut door = self.lock();
        let removed = door.admission.remove(id);
        door.counters.cancelled += u64::from(removed.is_some());
        drop(door);
        if let Some(waiting) = removed {
            waiting.outlet.done(Err(RuntimeError::Cancelled));
        }
        self.work.notify_one();
    }

    /// Sends all away, and nobody comes any more.
    pub(super) fn close(&self) {
        let mut door = self.lock();
        door.closed = true;
        door.active.iter().for_each(CancelToken::cancel);
        let waiting = door.admission.drain();
        drop(door);
        self.work.notify_all();
        self.watch.notify_all();
        for waiting in waiting {
            waiting.outlet.done(Err(RuntimeError::SchedulerClosed));
        }
    }

    /// Sleeps until there may be something to do; if somebody waits, at most for `longest`.
    pub(super) fn sleep<'a>(&self, door: MutexGuard<'a, Door>, longest: Option<Duration>) -> MutexGuard<'a, Door> {
        let until = door.admission.wakes_at().map(|at| at.saturating_sub(self.now()));
        let limit = until.map(|until| longest.map_or(until, |longest| until.min(longest)));
        wait(&self.work, door, limit)
    }

    /// Sends away who has waited too long, until the scheduler is closed: what the second thread does.
    pub(super) fn watch(&self) {
        let mut door = self.lock();
        while !door.closed {
            if let Some((waited, waiting)) = door.admission.expire(self.now()) {
                door.counters.timed_out += 1;
                drop(door);
                waiting.outlet.done(Err(RuntimeError::QueueTimeout { waited, limit: self.timeout }));
                door = self.lock();
                continue;
            }
            let limit = door.admission.expires_at().map(|at| at.saturating_sub(self.now()));
            door = wait(&self.watch, door, limit);
        }
    }
}

/// Sleeps until `bell` rings, at most for `limit`.
fn wait<'a>(bell: &Condvar, door: MutexGuard<'a, Door>, limit: Option<Duration>) -> MutexGuard<'a, Door> {
    match limit {
        Some(limit) => bell.wait_timeout(door, limit).map_or_else(|error| error.into_inner().0, |(door, _)| door),
        None => bell.wait(door).unwrap_or_else(PoisonError::into_inner),
    }
}
