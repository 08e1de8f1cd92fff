//! Locks of files that nobody waits for; also on Android, for which the standard library has none (as of Rust 1.95).

#![cfg_attr(
    target_os = "android",
    expect(unsafe_code, reason = "a system call that the standard library does not make there; it has its proof")
)]

use std::{fs::File, io};

/// A file that nobody else has locked.
///
/// It is unlocked when this is dropped, not by being closed alone: a process that another thread starts just then has
/// the file as well, until it runs its program, and would hold the lock for as long.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Locks `file`.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if another holds the lock; what the system says.
    pub(super) fn of(file: File) -> io::Result<Self> {
        try_lock(&file).map_err(|error| match error.kind() {
            // What the system says is about this call, not about what the matter is.
            kind @ io::ErrorKind::WouldBlock => io::Error::new(kind, "another program is saving it"),
            _ => error,
        })?;
        Ok(Self(file))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // What cannot be unlocked is when it is closed.
        let _ = unlock(&self.0);
    }
}

#[cfg(not(target_os = "android"))]
fn try_lock(file: &File) -> io::Result<()> {
    Ok(file.try_lock()?)
}

#[cfg(not(target_os = "android"))]
fn unlock(file: &File) -> io::Result<()> {
    file.unlock()
}

#[cfg(target_os = "android")]
fn try_lock(file: &File) -> io::Result<()> {
    flock(file, libc::LOCK_EX | libc::LOCK_NB)
}

#[cfg(target_os = "android")]
fn unlock(file: &File) -> io::Result<()> {
    flock(file, libc::LOCK_UN)
}

#[cfg(target_os = "android")]
fn flock(file: &File, operation: libc::c_int) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    // SAFETY: numbers only; `file` is open.
    if unsafe { libc::flock(file.as_raw_fd(), operation) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
