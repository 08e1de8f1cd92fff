//! The next page, asked for while the present one is multiplied: pages lie apart, so a CPU does not guess where it is.

use crate::simd::Simd;

/// Bytes that a CPU fetches at a time, on those that fetch least.
const CACHE_LINE: usize = 64;

/// What is read next, asked for in shares between which there is work: a CPU has but so many requests under way.
pub(super) struct Ahead<'a, S> {
    s: S,
    next: &'a [u8],
    /// Bytes a step.
    share: usize,
}

impl<'a, S: Simd> Ahead<'a, S> {
    /// For so many steps.
    #[inline(always)]
    pub(super) fn new(s: S, next: &'a [u8], steps: usize) -> Self {
        Self { s, next, share: next.len().div_ceil(steps).next_multiple_of(CACHE_LINE) }
    }

    #[inline(always)]
    pub(super) fn ask(&mut self) {
        let (now, later) = self.next.split_at(self.share.min(self.next.len()));
        now.chunks(CACHE_LINE).for_each(|line| self.s.prefetch(line.as_ptr()));
        self.next = later;
    }
}
