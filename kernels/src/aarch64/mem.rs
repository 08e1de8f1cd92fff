//! What all tiers ask of the caches.

use std::arch::asm;

/// Bytes of a cache line; of some CPUs lines are longer, which then are asked for twice.
const LINE: usize = 64;

/// Asks for the line at an address, any address, to be brought into the first cache.
#[inline(always)]
pub(super) fn ask(at: *const u8) {
    // SAFETY: a hint; it does not fault, whatever the address.
    unsafe { asm!("prfm pldl1keep, [{at}]", at = in(reg) at, options(nostack, preserves_flags, readonly)) };
}

/// The same, and gives the address back: a chain of them may be moved among other instructions, while [`ask`] keeps its
/// place. The end of a chain is to be [`spent`].
#[inline(always)]
pub(super) fn asked(at: *const u8) -> *const u8 {
    let mut address = at.addr();
    // SAFETY: a hint; it does not fault, whatever the address.
    unsafe {
        asm!("prfm pldl1keep, [{at}]", at = inout(reg) address, options(pure, nomem, nostack, preserves_flags));
    }
    at.with_addr(address)
}

/// Uses an address, so that what led to it is not left out.
#[inline(always)]
pub(super) fn spent(at: *const u8) {
    // SAFETY: nothing happens.
    unsafe { asm!("/* {at} */", at = in(reg) at.addr(), options(nomem, nostack, preserves_flags)) };
}

/// Asks for the lines of `len` bytes at an address, any address, to be brought into the first cache.
pub(super) fn prefetch(at: *const u8, len: usize) {
    let inside = at.addr() % LINE;
    for offset in (0..inside + len).step_by(LINE) {
        ask(at.wrapping_sub(inside).wrapping_add(offset));
    }
}
