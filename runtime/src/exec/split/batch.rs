//! Batches that lie in one buffer, as the tokens of several experts do: each is cut as if it were alone.

use std::ops::Range;

use halfbyte_kernels::KernelError;

use super::Split;

/// Some tokens of a buffer, from token `first` on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) first: usize,
    pub(crate) tokens: usize,
}

impl Batch {
    /// Tokens of the largest of some batches.
    pub(crate) fn most_tokens(batches: &[Self]) -> usize {
        batches.iter().map(|batch| batch.tokens).max().unwrap_or(0)
    }
}

/// A buffer of which batches can be cut each as if it were alone.
///
/// # Safety
/// Parts of disjoint ranges of units, or of disjoint batches, are disjoint, and can be used from different threads at
/// once.
pub(crate) unsafe trait Stack: Sync {
    /// What a thread writes.
    type Part;

    /// Tokens it has room for.
    fn tokens(&self) -> usize;

    /// The part of `units` of `batch`.
    ///
    /// # Safety
    /// The batch lies inside. A unit of a token is in one part only, for as long as the stack lives.
    unsafe fn part_of(&self, batch: Batch, units: Range<usize>) -> Self::Part;
}

/// Batches of one buffer, all cut alike: unit `i · n + j` is unit `j` of batch `i`, if each has `n`.
pub(crate) struct Batches<'a, S> {
    list: &'a [Batch],
    n: usize,
    stack: &'a S,
}

impl<'a, S: Stack> Batches<'a, S> {
    /// `list` in ascending order, each of `n > 0` units.
    ///
    /// # Errors
    /// [`KernelError::OutOfRange`] if batches overlap or leave the buffer.
    pub(crate) fn new(list: &'a [Batch], n: usize, stack: &'a mut S) -> Result<Self, KernelError> {
        let (limit, mut end) = (stack.tokens(), 0);
        for batch in list {
            let found = batch.first.saturating_add(batch.tokens);
            if batch.first < end || found > limit {
                return Err(KernelError::OutOfRange { what: "batch", limit, found });
            }
            end = found;
        }
        Ok(Self { list, n, stack })
    }

    pub(crate) fn units(&self) -> usize {
        self.list.len() * self.n
    }
}

// SAFETY: batches do not overlap, checked in `new`, and units of one are disjoint by the contract of `Stack`.
unsafe impl<'a, S: Stack> Split for Batches<'a, S> {
    type Part = Runs<'a, S>;

    unsafe fn part(&self, units: Range<usize>) -> Runs<'a, S> {
        Runs { list: self.list, n: self.n, stack: self.stack, units }
    }
}

/// A part of [`Batches`]: for each batch that it has units of, the batch's number, these units, and their part. Made by
/// [`Batches::part`] only, with units that nobody else has.
pub(crate) struct Runs<'a, S> {
    list: &'a [Batch],
    n: usize,
    stack: &'a S,
    /// What is left.
    units: Range<usize>,
}

impl<S: Stack> Iterator for Runs<'_, S> {
    type Item = (usize, Range<usize>, S::Part);

    fn next(&mut self) -> Option<Self::Item> {
        let Range { start, end } = self.units;
        let number = start.checked_div(self.n)?;
        let &batch = self.list.get(number).filter(|_| start < end)?;
        self.units.start = end.min((number + 1) * self.n);
        let units = start - number * self.n..self.units.start - number * self.n;
        // SAFETY: `Batches::new` saw that the batch lies inside, and borrowed the stack mutably, so parts are made here
        // only. Nobody else has these units, by the contract of `part`, and they have just been taken out of what is
        // left.
        Some((number, units.clone(), unsafe { self.stack.part_of(batch, units) }))
    }
}

#[cfg(test)]
mod tests {
    use halfbyte_kernels::quantized_words;

    use super::{
        super::{Chunks, Groups, Rows},
        *,
    };

    #[test]
    fn batches_of_a_buffer_are_cut_each_alone() {
        const DEPTH: usize = 96;
        let list = [(0, 3), (4, 1), (5, 0), (8, 5)].map(|(first, tokens)| Batch { first, tokens });
        let (mut floats, mut words) = (vec![0.0; 14 * 7], vec![7; 14 * quantized_words(1, DEPTH).expect("small")]);
        let mut rows = Rows::new(&mut floats, 7, 3);
        let mut groups = Groups::stacked(&mut words, &list, DEPTH, 32).expect("inside");
        assert_eq!((rows.units(), groups.units()), (3, 3));
        let split = (
            Batches::new(&list, 3, &mut rows).expect("ascending"),
            Batches::new(&list, 3, &mut groups).expect("ascending"),
        );
        let units = split.0.units();
        let mut seen = Vec::new();
        for range in [0..1, 1..5, 5..6, 6..units, units..units + 4] {
            // SAFETY: the ranges are disjoint, and the split is used here only.
            let (floats, words) = unsafe { split.part(range) };
            for ((number, units, mut tile), (same, _, part)) in floats.zip(words) {
                assert_eq!((number, tile.tokens()), (same, if units.is_empty() { 0 } else { list[number].tokens }));
                assert_eq!((part.tokens(), part.groups()), (list[number].tokens, units.len()));
                for token in 0..tile.tokens() {
                    tile.row_mut(token).iter_mut().for_each(|v| *v += 1.0);
                }
                seen.extend(units.map(|unit| 3 * number + unit));
            }
        }
        assert_eq!(seen, Vec::from_iter(0..units));
        for (token, row) in floats.chunks_exact(7).enumerate() {
            let inside = list.iter().any(|batch| (batch.first..batch.first + batch.tokens).contains(&token));
            assert_eq!(row, [f32::from(inside); 7], "{token}");
        }
        // Flags, the last words of each tile, are all that was written to.
        assert_eq!(words.iter().filter(|&&word| word == 0).count(), 3 + 1 + 5);
    }

    #[test]
    fn a_batch_of_runs_is_one_unit() {
        let list = [(1, 2), (3, 1)].map(|(first, tokens)| Batch { first, tokens });
        let mut values = [0; 10];
        let mut runs = Chunks::new(&mut values, 2);
        let split = Batches::new(&list, 1, &mut runs).expect("inside");
        for range in [0..1, 1..4] {
            // SAFETY: the ranges are disjoint, and the split is used here only.
            for (number, units, run) in unsafe { split.part(range) } {
                assert_eq!(units, 0..1);
                run.fill(number + 1);
            }
        }
        assert_eq!(values, [0, 0, 1, 1, 1, 1, 2, 2, 0, 0]);
    }

    #[test]
    fn batches_that_overlap_or_leave_the_buffer_are_refused() {
        let mut floats = [0.0; 8];
        for list in [[(0, 3), (2, 1)], [(2, 1), (0, 1)], [(0, 1), (1, 4)], [(0, 1), (usize::MAX, 2)]] {
            let list = list.map(|(first, tokens)| Batch { first, tokens });
            assert!(Batches::new(&list, 1, &mut Rows::new(&mut floats, 2, 2)).is_err(), "{list:?}");
        }
        let list = [Batch { first: 1, tokens: 2 }];
        assert!(Groups::stacked(&mut [0; 26], &list, 32, 32).is_err());
    }
}
