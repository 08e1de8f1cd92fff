//! Tokens grouped by expert: a counting sort of what the router said.
//!
//! ```text
//! slots:  expert 1: tokens 0, 3, 4 | - |  expert 5: tokens 0, 1, 2, 3 |  expert 6: token 1 | - - - | …
//! ```
//! Experts come in ascending order and so do the tokens of each; an expert's slots begin with a tile of 8-bit activations, so
//! that tiles can be written apart.

use crate::{
    RuntimeError,
    exec::Batch,
    layers::{EXPERTS_USED, Routes, TILE},
    memory::with_room,
};

/// The token of a slot that is there to fill a tile.
const NONE: usize = usize::MAX;

/// Where the tokens of a batch go.
pub(crate) struct Dispatch {
    /// The experts that have tokens.
    pub(crate) experts: Vec<usize>,
    /// The slots of each of them.
    pub(crate) batches: Vec<Batch>,
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
        let busy = experts.min(batch * EXPERTS_USED);
        Ok(Self {
            experts: with_room(what, busy)?,
            batches: with_room(what, busy)?,
            slots: with_room(what, Self::most_slots(batch, experts))?,
            counts,
        })
    }

    /// Slots that `batch` tokens may take.
    pub(crate) fn most_slots(batch: usize, experts: usize) -> usize {
        let routes = batch.saturating_mul(EXPERTS_USED);
        routes.saturating_add(experts.min(routes).saturating_mul(TILE - 1))
    }

    /// Groups the tokens that go where `routes` says, each to different experts.
    pub(crate) fn group(&mut self, routes: &[Routes]) {
        self.experts.clear();
        self.batches.clear();
        self.slots.clear();
        self.counts.fill(0);
        for &(expert, _) in routes.as_flattened() {
            self.counts[expert] += 1;
        }
        let mut end = 0;
        for (expert, count) in self.counts.iter_mut().enumerate().filter(|(_, count)| **count > 0) {
            self.experts.push(expert);
            self.batches.push(Batch { first: end, tokens: *count });
            end = (end + std::mem::replace(count, end)).next_multiple_of(TILE);
        }
        self.slots.resize(end, (NONE, 0.0));
        for (token, routes) in routes.iter().enumerate() {
            for &(expert, weight) in routes {
                self.slots[self.counts[expert]] = (token, weight);
                self.counts[expert] += 1;
            }
        }
    }

    /// Tiles in use.
    pub(crate) fn tiles(&self) -> usize {
        self.slots.len() / TILE
    }

    /// Tokens of a tile.
    pub(crate) fn in_tile(&self, tile: usize) -> usize {
        self.slots[tile * TILE..][..TILE].iter().filter(|slot| slot.0 != NONE).count()
    }

    /// The tokens of `batch`, with their weights.
    pub(crate) fn tokens(&self, batch: Batch) -> &[(usize, f32)] {
        &self.slots[batch.first..][..batch.tokens]
    }

    /// The token of a slot that has one.
    pub(crate) fn token(&self, slot: usize) -> usize {
        self.slots[slot].0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn slots_begin_with_a_tile() {
        let mut dispatch = Dispatch::new("test", 5, 8).expect("memory");
        dispatch.group(&[[(5, 0.5), (1, 0.1)], [(6, 0.6), (5, 0.7)], [(5, 0.8), (1, 0.2)]]);
        assert_eq!(dispatch.experts, [1, 5, 6]);
        assert_eq!(dispatch.batches, [(0, 2), (4, 3), (8, 1)].map(|(first, tokens)| Batch { first, tokens }));
        assert_eq!(dispatch.tokens(dispatch.batches[0]), [(0, 0.1), (2, 0.2)]);
        assert_eq!(dispatch.tokens(dispatch.batches[1]), [(0, 0.5), (1, 0.7), (2, 0.8)]);
        assert_eq!((0..dispatch.tiles()).map(|tile| dispatch.in_tile(tile)).collect::<Vec<_>>(), [2, 3, 1]);
        dispatch.group(&[]);
        assert_eq!((dispatch.tiles(), dispatch.batches.len()), (0, 0));
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
            let room = (dispatch.slots.capacity(), dispatch.batches.capacity());
            dispatch.group(&routes);
            prop_assert_eq!(room, (dispatch.slots.capacity(), dispatch.batches.capacity()));
            prop_assert!(dispatch.experts.is_sorted());
            let mut seen = 0;
            for (&expert, &batch) in dispatch.experts.iter().zip(&dispatch.batches) {
                prop_assert!(batch.first.is_multiple_of(TILE) && batch.tokens > 0);
                let tokens = dispatch.tokens(batch);
                prop_assert!(tokens.is_sorted_by_key(|slot| slot.0));
                for &(token, weight) in tokens {
                    prop_assert!(routes[token].contains(&(expert, weight)));
                }
                seen += batch.tokens;
            }
            prop_assert_eq!(seen, routes.len() * EXPERTS_USED);
            prop_assert_eq!((0..dispatch.tiles()).map(|tile| dispatch.in_tile(tile)).sum::<usize>(), seen);
        }
    }
}
