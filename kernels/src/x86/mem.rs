//! What all tiers ask of the caches.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

/// Bytes of a cache line.
const LINE: usize = 64;

/// Asks for the lines of `len` bytes at an address, any address, to be brought into the first cache.
pub(super) fn prefetch(at: *const u8, len: usize) {
    let inside = at.addr() % LINE;
    for offset in (0..inside + len).step_by(LINE) {
        let line = at.wrapping_sub(inside).wrapping_add(offset);
        // SAFETY: a hint; it does not fault, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
    }
}
