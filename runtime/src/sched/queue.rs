//! Requests that wait: by priority, but none for ever.
//!
//! A request's place is decided when it comes: the time of its arrival, and later by [`ageing`](Limits::ageing) for
//! each class below realtime. The earliest place is served first. That is the same as a rank that improves while one
//! waits, without ever sorting again: a request of the lowest class is overtaken by those only that come within two
//! ageing times after it.
//!
//! Time is a [`Duration`] since some start; who calls says what time it is.

use std::{collections::BTreeMap, time::Duration};

/// How urgent a request is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Priority {
    /// Somebody listens to every token: the time between its tokens is kept short.
    Realtime,
    /// Somebody waits for the answer.
    #[default]
    Normal,
    /// Nobody waits.
    Batch,
}

impl Priority {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 3] = [Self::Realtime, Self::Normal, Self::Batch];

    /// `realtime`, `normal` or `batch`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Realtime => "realtime",
            Self::Normal => "normal",
            Self::Batch => "batch",
        }
    }
}

/// What a queue keeps to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Most requests that wait.
    pub(super) length: usize,
    /// How long one waits at most.
    pub(super) timeout: Duration,
    /// How much later the place of each class is than that of the class above.
    pub(super) ageing: Duration,
}

/// The place of a request that came at `arrived`.
pub(super) fn place(arrived: Duration, priority: Priority, ageing: Duration) -> Duration {
    arrived.saturating_add(ageing.saturating_mul(priority as u32))
}

/// A request's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id(pub(super) u64);

/// See the head of this file.
pub(super) struct Queue<T> {
    limits: Limits,
    /// By place; of equal ones by arrival.
    waiting: BTreeMap<(Duration, Id), T>,
    /// When each came and its place. As all may wait as long, the first one here is the first to have waited too long.
    arrivals: BTreeMap<Id, (Duration, Duration)>,
}

impl<T> Queue<T> {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, waiting: BTreeMap::new(), arrivals: BTreeMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Takes `item` in at the time `now`, not earlier than that of any other, under an `id` higher than any other;
    /// gives it back if the queue is full.
    pub(super) fn push(&mut self, now: Duration, id: Id, priority: Priority, item: T) -> Result<(), T> {
        if self.waiting.len() >= self.limits.length {
            return Err(item);
        }
        let place = place(now, priority, self.limits.ageing);
        self.arrivals.insert(id, (now, place));
        self.waiting.insert((place, id), item);
        Ok(())
    }

    /// The one whose turn it is, without taking it.
    pub(super) fn first(&self) -> Option<&T> {
        self.waiting.first_key_value().map(|(_, item)| item)
    }

    /// Takes out the one whose turn it is, and when it came.
    pub(super) fn pop(&mut self) -> Option<(Duration, T)> {
        let ((_, id), item) = self.waiting.pop_first()?;
        Some((self.arrivals.remove(&id).map_or(Duration::ZERO, |(arrived, _)| arrived), item))
    }

    /// Takes out the one called `id`, if it still waits.
    pub(super) fn remove(&mut self, id: Id) -> Option<T> {
        let (_, place) = self.arrivals.remove(&id)?;
        self.waiting.remove(&(place, id))
    }

    /// Takes out one that has waited too long by `now`, and for how long.
    pub(super) fn expire(&mut self, now: Duration) -> Option<(Duration, T)> {
        let (&id, &(arrived, _)) = self.arrivals.first_key_value()?;
        let waited = now.saturating_sub(arrived);
        if waited < self.limits.timeout {
            return None;
        }
        Some((waited, self.remove(id)?))
    }

    /// When the next one will have waited too long.
    pub(super) fn expires_at(&self) -> Option<Duration> {
        let (_, (arrived, _)) = self.arrivals.first_key_value()?;
        Some(arrived.saturating_add(self.limits.timeout))
    }
}
