//! Merging: neighbouring symbols become one token, best pair first, until no pair can.
//!
//! Both kinds of vocabulary reduce to this. Byte-level BPE lists its merges, best first. SentencePiece BPE scores its
//! tokens instead: there every way of cutting a token in two is a merge into it, ranked by the token's score, so that
//! equal scores share a rank. Among pairs of one rank the leftmost goes first.
//!
//! The symbols of a piece are a doubly linked list in one array, the pairs that can merge a heap of (rank, position):
//! O(n log n) for any piece, and no allocation once both have grown.

use std::{cmp::Reverse, collections::BinaryHeap, collections::HashMap};

use super::{
    TokenizerError, reserve,
    vocabulary::{Kind, Vocabulary, Writing},
    with_room,
};

/// Marks a symbol that is no token but a single character (the other bits); tokens can begin with it all the same.
const CHARACTER: u32 = 1 << 31;
/// Neighbour of the first and the last symbol.
const NONE: usize = usize::MAX;

/// What a pair of symbols becomes; the lowest rank goes first.
#[derive(Clone, Copy, Debug)]
struct Merge {
    rank: u32,
    id: u32,
}

/// Every pair of symbols that can merge.
#[derive(Debug)]
pub(super) struct Merges {
    pairs: HashMap<u64, Merge>,
}

fn key(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

/// The symbol for a character that may not be a token.
pub(super) fn character(c: char, vocabulary: &Vocabulary) -> u32 {
    vocabulary.find(c.encode_utf8(&mut [0; 4]).as_bytes()).unwrap_or(CHARACTER | u32::from(c))
}

/// The character of a symbol that is no token.
pub(super) fn as_character(symbol: u32) -> Option<char> {
    (symbol & CHARACTER != 0).then(|| char::from_u32(symbol & !CHARACTER)).flatten()
}

/// An empty table with room for `len` merges.
fn table(len: usize) -> Result<HashMap<u64, Merge>, TokenizerError> {
    let (mut table, bytes) = (HashMap::new(), len.saturating_mul(size_of::<(u64, Merge)>()));
    table.try_reserve(len).map_err(|_| TokenizerError::OutOfMemory { what: "merges", bytes })?;
    Ok(table)
}

impl Merges {
    /// Bytes of memory that they take: a hash table of the standard library is filled to seven eighths, its places are
    /// a power of two, and each has a byte more.
    pub(super) fn len_bytes(&self) -> usize {
        let places = (self.pairs.capacity() * 8).div_ceil(7).next_power_of_two();
        if self.pairs.is_empty() { 0 } else { places * (size_of::<(u64, Merge)>() + 1) }
    }

    /// From the list of a byte-level vocabulary: `left right`, best first, cut at the first space after the first byte.
    ///
    /// # Errors
    /// [`TokenizerError`] if a merge has no such space, or one of its parts or its result is not a normal
    /// token.
    pub(super) fn listed<'t>(
        vocabulary: &Vocabulary,
        merges: impl ExactSizeIterator<Item = &'t str>,
    ) -> Result<Self, TokenizerError> {
        let mut pairs = table(merges.len())?;
        let mut bytes = Vec::new();
        // Vocabularies list tokens in the order of their merges, so the next result is mostly the next token: trying
        // that first saves a third of the look-ups, which are what loading spends its time on.
        let mut last = 0;
        for (rank, text) in merges.enumerate() {
            let cut = text.bytes().skip(1).position(|b| b == b' ').map(|at| at + 1);
            let Some((left, right)) = cut.and_then(|at| Some((text.get(..at)?, text.get(at + 1..)?))) else {
                return Err(TokenizerError::InvalidMerge { index: rank, text: text.to_owned() });
            };
            bytes.clear();
            Writing::ByteLevel.bytes_into(left, &mut bytes);
            let middle = bytes.len();
            Writing::ByteLevel.bytes_into(right, &mut bytes);
            let (left_bytes, right_bytes) = bytes.split_at_checked(middle).unwrap_or((&[], &[]));
            // Only normal tokens: text may not become a control token, however it is merged.
            let id = |bytes: &[u8], part: &[&str]| {
                let missing = || TokenizerError::UnknownMergePart { index: rank, part: part.concat() };
                vocabulary.find(bytes).ok_or_else(missing)
            };
            let left_id = id(left_bytes, &[left])?;
            let right_id = id(right_bytes, &[right])?;
            let guess = [last, last + 1].into_iter().find(|&id| vocabulary.is_text(id, &bytes));
            last = guess.map_or_else(|| id(&bytes, &[left, right]), Ok)?;
            let limit = u32::MAX as usize;
            let rank =
                u32::try_from(rank).map_err(|_| TokenizerError::TooLarge { what: "merges", found: rank, limit })?;
            // A pair listed twice keeps its better rank.
            pairs.entry(key(left_id, right_id)).or_insert(Merge { rank, id: last });
        }
        Ok(Self { pairs })
    }

    /// From the scores of a SentencePiece vocabulary, one per token.
    ///
    /// # Errors
    /// [`TokenizerError::InvalidScore`] if one is not finite.
    pub(super) fn scored(vocabulary: &Vocabulary, scores: &[f32]) -> Result<Self, TokenizerError> {
        if let Some((id, &found)) = (0..).zip(scores).find(|(_, score)| !score.is_finite()) {
            return Err(TokenizerError::InvalidScore { id, found });
        }
        // Adding 0 turns -0 into 0, which is the same score but another pattern of bits.
        let mut ranked: Vec<f32> = with_room("scores", scores.len())?;
        ranked.extend(scores.iter().map(|score| score + 0.0));
        ranked.sort_unstable_by(|a, b| b.total_cmp(a));
        ranked.dedup();
        let rank = |score: f32| u32::try_from(ranked.partition_point(|&better| better > score)).unwrap_or(u32::MAX);

        let mut found = with_room("merges", vocabulary.len() * 4)?;
        for ((id, kind, bytes), &score) in vocabulary.iter().zip(scores) {
            let (Kind::Normal, Ok(text)) = (kind, std::str::from_utf8(bytes)) else { continue };
            let rank = rank(score);
            for (at, _) in text.char_indices().skip(1) {
                let (left, right) = text.split_at_checked(at).unwrap_or((text, ""));
                let parts = symbol(left, vocabulary).and_then(|left| Some((left, symbol(right, vocabulary)?)));
                if let Some((left, right)) = parts {
                    reserve("merges", &mut found, 1)?;
                    found.push((key(left, right), Merge { rank, id }));
                }
            }
        }
        // Of a pair that is there twice the later one counts.
        let mut pairs = table(found.len())?;
        pairs.extend(found);
        Ok(Self { pairs })
    }

    fn of(&self, left: u32, right: u32) -> Option<Merge> {
        self.pairs.get(&key(left, right)).copied()
    }
}

/// The symbol `text` is when nothing can merge in it any more: a token, or a character that is none.
fn symbol(text: &str, vocabulary: &Vocabulary) -> Option<u32> {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(only), None) => Some(character(only, vocabulary)),
        _ => vocabulary.find(text.as_bytes()),
    }
}

/// One symbol of a piece.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    id: u32,
    previous: usize,
    next: usize,
    /// What it and the next symbol become; `None` also once it was merged into the one before.
    merge: Option<Merge>,
}

/// The memory of merging, kept from piece to piece.
#[derive(Debug, Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Reverse<(u32, usize)>>,
}

impl Merger {
    /// Merges the symbols of one piece and hands what is left of them to `emit`, in order.
    pub(super) fn run(&mut self, merges: &Merges, symbols: impl Iterator<Item = u32>, emit: impl FnMut(u32)) {
        self.symbols.clear();
        self.queue.clear();
        for id in symbols {
            let at = self.symbols.len();
            self.symbols.push(Symbol { id, previous: at.wrapping_sub(1), next: NONE, merge: None });
            self.link(merges, at.wrapping_sub(1), at);
        }
        while let Some(Reverse((rank, at))) = self.queue.pop() {
            let Some(&Symbol { previous, next, merge: Some(merge), .. }) = self.symbols.get(at) else { continue };
            // An entry is stale if either symbol has changed since; then the rank, if any, is another.
            if merge.rank != rank {
                continue;
            }
            let Some(gone) = self.symbols.get_mut(next) else { continue };
            gone.merge = None;
            let after = gone.next;
            if let Some(symbol) = self.symbols.get_mut(at) {
                symbol.id = merge.id;
            }
            self.link(merges, at, after);
            self.link(merges, previous, at);
        }
        self.left_over().for_each(emit);
    }

    /// Makes `left` and `right` neighbours and queues their merge, if there is one.
    fn link(&mut self, merges: &Merges, left: usize, right: usize) {
        if let Some(symbol) = self.symbols.get_mut(right) {
            symbol.previous = left;
        }
        let right_id = self.symbols.get(right).map(|symbol| symbol.id);
        if let Some(symbol) = self.symbols.get_mut(left) {
            symbol.next = right;
            symbol.merge = right_id.and_then(|id| merges.of(symbol.id, id));
            if let Some(merge) = symbol.merge {
                self.queue.push(Reverse((merge.rank, left)));
            }
        }
    }

    fn left_over(&self) -> impl Iterator<Item = u32> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let symbol = self.symbols.get(at)?;
            at = symbol.next;
            Some(symbol.id)
        })
    }
}
