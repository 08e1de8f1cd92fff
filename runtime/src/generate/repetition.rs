//! Notices a generation that goes round in circles, as quantised models sometimes do.
//!
//! For each period up to [`MAX_PERIOD`] it counts for how many tokens in a row the sequence has repeated what it said
//! so many tokens before. It is a loop when something was said [`REPEATS`] times in a row and that took [`MIN_TOKENS`]
//! or more. Lists, tables and rhymes repeat three or four times, and verse seldom 96 tokens long; a hundred equal
//! spaces in code are what comes closest to a mistake here, which is why this is told and not acted upon.

/// The longest circle that is noticed, in tokens.
pub(crate) const MAX_PERIOD: usize = 64;
/// How often it has to be gone round.
pub(crate) const REPEATS: usize = 6;
/// How many tokens that has to take.
pub(crate) const MIN_TOKENS: usize = 96;

/// See the head of this file.
#[derive(Clone)]
pub(crate) struct Repetition {
    /// The last tokens, in a ring.
    recent: [u32; MAX_PERIOD],
    seen: usize,
    /// For each period, from 1 on: tokens in a row that equal the one a period before.
    runs: [u32; MAX_PERIOD],
    /// The period of the loop that was told of and goes on.
    told: Option<usize>,
}

impl Repetition {
    pub(crate) fn new() -> Self {
        Self { recent: [0; MAX_PERIOD], seen: 0, runs: [0; MAX_PERIOD], told: None }
    }

    /// Adds a token. The period and the length of a loop, in tokens, when one is noticed; once for each loop.
    pub(crate) fn push(&mut self, token: u32) -> Option<(usize, usize)> {
        let mut found = None;
        for (period, run) in (1..).zip(&mut self.runs) {
            let before = self.recent.get(self.seen.wrapping_sub(period) % MAX_PERIOD);
            *run = if period <= self.seen && before == Some(&token) { *run + 1 } else { 0 };
            let length = *run as usize + period;
            if found.is_none() && length >= period * REPEATS && length >= MIN_TOKENS {
                found = Some((period, length));
            }
        }
        if let Some(place) = self.recent.get_mut(self.seen % MAX_PERIOD) {
            *place = token;
        }
        self.seen += 1;
        let told = std::mem::replace(&mut self.told, found.map(|(period, _)| period));
        found.filter(|_| told.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where loops are noticed in `tokens`, and their periods.
    fn found(tokens: impl IntoIterator<Item = u32>) -> Vec<(usize, usize)> {
        let mut repetition = Repetition::new();
        (1..).zip(tokens).filter_map(|(n, token)| Some((n, repetition.push(token)?.0))).collect()
    }

    #[test]
    fn loops_are_noticed_once_when_they_are_long_enough() {
        for period in 1..=MAX_PERIOD {
            let start = 1000..1017_u32;
            let circle = (0..period as u32).cycle();
            let at = 17 + MIN_TOKENS.max(REPEATS * period);
            assert_eq!(found(start.chain(circle.take(1000))), [(at, period)], "period {period}");
        }
        // Broken off, and begun again.
        let twice = std::iter::repeat_n(1, 200).chain([2]).chain(std::iter::repeat_n(1, 200));
        assert_eq!(found(twice), [(96, 1), (297, 1)]);
    }

    #[test]
    fn what_is_not_a_loop() {
        assert_eq!(found((0..65_u32).cycle().take(2000)), [], "too long a circle");
        assert_eq!(found((0..5000_u32).map(|n| n * n % 1009)), []);
        // A table: rows that begin alike and end differently.
        assert_eq!(found((0..500_u32).flat_map(|row| [1, 2, 3, 4, 5, 6, 7, 100 + row])), []);
        // Five times in a row.
        assert_eq!(found((0..5_u32).flat_map(|_| 0..60).chain(900..1000)), []);
        assert_eq!(found(std::iter::repeat_n(7, 95).chain(0..10)), []);
    }
}
