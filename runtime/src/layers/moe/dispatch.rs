//! Tokens grouped by expert: a counting sort of what the router said.
//!
//! ```text
//! slots:  expert 5: tokens 0, 1, 2, 3 | expert 1: tokens 0, 3, 4 | expert 6: token 1 | …
//! ```
//! The expert with the most tokens comes first, so that what is left at the end of a step is small; tokens ascend.

use std::cmp::Reverse;

use crate::{
    RuntimeError,
    exec::Batch,
    layers::{EXPERTS_USED, Routes},
    memory::with_room,
};

/// Where the tokens of a batch go.
pub(crate) struct Dispatch {
    /// The experts that have tokens.
    pub(crate) experts: Vec<usize>,
    /// The slots of each of them.
    pub(crate) batches: Vec<Batch>,
    /// The places of the experts in these lists, in ascending order of their numbers.
    ascending: Vec<usize>,
    /// The token of a slot, and how much the expert's output counts for it.
    slots: Vec<(usize, f32)>,
    /// By expert: how many tokens, then the next free slot.
    counts: Vec<usize>,
}

impl Dispatch {
    /// For up to `batch` tokens and so many experts.
    ///
    /// # Errors
    /// [`RuntimeError::OutOfMemory`].
    pub(crate) fn new(what: &'static str, batch: usize, experts: usize) -> Result<Self, RuntimeError> {
        let mut counts = with_room(what, experts)?;
        counts.resize(experts, 0);
        let busy = experts.min(Self::slots(batch));
        Ok(Self {
            experts: with_room(what, busy)?,
            batches: with_room(what, busy)?,
            ascending: with_room(what, busy)?,
            slots: with_room(what, Self::slots(batch))?,
            counts,
        })
    }

    /// Slots of `batch` tokens.
    pub(crate) fn slots(batch: usize) -> usize {
        batch.saturating_mul(EXPERTS_USED)
    }

    /// Groups the tokens that go where `routes` says, each to different experts.
    pub(crate) fn group(&mut self, routes: &[Routes]) {
        let Self { experts, batches, ascending, slots, counts } = self;
        counts.fill(0);
        for &(expert, _) in routes.as_flattened() {
            counts[expert] += 1;
        }
        experts.clear();
        experts.extend((0..counts.len()).filter(|&expert| counts[expert] > 0));
        experts.sort_unstable_by_key(|&expert| (Reverse(counts[expert]), expert));
        ascending.clear();
        ascending.extend(0..experts.len());
        ascending.sort_unstable_by_key(|&place| experts[place]);
        batches.clear();
        let mut first = 0;
        for &expert in &*experts {
            let tokens = std::mem::replace(&mut counts[expert], first);
            batches.push(Batch { first, tokens });
            first += tokens;
        }
        slots.clear();
        slots.resize(first, (0, 0.0));
        for (token, routes) in routes.iter().enumerate() {
            for &(expert, weight) in routes {
                slots[counts[expert]] = (token, weight);
                counts[expert] += 1;
            }
        }
    }

    /// Experts and their slots, in ascending order.
    pub(crate) fn ascending(&self) -> impl Iterator<Item = (usize, Batch)> {
        self.ascending.iter().map(|&place| (self.experts[place], self.batches[place]))
    }

    /// The tokens of `batch`, with their weights.
    pub(crate) fn tokens(&self, batch: Batch) -> &[(usize, f32)] {
        &self.slots[batch.first..][..batch.tokens]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_busiest_expert_comes_first() {
        let mut dispatch = Dispatch::new("test", 5, 8).expect("memory");
        dispatch.group(&[[(5, 0.5), (1, 0.1)], [(6, 0.6), (5, 0.7)], [(5, 0.8), (1, 0.2)]]);
        assert_eq!(dispatch.experts, [5, 1, 6]);
        let [five, one, six] = [(0, 3), (3, 2), (5, 1)].map(|(first, tokens)| Batch { first, tokens });
        assert_eq!(dispatch.batches, [five, one, six]);
        assert!(dispatch.ascending().eq([(1, one), (5, five), (6, six)]));
        assert_eq!(dispatch.tokens(five), [(0, 0.5), (1, 0.7), (2, 0.8)]);
        assert_eq!(dispatch.tokens(one), [(0, 0.1), (2, 0.2)]);
        dispatch.group(&[]);
        assert!(dispatch.batches.is_empty() && dispatch.ascending().next().is_none());
    }

    proptest! {
        /// Every route has its slot, in order, and what was planned for is enough: nothing is allocated.
        #[test]
        fn all_routes_are_there(
            experts in 2_usize..20,
            routes in prop::collection::vec((0_usize..400, 0_usize..400, 0_f32..1.0), 0..60),
        ) {
            let routes: Vec<Routes> = routes
                .into_iter()
                .map(|(a, b, weight)| [(a % experts, weight), ((a + 1 + b % (experts - 1)) % experts, 1.0 - weight)])
                .collect();
            let mut dispatch = Dispatch::new("test", routes.len(), experts).expect("memory");
            let room = (dispatch.slots.capacity(), dispatch.ascending.capacity());
            dispatch.group(&routes);
            prop_assert_eq!(room, (dispatch.slots.capacity(), dispatch.ascending.capacity()));
            prop_assert!(dispatch.batches.is_sorted_by_key(|batch| Reverse(batch.tokens)));
            prop_assert!(dispatch.ascending().is_sorted_by_key(|(expert, _)| expert));
            let mut seen = 0;
            for (expert, batch) in dispatch.ascending() {
                prop_assert!(batch.tokens > 0);
                let tokens = dispatch.tokens(batch);
                prop_assert!(tokens.is_sorted_by_key(|slot| slot.0));
                for &(token, weight) in tokens {
                    prop_assert!(routes[token].contains(&(expert, weight)));
                }
                seen += batch.tokens;
            }
            prop_assert_eq!(seen, routes.len() * EXPERTS_USED);
        }
    }
}
