//! What a scheduler has done: counts, and how long things took.
//!
//! Times are counted in a fixed table of logarithmic classes, 32 to each doubling, so that a percentile is at most 3 %
//! too high, and no amount of requests takes more memory.

use std::time::Duration;

use super::queue::Priority;

/// Classes of a doubling.
const PARTS: u32 = 32;
/// Doublings, from a microsecond on: more than an hour.
const DOUBLINGS: u32 = 32;

/// Times by class.
#[derive(Clone)]
pub(super) struct Histogram {
    counts: Box<[u64]>,
    total: u64,
}

impl Histogram {
    pub(super) fn new() -> Self {
        Self { counts: vec![0; (PARTS * DOUBLINGS) as usize].into_boxed_slice(), total: 0 }
    }

    pub(super) fn add(&mut self, time: Duration) {
        // Class 0 is everything up to PARTS microseconds' first part: below that nothing here is worth telling apart.
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        let doubling = micros.ilog2();
        let part = ((u128::from(micros) * u128::from(PARTS)) >> doubling) as u32 - PARTS;
        let class = (doubling * PARTS + part).min(PARTS * DOUBLINGS - 1);
        if let Some(count) = self.counts.get_mut(class as usize) {
            *count += 1;
            self.total += 1;
        }
    }

    /// The end of the class in which the time lies that a share of all are not above, in seconds; 0 of none.
    fn quantile(&self, share: f64) -> f64 {
        let rank = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (class, count) in (0..).zip(&self.counts) {
            seen += count;
            if seen >= rank.max(1) && *count > 0 {
                let (doubling, part) = (class / PARTS, class % PARTS);
                return f64::from(PARTS + part + 1) / f64::from(PARTS) * 2f64.powf(f64::from(doubling)) * 1e-6;
            }
        }
        0.0
    }

    pub(super) fn percentiles(&self) -> Percentiles {
        let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|share| self.quantile(share));
        Percentiles { count: self.total, p50, p95, p99 }
    }
}

/// How long something took, in seconds: at most 3 % more than half, 95 % and 99 % of all times were.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Percentiles {
    /// Times counted.
    pub count: u64,
    /// Half of them are at most this.
    pub p50: f64,
    /// 95 % of them are at most this.
    pub p95: f64,
    /// 99 % of them are at most this.
    pub p99: f64,
}

/// Times of the requests of one class.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ClassStats {
    /// The class.
    pub priority: Priority,
    /// From being submitted to a place.
    pub queue: Percentiles,
    /// From being submitted to the first token.
    pub first_token: Percentiles,
    /// From one token to the next.
    pub per_token: Percentiles,
}

/// What a [`Scheduler`](crate::Scheduler) has done since it was made, and what it is doing.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SchedulerStats {
    /// Requests that have a place.
    pub active: usize,
    /// Requests that wait for one.
    pub queued: usize,
    /// Requests that came to an end of their own.
    pub finished: u64,
    /// Requests that were cancelled or dropped.
    pub cancelled: u64,
    /// Requests that failed once they had a turn: while they ran, or before, for any other reason than the budget.
    pub failed: u64,
    /// Requests that found the queue full.
    pub refused_queue: u64,
    /// Requests that waited too long.
    pub timed_out: u64,
    /// Requests for which there was not enough memory.
    pub refused_budget: u64,
    /// Requests that were given a shorter context than they asked for.
    pub shortened: u64,
    /// Generations in which a loop was noticed.
    pub loops: u64,
    /// Pages of prefixes that had to go.
    pub evicted: u64,
    /// Bytes of the budget in use.
    pub memory_used: usize,
    /// The most that was in use.
    pub memory_peak: usize,
    /// The budget; `None` if there is none.
    pub memory_limit: Option<usize>,
    /// Bytes of prefixes kept.
    pub prefix_bytes: usize,
    /// Starts that are possible at once.
    pub bucket_level: u32,
    /// The most of those.
    pub bucket_capacity: u32,
    /// Prompt tokens run.
    pub prompt_tokens: u64,
    /// Prompt tokens that did not have to be run.
    pub cached_tokens: u64,
    /// Tokens generated.
    pub tokens: u64,
    /// Tokens generated in a second in which anybody had a place.
    pub tokens_per_second: f64,
    /// By class, the most urgent first.
    pub classes: [ClassStats; 3],
}

/// What is counted as it happens.
pub(super) struct Counters {
    pub(super) finished: u64,
    pub(super) cancelled: u64,
    pub(super) failed: u64,
    pub(super) refused_queue: u64,
    pub(super) timed_out: u64,
    pub(super) refused_budget: u64,
    pub(super) shortened: u64,
    pub(super) loops: u64,
    pub(super) prompt_tokens: u64,
    pub(super) cached_tokens: u64,
    pub(super) tokens: u64,
    /// Time in which anybody had a place.
    pub(super) busy: Duration,
    pub(super) classes: [ClassTimes; 3],
}

/// Times of one class: queue, first token, per token.
pub(super) struct ClassTimes {
    pub(super) queue: Histogram,
    pub(super) first_token: Histogram,
    pub(super) per_token: Histogram,
}

impl Counters {
    pub(super) fn new() -> Self {
        let times =
            || ClassTimes { queue: Histogram::new(), first_token: Histogram::new(), per_token: Histogram::new() };
        Self {
            finished: 0,
            cancelled: 0,
            failed: 0,
            refused_queue: 0,
            timed_out: 0,
            refused_budget: 0,
            shortened: 0,
            loops: 0,
            prompt_tokens: 0,
            cached_tokens: 0,
            tokens: 0,
            busy: Duration::ZERO,
            classes: [times(), times(), times()],
        }
    }

    pub(super) fn class(&mut self, priority: Priority) -> &mut ClassTimes {
        let [realtime, normal, batch] = &mut self.classes;
        match priority {
            Priority::Realtime => realtime,
            Priority::Normal => normal,
            Priority::Batch => batch,
        }
    }

    pub(super) fn class_stats(&self) -> [ClassStats; 3] {
        let [realtime, normal, batch] = &self.classes;
        [(Priority::Realtime, realtime), (Priority::Normal, normal), (Priority::Batch, batch)].map(
            |(priority, times)| ClassStats {
                priority,
                queue: times.queue.percentiles(),
                first_token: times.first_token.percentiles(),
                per_token: times.per_token.percentiles(),
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn percentiles_are_those_of_the_sorted_list(times in prop::collection::vec(1..10_000_000_u64, 1..300)) {
            let mut histogram = Histogram::new();
            let mut sorted = times;
            sorted.iter().for_each(|&micros| histogram.add(Duration::from_micros(micros)));
            sorted.sort_unstable();
            let found = histogram.percentiles();
            prop_assert_eq!(found.count, sorted.len() as u64);
            for (share, found) in [(0.5, found.p50), (0.95, found.p95), (0.99, found.p99)] {
                let rank = (sorted.len() as f64 * share).ceil() as usize;
                let exact = sorted[rank - 1] as f64 * 1e-6;
                prop_assert!(found >= exact && found <= exact * (1.0 + 1.0 / 32.0) + 1e-12, "{} for {}", found, exact);
            }
        }
    }

    #[test]
    fn extremes() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.percentiles(), Percentiles::default());
        histogram.add(Duration::ZERO);
        histogram.add(Duration::MAX);
        assert_eq!(histogram.percentiles().count, 2);
        assert!(histogram.percentiles().p99 > 3600.0);
    }
}
