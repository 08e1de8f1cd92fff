//! Where the tokens of a pass belong: all to one sequence, or to several.
//!
//! The maps of a layer see rows, whosever they are; only what writes or reads keys and values asks here. So sequences
//! that decode at the same time, and one whose prompt is being run, share a pass over the weights; and none can reach
//! the pages of another.

use std::ops::Range;

use halfbyte_kernels::{KV_PAGE, KvLayout};

use super::{KvCache, LayerPages};
use crate::{RuntimeError, exec::PageParts};

/// Most sequences of a pass: with the pages of the last one's tokens they have to fit into [`PageParts`].
pub(crate) const MAX_SEQUENCES: usize = 32;

/// Keys and values of one layer, for the tokens of a pass.
pub(crate) enum LayerKv<'a, 'c> {
    /// All tokens follow each other in one cache.
    One { cache: &'a mut KvCache, layer: usize },
    /// Token `i` comes next in cache `i`, those that are left follow it in the last cache: none in no other.
    Many { caches: &'a mut [&'c mut KvCache], layer: usize },
}

/// Where the keys and values of tokens go.
pub(crate) struct Slots {
    /// Slots of tokens that have a page for themselves: the first ones.
    single: [u8; MAX_SEQUENCES],
    singles: usize,
    /// Position of the token after those, and how far page numbers are from those of its sequence.
    start: usize,
    first_page: usize,
}

impl Slots {
    /// The page (as [`PageParts`] counts) and the slot in it of token `token`.
    pub(crate) fn of(&self, token: usize) -> (usize, usize) {
        match (token < self.singles).then(|| self.single.get(token)).flatten() {
            Some(&slot) => (token, usize::from(slot)),
            None => {
                let position = self.start + token - self.singles;
                (self.first_page + position / KV_PAGE - self.start / KV_PAGE, position % KV_PAGE)
            }
        }
    }
}

impl LayerKv<'_, '_> {
    /// The shape of a page: the same in all caches of a pass.
    pub(crate) fn layout(&self) -> KvLayout {
        match self {
            Self::One { cache, .. } => cache.layout(),
            Self::Many { caches, .. } => caches[0].layout(),
        }
    }

    /// Tokens that have a sequence of their own: the first ones. The others are all of one.
    pub(crate) fn singles(&self) -> usize {
        match self {
            Self::One { .. } => 0,
            Self::Many { caches, .. } => caches.len() - 1,
        }
    }

    /// The pages that `tokens` are written to, and where in them. Tokens of one sequence are counted by position, those
    /// of several from 0, and then it is about all of them.
    ///
    /// # Errors
    /// [`RuntimeError::Kernel`] if a page is missing, or there are too many.
    pub(crate) fn parts(&mut self, tokens: Range<usize>) -> Result<(PageParts<'_>, Slots), RuntimeError> {
        let mut slots = Slots { single: [0; MAX_SEQUENCES], singles: 0, start: tokens.start, first_page: 0 };
        match self {
            Self::One { cache, layer } => {
                slots.first_page = tokens.start / KV_PAGE;
                let mut parts = PageParts::new(slots.first_page);
                cache.add_parts(*layer, tokens, &mut parts)?;
                Ok((parts, slots))
            }
            Self::Many { caches, layer } => {
                let mut parts = PageParts::new(0);
                slots.singles = caches.len() - 1;
                let (single, last) = caches.split_at_mut(slots.singles);
                for (cache, slot) in single.iter_mut().zip(&mut slots.single) {
                    let position = cache.len();
                    *slot = (position % KV_PAGE) as u8;
                    cache.add_parts(*layer, position..position + 1, &mut parts)?;
                }
                (slots.start, slots.first_page) = (last[0].len(), slots.singles);
                last[0].add_parts(*layer, slots.start..slots.start + tokens.len() - slots.singles, &mut parts)?;
                Ok((parts, slots))
            }
        }
    }

    /// What token `token` of several sequences sees, and its position; or, of a single one, what all see.
    pub(crate) fn seen(&self, token: usize, position: usize) -> (LayerPages<'_>, usize) {
        match self {
            Self::One { cache, layer } => (cache.layer(*layer), position),
            Self::Many { caches, layer } => (caches[token].layer(*layer), caches[token].len()),
        }
    }
}
