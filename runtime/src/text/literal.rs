//! Finding special tokens in text: literal substrings, looked for before any splitting.
//!
//! At each position the longest literal that begins there is taken, going left to right. The literals are sorted, so
//! those that begin with the bytes read so far are one range, narrowed byte by byte like a walk down a trie.

use super::{
    TokenizerError, reserve,
    vocabulary::{Kind, Vocabulary},
    with_room,
};

/// A set of tokens that are matched literally.
#[derive(Debug)]
pub(super) struct Literals {
    /// Ids, sorted by their bytes.
    ids: Vec<u32>,
    /// Whether any literal begins with a byte.
    begins: [bool; 256],
}

/// A literal in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) id: u32,
}

impl Literals {
    /// Every token whose kind `belongs`; ones with no text are left out.
    ///
    /// # Errors
    /// [`TokenizerError::OutOfMemory`].
    pub(super) fn new(vocabulary: &Vocabulary, belongs: impl Fn(Kind) -> bool) -> Result<Self, TokenizerError> {
        let mut begins = [false; 256];
        let mut found: Vec<(&[u8], u32)> = Vec::new();
        for (id, kind, bytes) in vocabulary.iter() {
            if let (true, Some(&first)) = (belongs(kind), bytes.first()) {
                reserve("special tokens", &mut found, 1)?;
                found.push((bytes, id));
                if let Some(slot) = begins.get_mut(usize::from(first)) {
                    *slot = true;
                }
            }
        }
        found.sort_unstable();
        let mut ids = with_room("special tokens", found.len())?;
        ids.extend(found.into_iter().map(|(_, id)| id));
        Ok(Self { ids, begins })
    }

    /// The first literal in `text`.
    pub(super) fn first_in(&self, text: &str, vocabulary: &Vocabulary) -> Option<Found> {
        let bytes = text.as_bytes();
        let candidates = bytes.iter().enumerate().filter(|&(_, &b)| self.begins.get(usize::from(b)) == Some(&true));
        candidates.map(|(start, _)| start).find_map(|start| {
            let (id, len) = self.longest_prefix(bytes.get(start..)?, vocabulary)?;
            Some(Found { start, end: start + len, id })
        })
    }

    /// Whether `text` begins with a literal.
    #[cfg(feature = "chat")]
    pub(super) fn begins(&self, text: &str, vocabulary: &Vocabulary) -> bool {
        let bytes = text.as_bytes();
        bytes.first().is_some_and(|&b| self.begins.get(usize::from(b)) == Some(&true))
            && self.longest_prefix(bytes, vocabulary).is_some()
    }

    /// Whether a literal begins with `text`, and goes on.
    #[cfg(feature = "chat")]
    pub(super) fn is_cut(&self, text: &str, vocabulary: &Vocabulary) -> bool {
        let bytes = |id: u32| vocabulary.bytes(id).unwrap_or(&[]);
        text.bytes().next().is_some_and(|b| self.begins.get(usize::from(b)) == Some(&true)) && {
            let longer = self.ids.partition_point(|&id| bytes(id) <= text.as_bytes());
            self.ids.get(longer).is_some_and(|&id| bytes(id).starts_with(text.as_bytes()))
        }
    }

    fn longest_prefix(&self, text: &[u8], vocabulary: &Vocabulary) -> Option<(u32, usize)> {
        let bytes = |id: u32| vocabulary.bytes(id).unwrap_or(&[]);
        let mut range = self.ids.as_slice();
        let mut longest = None;
        for (depth, &byte) in text.iter().enumerate() {
            // Literals that end here sort first, then by their next byte.
            let from = range.partition_point(|&id| bytes(id).get(depth).is_none_or(|&b| b < byte));
            range = range.get(from..).unwrap_or(&[]);
            let to = range.partition_point(|&id| bytes(id).get(depth) == Some(&byte));
            range = range.get(..to).unwrap_or(&[]);
            let Some(&first) = range.first() else { return longest };
            if bytes(first).len() == depth + 1 {
                longest = Some((first, depth + 1));
            }
            if range.len() == 1 && longest.is_some_and(|(id, _)| id == first) {
                return longest;
            }
        }
        longest
    }
}
