//! A token bucket: so many starts at once, and then one each time an interval has passed.
//!
//! All its state is one point in time, when it will be full again: taking a token moves that by an interval (the
//! generic cell rate algorithm of ATM Forum TM 4.0, annex C). Nothing is counted between calls, so a process that was
//! stopped for a minute finds a full bucket and not a minute's worth of tokens.

use std::time::Duration;

/// See the head of this file.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    capacity: u32,
    interval: Duration,
    full_at: Duration,
}

impl Bucket {
    /// A full bucket of at least one token, to which one comes back every `interval`; at once if that is zero.
    pub(super) fn new(capacity: u32, interval: Duration) -> Self {
        Self { capacity: capacity.max(1), interval, full_at: Duration::ZERO }
    }

    pub(super) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Tokens in it at `now`: whole ones.
    pub(super) fn level(&self, now: Duration) -> u32 {
        if self.interval.is_zero() {
            return self.capacity;
        }
        let missing = self.full_at.saturating_sub(now).as_nanos().div_ceil(self.interval.as_nanos());
        self.capacity.saturating_sub(u32::try_from(missing).unwrap_or(u32::MAX))
    }

    /// Takes a token at `now`, if there is one.
    pub(super) fn take(&mut self, now: Duration) -> bool {
        if self.level(now) == 0 {
            return false;
        }
        self.full_at = self.full_at.max(now).saturating_add(self.interval);
        true
    }

    /// From when on there is a token.
    pub(super) fn ready_at(&self) -> Duration {
        self.full_at.saturating_sub(self.interval.saturating_mul(self.capacity - 1))
    }
}
