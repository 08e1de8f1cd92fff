//! A team of threads that splits one step at a time; the only `unsafe` of this crate.
//!
//! The caller takes part in every step and can finish it alone: workers are helpers that may arrive late, or never.
//! A step is a number of chunks; whoever is free takes the next one from a counter. When the counter is used up the
//! caller closes the step and waits only for helpers that are inside it. A caller that finds the team busy with
//! another session's step does its own step alone. Nothing here allocates after [`Team::new`].

#![expect(unsafe_code, reason = "scoped access to borrowed data from persistent threads; each block has its proof")]

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use halfbyte_kernels::KernelError;

use super::split::Split;
use crate::RuntimeError;

/// What a part of a step gives back.
type Done = Result<(), KernelError>;

/// Chunks per thread of a split matrix product: small enough that a thread which lost its core costs little.
const CHUNKS_PER_THREAD: usize = 4;
/// A matrix chunk has at least this many rows; below it, taking chunks costs more than it wins.
const MIN_ROWS: usize = 16;
/// How often a helper looks for the next step before it sleeps; steps of one pass follow each other within this.
const SPINS: u32 = 4000;

/// One step, living on the caller's stack while it runs.
struct Job<'a> {
    body: &'a (dyn Fn(usize) + Sync),
    next: AtomicUsize,
    chunks: usize,
    panicked: AtomicBool,
}

impl Job<'_> {
    fn work(&self) {
        loop {
            let chunk = self.next.fetch_add(1, Ordering::Relaxed);
            if chunk >= self.chunks {
                return;
            }
            if catch_unwind(AssertUnwindSafe(|| (self.body)(chunk))).is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// Address of the job being offered to helpers.
struct Offer(*const Job<'static>);

// SAFETY: an `Offer` is only dereferenced between `inside += 1` (while the offer is open) and `inside -= 1`; the
// caller keeps the job alive until it has withdrawn the offer and seen `inside == 0`. `Job` itself is `Sync`.
unsafe impl Send for Offer {}

#[derive(Default)]
struct State {
    offer: Option<Offer>,
    inside: usize,
    shutdown: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Counts offers; lets a helper spin without taking the lock.
    offers: AtomicU64,
    offered: Condvar,
    left: Condvar,
}

impl Shared {
    /// No code that can panic runs under this lock, so a poisoned state is still consistent.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn help(&self) {
        let mut seen = 0;
        loop {
            for _ in 0..SPINS {
                if self.offers.load(Ordering::Acquire) != seen {
                    break;
                }
                std::hint::spin_loop();
            }
            let mut state = self.lock();
            let job = loop {
                if state.shutdown {
                    return;
                }
                let offers = self.offers.load(Ordering::Acquire);
                match &state.offer {
                    Some(offer) if offers != seen => {
                        seen = offers;
                        break offer.0;
                    }
                    // The step was closed before this helper came: wait for the next one.
                    _ => seen = offers,
                }
                state = self.offered.wait(state).unwrap_or_else(PoisonError::into_inner);
            };
            state.inside += 1;
            drop(state);
            // SAFETY: the offer was open under the lock when `inside` was raised, so the caller waits for this
            // helper before its job dies (see `Team::run`).
            unsafe { &*job }.work();
            let mut state = self.lock();
            state.inside -= 1;
            if state.inside == 0 {
                self.left.notify_all();
            }
        }
    }
}

/// Threads that run steps together; shared by all sessions of a model.
pub(crate) struct Team {
    shared: Arc<Shared>,
    /// Held by the session whose step the helpers serve.
    caller: Mutex<()>,
    helpers: Vec<JoinHandle<()>>,
}

impl Team {
    /// A team of `threads`, the caller of a step included.
    pub(crate) fn new(threads: usize) -> Result<Self, RuntimeError> {
        let mut team = Self { shared: Arc::default(), caller: Mutex::new(()), helpers: Vec::new() };
        for index in 1..threads {
            let shared = Arc::clone(&team.shared);
            let helper = std::thread::Builder::new()
                .name(format!("halfbyte-{index}"))
                .spawn(move || shared.help())
                .map_err(RuntimeError::Thread)?;
            team.helpers.push(helper);
        }
        Ok(team)
    }

    /// Threads that take part in a step, the caller included.
    pub(crate) fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Calls `body` once for each chunk in `0..chunks`, from several threads.
    fn run_chunks(&self, chunks: usize, body: &(dyn Fn(usize) + Sync)) -> Result<(), RuntimeError> {
        let job = Job { body, next: AtomicUsize::new(0), chunks, panicked: AtomicBool::new(false) };
        let turn = match self.caller.try_lock() {
            Ok(turn) => Some(turn),
            Err(TryLockError::Poisoned(turn)) => Some(turn.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        if turn.is_none() || chunks < 2 || self.helpers.is_empty() {
            job.work();
        } else {
            // The lifetime is erased for the helpers; it is the withdrawal below that makes this sound.
            let offer = Offer((&raw const job).cast());
            {
                let mut state = self.shared.lock();
                state.offer = Some(offer);
                self.shared.offers.fetch_add(1, Ordering::Release);
            }
            self.shared.offered.notify_all();
            job.work();
            let mut state = self.shared.lock();
            state.offer = None;
            while state.inside > 0 {
                state = self.shared.left.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        if job.panicked.into_inner() { Err(RuntimeError::WorkerPanicked) } else { Ok(()) }
    }

    /// As [`Team::run`] for a body that can fail; the first failure is reported.
    fn try_run(&self, chunks: usize, body: &(dyn Fn(usize) -> Done + Sync)) -> Result<(), RuntimeError> {
        let failure = Mutex::new(None);
        self.run_chunks(chunks, &|chunk| {
            if let Err(error) = body(chunk) {
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        })?;
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// Calls `body` with ranges of `0..units` and their parts of `split`; `work` is that of a unit, in multiplications.
    pub(crate) fn run<S: Split>(
        &self,
        units: usize,
        work: usize,
        split: S,
        body: impl Fn(Range<usize>, S::Part) -> Done + Sync,
    ) -> Result<(), RuntimeError> {
        let _ = work;
        let step = units.div_ceil(self.threads() * CHUNKS_PER_THREAD).max(1);
        self.try_run(units.div_ceil(step), &|chunk| {
            let range = chunk * step..((chunk + 1) * step).min(units);
            // SAFETY: every chunk has a range of its own and is run once.
            body(range.clone(), unsafe { split.part(range) })
        })
    }

    /// As [`Team::run`], one unit at a time.
    pub(crate) fn each<S: Split>(
        &self,
        units: usize,
        work: usize,
        split: S,
        body: impl Fn(usize, S::Part) -> Done + Sync,
    ) -> Result<(), RuntimeError> {
        let _ = work;
        self.try_run(units, &|unit| {
            // SAFETY: every unit is run once.
            body(unit, unsafe { split.part(unit..unit + 1) })
        })
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.lock().shutdown = true;
        self.shared.offers.fetch_add(1, Ordering::Release);
        self.shared.offered.notify_all();
        for helper in self.helpers.drain(..) {
            // A helper that panicked outside a job has nothing left to tell.
            let _ = helper.join();
        }
    }
}
