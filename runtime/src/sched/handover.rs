//! From the thread that runs the model to the thread that reads: a queue of two ends.
//!
//! The sender never waits. A sequence ends some time, so what lies here is bounded by its context. The reader sleeps
//! until there is something, and may go at any moment: the sender is told with its next item. `tests/model.rs` has loom
//! try the orders of events.

use std::{collections::VecDeque, sync::PoisonError};

use super::sync::{Condvar, Mutex, MutexGuard};

/// See the head of this file.
pub(super) struct Handover<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
}

struct State<T> {
    items: VecDeque<T>,
    /// Nothing will come any more.
    ended: bool,
    /// Nobody will read any more.
    left: bool,
}

impl<T> Handover<T> {
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(State { items: VecDeque::new(), ended: false, left: false }), ready: Condvar::new() }
    }

    /// Passes `item` on; false if nobody will read it, or there is no memory for it and a last one.
    pub(super) fn send(&self, item: T) -> bool {
        self.push(item, 2)
    }

    /// Passes the last item on.
    pub(super) fn send_last(&self, item: T) {
        self.push(item, 1);
        self.end();
    }

    fn push(&self, item: T, room: usize) -> bool {
        let mut state = self.lock();
        if state.left || state.ended || state.items.try_reserve(room).is_err() {
            return false;
        }
        state.items.push_back(item);
        self.ready.notify_one();
        true
    }

    /// Says that nothing will come any more.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.ready.notify_one();
    }

    /// Waits for the next item; `None` after the last one.
    pub(super) fn next(&self) -> Option<T> {
        let mut state = self.lock();
        loop {
            match state.items.pop_front() {
                Some(item) => return Some(item),
                None if state.ended || state.left => return None,
                None => state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Says that nobody will read any more; whoever waits for an item gets none.
    pub(super) fn leave(&self) {
        let mut state = self.lock();
        state.left = true;
        state.items.clear();
        self.ready.notify_one();
    }

    /// Nothing here can panic under the lock, but for the allocator.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
