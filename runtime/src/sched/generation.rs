//! What a caller holds of a request.

use std::{
    collections::VecDeque,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{
    core::Core,
    handover::Handover,
    queue::Id,
    request::{Piece, Update},
};
use crate::{CancelToken, Event, Finish, RuntimeError};

/// Most events that are kept for who does not ask for them: a request that slides makes them for ever.
const MAX_EVENTS: usize = 1024;

/// Where updates go.
pub(super) enum Outlet {
    /// To a [`Generation`].
    Handover(Arc<Handover<Update>>),
    /// To a callback; none any more after it has panicked.
    Callback(Option<Box<dyn FnMut(Update) + Send>>),
}

impl Outlet {
    /// Passes `update` on; false if nobody wants any more.
    pub(super) fn send(&mut self, update: Update) -> bool {
        match self {
            Self::Handover(handover) => handover.send(update),
            // One that panics has had its last call, and nobody else suffers.
            Self::Callback(callback) => {
                let Some(each) = callback else { return false };
                let told = catch_unwind(AssertUnwindSafe(|| each(update))).is_ok();
                if !told {
                    *callback = None;
                }
                told
            }
        }
    }

    /// Whether less than `limit` updates wait to be read; if not, the reader calls the scheduler once it reads on.
    pub(super) fn has_room(&self, limit: usize) -> bool {
        match self {
            Self::Handover(handover) => handover.has_room(limit),
            Self::Callback(_) => true,
        }
    }

    /// Passes the last one on.
    pub(super) fn done(mut self, result: Result<Finish, RuntimeError>) {
        match &mut self {
            Self::Handover(handover) => handover.send_last(Update::Done(result)),
            Self::Callback(_) => {
                self.send(Update::Done(result));
            }
        }
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        if let Self::Handover(handover) = self {
            handover.end();
        }
    }
}

/// The pieces of an answer, as they come: a blocking iterator, for any thread. Dropping it cancels the request.
///
/// Pieces and events that are not read are kept, up to twice as many as the context has tokens; then the request waits
/// until they are, and keeps its place. That can happen to one only that slides
/// ([`Overflow::Slide`](crate::Overflow::Slide)): others are over before.
///
/// An error is the last item.
pub struct Generation {
    handover: Arc<Handover<Update>>,
    handle: RequestHandle,
    events: VecDeque<Event>,
    finish: Option<Finish>,
    over: bool,
}

impl Generation {
    pub(super) fn new(handover: Arc<Handover<Update>>, handle: RequestHandle) -> Self {
        Self { handover, handle, events: VecDeque::new(), finish: None, over: false }
    }

    /// As [`RequestHandle::cancel`].
    pub fn cancel(&self) {
        self.handle.cancel();
    }

    /// With which any thread can stop it.
    #[must_use]
    pub fn handle(&self) -> RequestHandle {
        self.handle.clone()
    }

    /// Why it is over, if it has come to an end of its own.
    #[must_use]
    pub fn finish(&self) -> Option<Finish> {
        self.finish
    }

    /// What was told besides, before the last piece; each event once. Of more than 1024 that were not asked for, the
    /// oldest are forgotten.
    pub fn events(&mut self) -> impl Iterator<Item = Event> {
        self.events.drain(..)
    }

    /// Keeps an event to be asked for, in place of the oldest one if there is no room for it.
    fn hold(&mut self, event: Event) {
        if self.events.len() >= MAX_EVENTS || self.events.try_reserve(1).is_err() {
            self.events.pop_front();
        }
        if self.events.len() < self.events.capacity() {
            self.events.push_back(event);
        }
    }
}

impl Iterator for Generation {
    type Item = Result<Piece, RuntimeError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.over {
                return None;
            }
            match self.handover.next(|| self.handle.core.call()) {
                Some(Update::Piece(piece)) => return Some(Ok(piece)),
                Some(Update::Event(event)) => self.hold(event),
                Some(Update::Done(Ok(finish))) => {
                    (self.finish, self.over) = (Some(finish), true);
                }
                Some(Update::Done(Err(error))) => {
                    self.over = true;
                    return Some(Err(error));
                }
                None => {
                    self.over = true;
                    return self.handle.cancel.is_cancelled().then_some(Err(RuntimeError::Cancelled));
                }
            }
        }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if !self.over {
            self.cancel();
        }
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation").field("finish", &self.finish).field("over", &self.over).finish_non_exhaustive()
    }
}

/// Stops a request, from any thread. Dropping it does nothing.
#[derive(Clone)]
pub struct RequestHandle {
    pub(super) core: Arc<Core>,
    pub(super) id: Id,
    pub(super) cancel: CancelToken,
    /// If there is somebody who reads, to be woken.
    pub(super) reader: Option<Arc<Handover<Update>>>,
}

impl RequestHandle {
    /// Stops the request, waiting or running, with [`RuntimeError::Cancelled`], which who reads it is told at once. The
    /// pass that a running one is part of is given up as soon as threads take new chunks, if its prompt is being run or
    /// it is alone; otherwise it is a pass that decodes a token of others, and is finished without this one.
    pub fn cancel(&self) {
        self.cancel.cancel();
        if let Some(reader) = &self.reader {
            reader.leave();
        }
        self.core.cancel(self.id);
    }
}

impl fmt::Debug for RequestHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHandle").field("cancelled", &self.cancel.is_cancelled()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sched::{admission::Admission, queue::Limits};

    /// Who reads pieces only does not gather events for ever.
    #[test]
    fn events_that_nobody_asks_for_are_forgotten() {
        let limits = Limits { length: 1, timeout: Duration::ZERO, ageing: Duration::ZERO };
        let core = Core::new(Admission::new(limits, 1, Duration::ZERO), Duration::ZERO, 1);
        let handle = RequestHandle { core: Arc::new(core), id: Id(0), cancel: CancelToken::default(), reader: None };
        let handover = Arc::new(Handover::new());
        let mut generation = Generation::new(Arc::clone(&handover), handle);
        for dropped in 0..MAX_EVENTS + 10 {
            assert!(handover.send(Update::Event(Event::Slid { dropped })));
        }
        handover.send_last(Update::Done(Ok(Finish::MaxTokens)));
        assert!(generation.next().is_none());
        let kept: Vec<Event> = generation.events().collect();
        assert!(kept.into_iter().eq((10..MAX_EVENTS + 10).map(|dropped| Event::Slid { dropped })));
        assert!(generation.events().next().is_none());
    }
}
