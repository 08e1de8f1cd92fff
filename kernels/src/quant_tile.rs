//! A window of inputs in a larger batch of 8-bit activations: what threads that split a product by rows write for the
//! next.
//!
//! The words of a range of groups lie in one piece for each four tokens, so no safe slice describes the window.

use std::marker::PhantomData;
use std::ops::Range;
use std::slice;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{KernelError, same_len};
use crate::quantized::{GROUP, TILE, WORDS, quantized_words, token_words};

/// A mutable window of `inputs` (whole groups of 32) of a batch `(tokens, depth)` of 8-bit activations: the share of
/// one thread. The flags that say which tokens are of use are shared between windows.
#[derive(Debug)]
pub struct QuantTile<'a> {
    words: *mut u32,
    tokens: usize,
    /// Groups of a token of the batch.
    all: usize,
    /// The groups of this window.
    groups: Range<usize>,
    batch: PhantomData<&'a mut [u32]>,
}

// SAFETY: a `QuantTile` is the only access to the groups of its window (by `new`: a unique borrow; by `from_raw`: its
// contract), and flags are accessed atomically.
unsafe impl Send for QuantTile<'_> {}

impl<'a> QuantTile<'a> {
    /// The whole of `words: quantized_words(tokens, depth)`, all flags cleared.
    ///
    /// # Errors
    /// As [`quantized_words`]; [`KernelError::ShapeMismatch`] if `words` has another length.
    pub fn new(words: &'a mut [u32], tokens: usize, depth: usize) -> Result<Self, KernelError> {
        same_len("quantised tile", quantized_words(tokens, depth)?, words.len())?;
        let all = depth / GROUP;
        let mut tile = Self { words: words.as_mut_ptr(), tokens, all, groups: 0..all, batch: PhantomData };
        tile.clear_flags();
        Ok(tile)
    }

    /// The window `groups` of the batch at `words`.
    ///
    /// # Safety
    /// For as long as the tile lives:
    /// - `quantized_words(tokens, depth)` words from `words` on lie in one allocation, are initialised, and may be
    ///   written;
    /// - `groups.end <= depth / 32`;
    /// - nothing else reads or writes these groups (other tiles of the same batch have other groups), and flags are
    ///   accessed by tiles only.
    pub unsafe fn from_raw(words: *mut u32, tokens: usize, depth: usize, groups: Range<usize>) -> Self {
        Self { words, tokens, all: depth / GROUP, groups, batch: PhantomData }
    }

    /// Tokens of the batch.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Groups of 32 inputs in the window.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Inputs of a token of the batch.
    pub(crate) fn depth(&self) -> usize {
        self.all * GROUP
    }

    /// The groups of a token of the batch that are in the window.
    pub(crate) fn window(&self) -> Range<usize> {
        self.groups.clone()
    }

    /// Declares every token to be of use.
    fn clear_flags(&mut self) {
        for flag in (0..self.tokens).filter_map(|token| self.flag(token)) {
            flag.store(0, Ordering::Relaxed);
        }
    }

    /// Tokens in the tile that starts with `first`, a multiple of four below `tokens`.
    fn tile(&self, first: usize) -> usize {
        TILE.min(self.tokens - first)
    }

    /// The words of `groups` of the window, of the tile that starts with token `first`; empty if there are none.
    pub(crate) fn words_mut(&mut self, first: usize, groups: Range<usize>) -> &mut [u32] {
        if !first.is_multiple_of(TILE) || first >= self.tokens || groups.end > self.groups.len() {
            return &mut [];
        }
        let n = self.tile(first);
        let start = first * token_words(self.all) + (self.groups.start + groups.start) * WORDS * n;
        // SAFETY: tile `first / 4` begins `first * token_words` words into the batch and has `n * token_words` of them;
        // these groups lie before its flags, as `groups.start + groups.len() <= all`.
        let start = unsafe { self.words.add(start) };
        // SAFETY: initialised and writable by the contract of `from_raw` (or a unique borrow in `new`), and of this
        // window only; `&mut self` lends out one piece at a time.
        unsafe { slice::from_raw_parts_mut(start, groups.len() * WORDS * n) }
    }

    /// Declares the results of a token to be NaN, if there is such a one.
    pub(crate) fn poison(&mut self, token: usize) {
        if let Some(flag) = self.flag(token) {
            flag.store(1, Ordering::Relaxed);
        }
    }

    fn flag(&self, token: usize) -> Option<&AtomicU32> {
        if token >= self.tokens {
            return None;
        }
        let first = token - token % TILE;
        let at = first * token_words(self.all) + self.tile(first) * self.all * WORDS + token % TILE;
        // SAFETY: the flags of a tile of `n` tokens are the last `n` of its words; `token < tokens` was checked above.
        let word = unsafe { self.words.add(at) };
        // SAFETY: valid and aligned as above; while tiles live, flags are accessed through this function only.
        Some(unsafe { AtomicU32::from_ptr(word) })
    }
}
