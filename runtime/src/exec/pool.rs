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

use halfbyte_kernels::{KernelError, Tile};

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
    fn run(&self, chunks: usize, body: &(dyn Fn(usize) + Sync)) -> Result<(), RuntimeError> {
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
        self.run(chunks, &|chunk| {
            if let Err(error) = body(chunk) {
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        })?;
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// Splits `out: (tokens, rows)` by rows; `body` fills the tile `(tokens, range.len())` of each range.
    pub(crate) fn rows(
        &self,
        out: &mut [f32],
        rows: usize,
        body: &(dyn Fn(Range<usize>, &mut Tile<'_>) -> Done + Sync),
    ) -> Result<(), RuntimeError> {
        let tokens = out.len().checked_div(rows).unwrap_or(0);
        let step = rows.div_ceil(self.threads() * CHUNKS_PER_THREAD).max(MIN_ROWS);
        let base = Base(out.as_mut_ptr());
        self.try_run(rows.div_ceil(step), &|chunk| {
            let range = chunk * step..((chunk + 1) * step).min(rows);
            // SAFETY: `range.start < rows`, so the pointer stays inside `out`, which has `tokens * rows` elements.
            let first = unsafe { base.pointer().add(range.start) };
            // SAFETY: the tile covers columns `range` of the `tokens` rows of `out`, `rows` apart; every chunk has
            // a range of its own and is run once, and `out` is borrowed mutably until all chunks are done.
            let mut tile = unsafe { Tile::from_raw(first, tokens, range.len(), rows) };
            body(range, &mut tile)
        })
    }

    /// Splits `out` into runs of `len` (the last may be shorter); `body` fills each.
    pub(crate) fn chunks(
        &self,
        out: &mut [f32],
        len: usize,
        body: &(dyn Fn(usize, &mut [f32]) -> Done + Sync),
    ) -> Result<(), RuntimeError> {
        let total = out.len();
        let len = len.max(1);
        let base = Base(out.as_mut_ptr());
        self.try_run(total.div_ceil(len), &|chunk| {
            let start = chunk * len;
            // SAFETY: `start < total`, because `chunk < total.div_ceil(len)`.
            let first = unsafe { base.pointer().add(start) };
            // SAFETY: the run lies inside `out`, no other chunk touches it, and `out` is borrowed mutably until all
            // chunks are done.
            let run = unsafe { std::slice::from_raw_parts_mut(first, len.min(total - start)) };
            body(chunk, run)
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

/// Start of a buffer that threads write to in disjoint parts.
struct Base(*mut f32);

impl Base {
    fn pointer(&self) -> *mut f32 {
        self.0
    }
}

// SAFETY: the pointer is only used to form disjoint slices of a buffer that is borrowed mutably for as long.
unsafe impl Sync for Base {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_computed_once_for_any_team() {
        for threads in [1, 2, 5] {
            let team = Team::new(threads).expect("threads");
            for (tokens, rows) in [(1, 1), (1, 15), (3, 16), (2, 17), (1, 1000), (7, 333)] {
                let mut out = vec![0.0; tokens * rows];
                team.rows(&mut out, rows, &|range, tile| {
                    for token in 0..tile.tokens() {
                        for (slot, row) in tile.row_mut(token).iter_mut().zip(range.clone()) {
                            *slot += (token * rows + row) as f32;
                        }
                    }
                    Ok(())
                })
                .expect("no failure");
                assert!(out.iter().enumerate().all(|(i, &v)| v == i as f32), "{threads} {tokens} {rows}");
            }
        }
    }

    #[test]
    fn sessions_on_one_team_do_not_wait_for_each_other() {
        let team = Arc::new(Team::new(2).expect("threads"));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..500_usize {
                        let mut out = vec![0.0; 100 + round % 7];
                        team.chunks(&mut out, 8, &|i, run| {
                            run.iter_mut().for_each(|v| *v += i as f32);
                            Ok(())
                        })
                        .expect("no failure");
                        assert!(out.iter().enumerate().all(|(i, &v)| v == (i / 8) as f32));
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_in_a_chunk_is_an_error_and_the_team_lives_on() {
        let team = Team::new(2).expect("threads");
        let mut out = vec![0.0; 64];
        let failed = team.chunks(&mut out, 1, &|i, _| if i == 40 { panic!("on purpose") } else { Ok(()) });
        assert!(matches!(failed, Err(RuntimeError::WorkerPanicked)));
        team.chunks(&mut out, 1, &|_, run| {
            run.fill(1.0);
            Ok(())
        })
        .expect("no failure");
        assert!(out.iter().all(|&v| v == 1.0));
    }
}
