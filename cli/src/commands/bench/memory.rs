//! How much memory this process takes: the kernel's own accounts, looked at again and again while something runs.
//!
//! Pages of the mapped model are shared and can be dropped at any time; what a program really costs is its anonymous
//! memory. So the two are told apart, as `/proc/self/status` does. Elsewhere nothing is known.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(5);

/// Largest sizes seen, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(super) struct Memory {
    /// Memory of the process's own.
    pub(super) anonymous_bytes: u64,
    /// Pages of files, first of all the model.
    pub(super) mapped_bytes: u64,
    /// Both together at their largest, by the kernel's count.
    pub(super) resident_bytes: u64,
}

impl Memory {
    /// What the process takes now (and, for all of it, has taken at most).
    pub(super) fn now() -> Option<Self> {
        parse(&fs::read_to_string("/proc/self/status").ok()?)
    }

    fn max(self, other: Self) -> Self {
        Self {
            anonymous_bytes: self.anonymous_bytes.max(other.anonymous_bytes),
            mapped_bytes: self.mapped_bytes.max(other.mapped_bytes),
            resident_bytes: self.resident_bytes.max(other.resident_bytes),
        }
    }
}

/// Reads the lines `VmHWM`, `RssAnon` and `RssFile`, which are in KiB.
fn parse(status: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(Memory {
        anonymous_bytes: bytes("RssAnon")?,
        mapped_bytes: bytes("RssFile")?,
        resident_bytes: bytes("VmHWM")?,
    })
}

/// A thread that keeps looking.
pub(super) struct Watch {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Option<Memory>>,
}

impl Watch {
    /// Begins.
    pub(super) fn start() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let thread = thread::spawn(move || {
            let mut peak = Memory::now()?;
            while !seen.load(Ordering::Relaxed) {
                thread::sleep(INTERVAL);
                peak = peak.max(Memory::now()?);
            }
            Some(peak)
        });
        Self { over, thread }
    }

    /// The largest sizes since [`Watch::start`].
    pub(super) fn finish(self) -> Option<Memory> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_read_in_bytes() {
        let status = "Name:\thalfbyte\nVmHWM:\t    300 kB\nVmRSS:\t 250 kB\nRssAnon:\t     2 kB\nRssFile:\t   100 kB\n";
        let expected = Memory { anonymous_bytes: 2048, mapped_bytes: 102_400, resident_bytes: 307_200 };
        assert_eq!(parse(status), Some(expected));
        assert_eq!(parse("RssAnon:\t 1 kB\n"), None, "not all of it");
    }
}
