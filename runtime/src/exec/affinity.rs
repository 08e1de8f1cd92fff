//! Which processors a thread may run on: asked of the system, and told to it.

#![cfg_attr(
    any(target_os = "linux", target_os = "android"),
    expect(unsafe_code, reason = "system calls that the standard library does not have; each has its proof")
)]

use std::collections::BTreeSet;

/// Lets the calling thread run on `processors` only. Where that cannot be done nothing happens: ask [`allowed`].
pub(super) fn bind(processors: &BTreeSet<usize>) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let mut mask = Mask::default();
        processors.iter().for_each(|&processor| mask.insert(processor));
        // SAFETY: the system reads as many bytes from the mask as it has; 0 is the calling thread.
        let _ = unsafe { libc::sched_setaffinity(0, size_of::<Mask>(), (&raw const mask.0).cast()) };
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = processors;
}

/// Binds the calling thread again if the system has let go of it: before Linux 6.2 it did so to all threads of a process
/// that it moved to another set of processors, as Android does with applications that come to the foreground. What the
/// main thread may not use stays unused: somebody may have bound the whole process since.
pub(super) fn keep(processors: &BTreeSet<usize>) {
    let usable = &of_main_thread() & processors;
    if !usable.is_empty() && allowed() != usable {
        bind(&usable);
    }
}

/// The processors that the calling thread may run on, ascending; empty if the system does not say.
pub(crate) fn allowed() -> BTreeSet<usize> {
    allowed_to(0)
}

fn of_main_thread() -> BTreeSet<usize> {
    allowed_to(std::process::id())
}

/// The processors of a thread of this process, by its id; 0 is the calling one.
fn allowed_to(thread: u32) -> BTreeSet<usize> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let mut mask = Mask::default();
        let Ok(thread) = libc::pid_t::try_from(thread) else { return BTreeSet::new() };
        // SAFETY: the system writes at most as many bytes to the mask as it has.
        let failed = unsafe { libc::sched_getaffinity(thread, size_of::<Mask>(), (&raw mut mask.0).cast()) } < 0;
        if failed { BTreeSet::new() } else { mask.members() }
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = thread;
        BTreeSet::new()
    }
}

/// A bit for each processor, as many as Linux can be built for: larger than `cpu_set_t`, of which systems with more
/// than 1024 processors say that it is too small.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[derive(Clone, Copy)]
struct Mask([libc::c_ulong; Self::WORDS]);

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Mask {
    const BITS: usize = libc::c_ulong::BITS as usize;
    const WORDS: usize = 8192 / Self::BITS;

    /// Processors beyond the last bit are left out.
    fn insert(&mut self, processor: usize) {
        if let Some(word) = self.0.get_mut(processor / Self::BITS) {
            *word |= 1 << (processor % Self::BITS);
        }
    }

    fn members(&self) -> BTreeSet<usize> {
        let bits = 0..Self::BITS * Self::WORDS;
        bits.filter(|bit| self.0[bit / Self::BITS] >> (bit % Self::BITS) & 1 == 1).collect()
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Default for Mask {
    fn default() -> Self {
        Self([0; Self::WORDS])
    }
}

#[cfg(test)]
#[cfg(any(target_os = "linux", target_os = "android"))]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn masks_hold_every_processor() {
        let processors = BTreeSet::from([0, 1, 31, 32, 63, 64, 1023, 1024, 8191]);
        let mut mask = Mask::default();
        processors.iter().for_each(|&processor| mask.insert(processor));
        mask.insert(8192);
        assert_eq!(mask.members(), processors);
    }

    #[test]
    fn a_thread_runs_where_it_was_bound() {
        let all = allowed();
        for &processor in &all {
            let one = BTreeSet::from([processor]);
            let read_back = thread::spawn(move || {
                bind(&one);
                (one, allowed())
            });
            let (one, read_back) = read_back.join().expect("no panic");
            assert_eq!(one, read_back);
        }
        // Let go, a thread is bound again.
        let (one, both) = (all.clone().into_iter().take(1).collect(), all.clone());
        let again = move || {
            bind(&both);
            keep(&one);
            (one, allowed())
        };
        let (one, read_back) = thread::spawn(again).join().expect("no panic");
        assert_eq!(one, read_back);
        // What cannot be is not done, and other threads are not concerned.
        bind(&BTreeSet::from([8191]));
        assert_eq!(allowed(), all);
        assert!(!all.is_empty());
    }
}
