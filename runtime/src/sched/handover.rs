//! From the thread that runs the model to the thread that reads: a queue of two ends.
//!
//! The sender never waits here: it asks whether there is [room](Handover::has_room) before it makes more, and the
//! reader calls it back once there is again. The reader sleeps until there is something, and may go at any moment: the
//! sender is told with its next item. `tests/model.rs` has loom try the orders of events.

use std::{collections::VecDeque, sync::PoisonError};

use super::sync::{Condvar, Mutex, MutexGuard};

/// See the head of this file.
pub(super) struct Handover<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
}

struct State<T> {
    items: VecDeque<T>,
    /// The sender found no room.
    full: bool,
    /// Nothing will come any more.
    ended: bool,
    /// Nobody will read any more.
    left: bool,
}

impl<T> Handover<T> {
    pub(super) fn new() -> Self {
        let state = State { items: VecDeque::new(), full: false, ended: false, left: false };
        Self { state: Mutex::new(state), ready: Condvar::new() }
    }

    /// Passes `item` on; false if nobody will read it, or there is no memory for it and a last one.
    pub(super) fn send(&self, item: T) -> bool {
        self.push(item, 2)
    }

    /// Whether less than `limit` items lie here. If not, the reader will call the sender back, unless it leaves.
    pub(super) fn has_room(&self, limit: usize) -> bool {
        let mut state = self.lock();
        state.full = state.items.len() >= limit;
        !state.full
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

    /// Waits for the next item; `None` after the last one. Calls the sender back by `call` if it had found no room.
    pub(super) fn next(&self, call: impl FnOnce()) -> Option<T> {
        let mut state = self.lock();
        loop {
            match state.items.pop_front() {
                Some(item) => {
                    let is_awaited = std::mem::take(&mut state.full);
                    drop(state);
                    if is_awaited {
                        call();
                    }
                    return Some(item);
                }
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
