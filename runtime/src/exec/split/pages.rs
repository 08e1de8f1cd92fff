//! Pages of the key-value cache, cut by heads.

use std::{marker::PhantomData, ops::Range, ptr, slice};

use halfbyte_kernels::{KV_PAGE, KernelError};

use super::Split;

/// Most tokens of a pass.
pub(crate) const MAX_BATCH: usize = 4096;

/// Most pages that they lie in.
const MAX_PAGES: usize = MAX_BATCH / KV_PAGE + 1;

/// Pages of the cache that a step writes: the bytes of one layer of each, `(kv_heads, 2, half)`.
pub(crate) struct PageParts<'a> {
    /// Number of the first page.
    first: usize,
    /// Where each of the pages begins, in the order of their numbers; `len` are used.
    starts: [*mut u8; MAX_PAGES],
    len: usize,
    /// Bytes of each.
    bytes: usize,
    borrow: PhantomData<&'a mut [u8]>,
}

// SAFETY: the pointers are used to form disjoint parts of pages that are borrowed mutably for as long; they go to other
// threads as `&mut [u8]` does.
unsafe impl Sync for PageParts<'_> {}

impl<'a> PageParts<'a> {
    /// No pages; the first one will have number `first`.
    pub(crate) fn new(first: usize) -> Self {
        Self { first, starts: [ptr::null_mut(); MAX_PAGES], len: 0, bytes: 0, borrow: PhantomData }
    }

    /// Adds the next page, of the same size as the others.
    ///
    /// # Errors
    /// [`KernelError::ShapeMismatch`] if it has another size, [`KernelError::OutOfRange`] if a pass has no more.
    pub(crate) fn push(&mut self, page: &'a mut [u8]) -> Result<(), KernelError> {
        if self.len > 0 && page.len() != self.bytes {
            return Err(KernelError::ShapeMismatch { what: "kv page", expected: self.bytes, found: page.len() });
        }
        let past = KernelError::OutOfRange { what: "kv pages of a pass", limit: MAX_PAGES, found: self.len + 1 };
        *self.starts.get_mut(self.len).ok_or(past)? = page.as_mut_ptr();
        (self.len, self.bytes) = (self.len + 1, page.len());
        Ok(())
    }

    /// The keys and the values, halves of `half` bytes; unit `i` of each is key-value head `i`, in all pages.
    pub(crate) fn halves(&mut self, half: usize) -> [Halves<'_>; 2] {
        let pages = &*self;
        [0, 1].map(|part| Halves { pages, half, part })
    }
}

/// The keys, or the values, of pages. The two of a kind are made together, from a unique borrow of the pages.
pub(crate) struct Halves<'a> {
    pages: &'a PageParts<'a>,
    half: usize,
    part: usize,
}

// SAFETY: halves do not overlap, and those of different heads are different.
unsafe impl<'a> Split for Halves<'a> {
    type Part = HalvesOfHeads<'a>;

    unsafe fn part(&self, heads: Range<usize>) -> HalvesOfHeads<'a> {
        let Self { pages, half, part } = *self;
        HalvesOfHeads { pages, half, part, heads }
    }
}

/// The keys, or the values, of some heads.
pub(crate) struct HalvesOfHeads<'a> {
    pages: &'a PageParts<'a>,
    half: usize,
    part: usize,
    heads: Range<usize>,
}

impl HalvesOfHeads<'_> {
    /// Those of head number `head` of these in page `page`; nothing if there is no such one.
    pub(crate) fn half(&mut self, page: usize, head: usize) -> &mut [u8] {
        let Self { pages, half, part, .. } = *self;
        let start = page.checked_sub(pages.first).and_then(|n| pages.starts.get(..pages.len)?.get(n).copied());
        let at = (2 * (self.heads.start + head) + part) * half;
        let (Some(start), true) = (start, head < self.heads.len() && at + half <= pages.bytes) else { return &mut [] };
        // SAFETY: `at + half <= pages.bytes`, the size of the page.
        let first = unsafe { start.add(at) };
        // SAFETY: these bytes lie in a page that is borrowed mutably for as long as `pages` lives. They are this half
        // of this head's; nobody else has another part of the head, and `&mut self` lends out one half at a time.
        unsafe { slice::from_raw_parts_mut(first, half) }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::cuts, *};

    #[test]
    fn halves_cover_pages_once() {
        let (heads, half) = (5, 3);
        let mut other = [0; 4];
        let mut memory = vec![vec![0_u8; heads * 2 * half]; 3];
        let mut pages = PageParts::new(7);
        for page in &mut memory {
            pages.push(page).expect("the same size");
        }
        assert!(pages.push(&mut other).is_err());
        let split: (Halves<'_>, Halves<'_>) = pages.halves(half).into();
        for range in cuts(heads) {
            // SAFETY: the ranges are disjoint, and the split is used here only.
            let (mut keys, mut values) = unsafe { split.part(range.clone()) };
            for page in 0..12 {
                for head in 0..range.len() + 1 {
                    let inside = (7..10).contains(&page) && head < range.len() && range.start + head < heads;
                    for (part, halves) in [&mut keys, &mut values].into_iter().enumerate() {
                        let bytes = halves.half(page, head);
                        assert_eq!(bytes.len(), if inside { half } else { 0 });
                        bytes.iter_mut().for_each(|x| *x += 1 + (2 * (range.start + head) + part) as u8);
                    }
                }
            }
        }
        for page in memory {
            let expected = (0..2 * heads as u8).flat_map(|n| [n + 1; 3]);
            assert!(page.into_iter().eq(expected));
        }
    }
}
