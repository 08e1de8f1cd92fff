//! Memory beside which nothing may be touched: reading or writing past it kills the test.

use std::ops::{Deref, DerefMut};
use std::{ptr, slice};

/// On which side of the data the page lies that cannot be touched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Side {
    Before,
    After,
}

/// A copy of some numbers that begins right after such a page, or ends right before one.
pub(super) struct Guarded<T> {
    map: *mut libc::c_void,
    mapped: usize,
    data: *mut T,
    len: usize,
}

// SAFETY: the only owner of its mapping, like a `Vec<T>`.
unsafe impl<T: Send> Send for Guarded<T> {}
// SAFETY: shared references only read, like those of a `Vec<T>`.
unsafe impl<T: Sync> Sync for Guarded<T> {}

impl<T: Copy> Guarded<T> {
    /// `T` is a number: no padding, an alignment of at most 16.
    pub(super) fn new(data: &[T], side: Side) -> Self {
        // SAFETY: asks for a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let page = usize::try_from(page).expect("a page size");
        let inside = size_of_val(data).next_multiple_of(page).max(page);
        let mapped = inside + 2 * page;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping anywhere; it has no access rights yet.
        let map = unsafe { libc::mmap(ptr::null_mut(), mapped, libc::PROT_NONE, flags, -1, 0) };
        assert_ne!(map, libc::MAP_FAILED);
        // SAFETY: one page into a mapping of more than two.
        let first = unsafe { map.cast::<u8>().add(page) };
        // SAFETY: the pages between the first and the last one of the new mapping.
        let allowed = unsafe { libc::mprotect(first.cast(), inside, libc::PROT_READ | libc::PROT_WRITE) };
        assert_eq!(allowed, 0);
        let skip = if side == Side::After { inside - size_of_val(data) } else { 0 };
        // SAFETY: `skip + size_of_val(data) <= inside`.
        let start: *mut T = unsafe { first.add(skip) }.cast();
        assert!(start.is_aligned());
        // SAFETY: both hold `data.len()` numbers; the mapping is new, so they do not overlap.
        unsafe { ptr::copy_nonoverlapping(data.as_ptr(), start, data.len()) };
        Self { map, mapped, data: start, len: data.len() }
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; nothing borrows from it any more.
        let unmapped = unsafe { libc::munmap(self.map, self.mapped) };
        assert_eq!(unmapped, 0);
    }
}

impl<T> Deref for Guarded<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: initialised in `new`, and ours.
        unsafe { slice::from_raw_parts(self.data, self.len) }
    }
}

impl<T> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: initialised in `new`, ours, and uniquely borrowed.
        unsafe { slice::from_raw_parts_mut(self.data, self.len) }
    }
}

impl<T> AsRef<[T]> for Guarded<T> {
    fn as_ref(&self) -> &[T] {
        self
    }
}
