//! Locks of files that nobody waits for; also on Android, for which the standard library has none (as of Rust 1.95).

#![cfg_attr(
    target_os = "android",
    expect(unsafe_code, reason = "a system call that the standard library does not make there; it has its proof")
)]

use std::{fs::File, io};

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// Nobody else.
    Alone,
    /// Others who share it, too.
    Shared,
}

/// Locks `file` until it is closed.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] if another holds the lock; what the system says.
#[cfg(not(target_os = "android"))]
pub(super) fn try_lock(file: &File, holder: Holder) -> io::Result<()> {
    let locked = match holder {
        Holder::Alone => file.try_lock(),
        Holder::Shared => file.try_lock_shared(),
    };
    Ok(locked?)
}

/// Locks `file` until it is closed.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] if another holds the lock; what the system says.
#[cfg(target_os = "android")]
pub(super) fn try_lock(file: &File, holder: Holder) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let operation = match holder {
        Holder::Alone => libc::LOCK_EX,
        Holder::Shared => libc::LOCK_SH,
    };
    // SAFETY: numbers only; `file` is open.
    if unsafe { libc::flock(file.as_raw_fd(), operation | libc::LOCK_NB) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
