//! Who may start: the queue, the bucket and the places, as one state machine without threads or clock.

use std::time::Duration;

use super::{
    bucket::Bucket,
    queue::{Id, Limits, Priority, Queue},
};

/// See the head of this file. An item that was admitted has a place until [`leave`](Self::leave).
pub(super) struct Admission<T> {
    queue: Queue<T>,
    bucket: Bucket,
    places: usize,
    taken: usize,
    /// Time does not go back here, whatever the caller's clock does.
    now: Duration,
    next: u64,
}

impl<T> Admission<T> {
    /// `places` sequences at a time; `interval` between starts, after as many as twice the places.
    pub(super) fn new(limits: Limits, places: usize, interval: Duration) -> Self {
        let capacity = u32::try_from(places.saturating_mul(2)).unwrap_or(u32::MAX);
        Self {
            queue: Queue::new(limits),
            bucket: Bucket::new(capacity, interval),
            places,
            taken: 0,
            now: Duration::ZERO,
            next: 0,
        }
    }

    /// What time it is, if a clock says `now`.
    fn at(&mut self, now: Duration) -> Duration {
        self.now = self.now.max(now);
        self.now
    }

    /// Queues `item`; gives it back if the queue is full.
    pub(super) fn submit(&mut self, now: Duration, priority: Priority, item: T) -> Result<Id, T> {
        let (now, id) = (self.at(now), Id(self.next));
        self.queue.push(now, id, priority, item)?;
        self.next += 1;
        Ok(id)
    }

    /// Takes out one that has waited too long, and for how long.
    pub(super) fn expire(&mut self, now: Duration) -> Option<(Duration, T)> {
        let now = self.at(now);
        self.queue.expire(now)
    }

    /// Gives the next one a place, if there is one and a token, and `fits` says so of it: it waits until it does. What
    /// `fits` made of it comes along, and how long it waited.
    pub(super) fn admit<R>(&mut self, now: Duration, fits: impl FnOnce(&T) -> Option<R>) -> Option<(Duration, T, R)> {
        let now = self.at(now);
        if self.taken >= self.places || self.bucket.level(now) == 0 {
            return None;
        }
        let made = fits(self.queue.first()?)?;
        let (arrived, item) = self.queue.pop()?;
        self.bucket.take(now);
        self.taken += 1;
        Some((now.saturating_sub(arrived), item, made))
    }

    /// Frees the place of one that was admitted.
    pub(super) fn leave(&mut self) {
        self.taken = self.taken.saturating_sub(1);
    }

    /// Takes `id` out of the queue, if it is still there.
    pub(super) fn remove(&mut self, id: Id) -> Option<T> {
        self.queue.remove(id)
    }

    /// Takes all out of the queue.
    pub(super) fn drain(&mut self) -> Vec<T> {
        std::iter::from_fn(|| self.queue.pop().map(|(_, item)| item)).collect()
    }

    /// When something will change without anybody's doing.
    pub(super) fn wakes_at(&self) -> Option<Duration> {
        let expires = self.queue.expires_at()?;
        let starts = (self.taken < self.places).then(|| self.bucket.ready_at()).filter(|&at| at > self.now);
        Some(starts.map_or(expires, |starts| starts.min(expires)))
    }

    /// When the next one will have waited too long.
    pub(super) fn expires_at(&self) -> Option<Duration> {
        self.queue.expires_at()
    }

    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    /// Tokens in the bucket, and how many it holds.
    pub(super) fn bucket(&self, now: Duration) -> (u32, u32) {
        (self.bucket.level(self.now.max(now)), self.bucket.capacity())
    }
}
