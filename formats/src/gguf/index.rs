//! Names to positions in O(1), without keeping the names twice.
//!
//! A `HashMap<String, usize>` beside the list it indexes would double the names and spend 48 bytes a bucket: for a
//! file of many tiny entries that alone breaks the promise that parsing takes at most four times the file. Here a
//! slot is the 4-byte position, and the name is looked up in the list itself.

use std::hash::{BuildHasher, RandomState};

use super::memory::with_room;
use crate::FormatError;

/// Marks a slot that holds no position.
const EMPTY: u32 = u32::MAX;

/// An open-addressing hash table of positions, at most half full; keyed hashing, so no file can aim for collisions.
#[derive(Clone, Debug, Default)]
pub(super) struct NameIndex {
    slots: Vec<u32>,
    hasher: RandomState,
}

impl NameIndex {
    /// Room for `len` names.
    pub(super) fn with_room(len: usize) -> Result<Self, FormatError> {
        let count = len.saturating_mul(2).max(2).checked_next_power_of_two().unwrap_or(0);
        let mut slots = with_room("index of names", count)?;
        slots.resize(count, EMPTY);
        Ok(Self { slots, hasher: RandomState::new() })
    }

    /// The position of `name`, where `name_at` tells the name of a position.
    pub(super) fn find<'a>(&self, name: &str, name_at: impl Fn(usize) -> Option<&'a str>) -> Option<usize> {
        self.probe(name)
            .map_while(|slot| self.slots.get(slot).filter(|&&at| at != EMPTY))
            .map(|&at| at as usize)
            .find(|&at| name_at(at) == Some(name))
    }

    /// Notes that `name` is at `position`. The caller has made sure by [`find`](Self::find) that it is new, and stays
    /// within the capacity.
    pub(super) fn insert(&mut self, name: &str, position: usize) {
        let Ok(position) = u32::try_from(position) else { return };
        let free = self.probe(name).find(|&slot| self.slots.get(slot) == Some(&EMPTY));
        if let Some(slot) = free.and_then(|slot| self.slots.get_mut(slot)) {
            *slot = position;
        }
    }

    /// Every slot once, starting where `name` belongs.
    fn probe(&self, name: &str) -> impl Iterator<Item = usize> + use<> {
        let len = self.slots.len();
        #[expect(clippy::cast_possible_truncation, reason = "any bits of the hash will do")]
        let start = self.hasher.hash_one(name) as usize;
        // `len` is a power of two, or 0 and the range is empty.
        (0..len).map(move |step| start.wrapping_add(step) & (len - 1))
    }
}
