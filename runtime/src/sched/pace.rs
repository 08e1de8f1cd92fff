//! How long the chunk of a prompt may be that shares a pass with sequences that decode.
//!
//! While a realtime sequence decodes, a pass with a chunk is to take at most [`SLOWDOWN`] times as long as one without:
//! that bounds the time between its tokens. What a row of a chunk costs more is measured, pass by pass, and now and
//! then one is run without a chunk to compare with: they take longer as contexts grow. Without a realtime sequence the
//! chunk is as long as the options allow.
//!
//! Without batching a chunk has passes of its own: one is compared with the pass of a token.

/// How much longer a pass with a chunk may take than one without. Twice is the promise; the rest is for what varies.
const SLOWDOWN: f64 = 1.5;
/// Weight of the newest measurement in the mean.
const NEWEST: f64 = 0.25;
/// Rows of the first chunk, when nothing was measured yet, and the least that a chunk grows by.
const FIRST: usize = 8;
/// Passes with a chunk after which one without is measured again. If it were not, all that passes come to take longer
/// would be put down to the chunks, until those have one row.
const STALE: usize = 32;

/// Means of what was measured, in seconds.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    /// Whether sequences share passes.
    batching: bool,
    /// A pass in which all sequences decode.
    step: Option<f64>,
    /// Passes since that was measured.
    since: usize,
    /// What a row of a chunk adds to it.
    row: Option<f64>,
}

impl Pace {
    pub(super) fn new(batching: bool) -> Self {
        Self { batching, step: None, since: 0, row: None }
    }

    /// A pass with `decoding` sequences and a chunk of `rows` took `seconds`.
    pub(super) fn observe(&mut self, decoding: usize, rows: usize, seconds: f64) {
        let mean = |old: Option<f64>, new: f64| old.map_or(new, |old| old + NEWEST * (new - old));
        match (decoding, rows, self.step) {
            (0, ..) if self.batching => {}
            (_, 0, step) => (self.step, self.since) = (Some(mean(step, seconds)), 0),
            (_, rows, Some(step)) => {
                self.row = Some(mean(self.row, (seconds - step).max(0.0) / rows as f64));
                self.since += 1;
            }
            (_, _, None) => {}
        }
    }

    /// Rows of the next chunk, at most `most`; `realtime` says whether a realtime sequence decodes. None, if a pass
    /// without a chunk is wanted first.
    pub(super) fn chunk(&self, realtime: bool, most: usize) -> usize {
        if !realtime {
            return most;
        }
        if self.batching && self.since >= STALE {
            return 0;
        }
        let rows = match (self.step, self.row) {
            (Some(step), Some(row)) if row > 0.0 => ((SLOWDOWN - 1.0) * step / row) as usize,
            (Some(_), Some(_)) => most,
            (None, _) if self.batching => return 0,
            _ => FIRST,
        };
        rows.clamp(1, most.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine on which a pass takes a second, and a row of a chunk 10 ms.
    #[test]
    fn chunks_keep_passes_short_for_a_listener() {
        let mut pace = Pace::new(true);
        assert_eq!((pace.chunk(true, 128), pace.chunk(false, 128)), (0, 128));
        // Nothing can be said of a chunk before there was a pass without, however many there are with one.
        pace.observe(1, 100, 9.0);
        assert_eq!(pace.chunk(true, 128), 0);
        pace.observe(1, 0, 1.0);
        assert_eq!((pace.chunk(true, 128), pace.chunk(true, 4), pace.chunk(false, 128)), (FIRST, 4, 128));
        for _ in 0..50 {
            pace.observe(1, 0, 1.0);
            let rows = pace.chunk(true, 128);
            pace.observe(1, rows, 1.0 + 0.01 * rows as f64);
        }
        assert!((49..=50).contains(&pace.chunk(true, 128)), "{pace:?}");
        // A prompt alone tells nothing about those who decode.
        pace.observe(0, 100, 1e9);
        assert!((49..=50).contains(&pace.chunk(true, 128)));
        // A machine that became slow.
        for _ in 0..50 {
            pace.observe(1, 1, 100.0);
        }
        // That was not to be told from longer steps, so one is wanted to compare with.
        assert_eq!((pace.chunk(true, 128), pace.chunk(false, 128)), (0, 128));
        pace.observe(1, 0, 1.0);
        assert_eq!(pace.chunk(true, 128), 1);
    }

    /// The same machine, whose passes come to take twice as long while there is always a prompt.
    #[test]
    fn who_gets_slower_is_measured_again() {
        let mut pace = Pace::new(true);
        let mut pass = |step: f64| {
            let rows = pace.chunk(true, 1000);
            pace.observe(1, rows, step + 0.01 * rows as f64);
            rows
        };
        assert_eq!((pass(1.0), pass(1.0)), (0, FIRST));
        for n in 0..5000 {
            let rows = pass(1.0 + f64::from(n.min(1000)) / 1000.0);
            assert!(rows == 0 || rows > FIRST, "{rows} in pass {n}");
        }
        let last: Vec<usize> = (0..=STALE).map(|_| pass(2.0)).collect();
        assert_eq!(last.iter().filter(|rows| **rows == 0).count(), 1, "one to compare with");
        assert!(last.iter().all(|rows| [0, 99, 100].contains(rows)), "{last:?}");
    }

    /// The same machine, if every sequence has passes of its own.
    #[test]
    fn chunks_alone_are_measured_too() {
        let mut pace = Pace::new(false);
        assert_eq!((pace.chunk(true, 128), pace.chunk(true, 4), pace.chunk(false, 128)), (FIRST, 4, 128));
        for _ in 0..50 {
            pace.observe(1, 0, 1.0);
            let rows = pace.chunk(true, 128);
            pace.observe(0, rows, 1.0 + 0.01 * rows as f64);
        }
        assert!((49..=50).contains(&pace.chunk(true, 128)), "{pace:?}");
    }
}
