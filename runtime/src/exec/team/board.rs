//! The board: where a step is posted, who takes units of it, and how its end is noticed.
//!
//! One step at a time is on the board. It is a number of units; whoever is free takes some of them, runs them and
//! crosses them off. All of it is carried by
//!
//! - a [`Span`] for each thread: units nobody has taken. A thread takes from the front of its own, so that what it
//!   reads lies in a row and its cache finds the same units there in the next pass, then from the back of others'.
//!   Taking is a compare-and-swap, so units are never taken twice, and a helper that comes late finds nothing and
//!   touches nothing;
//! - `undone`: units not crossed off yet. At 0 the step is over. The caller waits for this, not for threads: a helper
//!   that lost its core before it took anything costs nothing.
//!
//! The job lies on the caller's stack. Only who has taken units may look at it, and only until it crosses them off;
//! as the caller stays until all are crossed off, the job outlives every look.
//!
//! Helpers come in **shifts**: a shift is one broadcast to the threads of a pool. Within a shift a helper spins for the
//! next step, then yields, then sleeps where the caller can wake it without allocating; left alone for
//! [`SHIFT`] it goes back to the pool. A new shift is called when helpers are missing, but not before all have come
//! to the one before: a helper owes the pool one visit at most, however long it is kept from running.
//!
//! Nothing here waits for a thread to arrive. The caller, alone, finishes every step.

use std::{
    ops::Range,
    sync::{PoisonError, TryLockError, atomic::Ordering},
    time::Duration,
};

use super::{
    job::Job,
    sync::{
        AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Condvar, Hint, Mutex, MutexGuard, Start, Stint, fence, sleep,
        spin_until, yield_until,
    },
};

/// How long a helper spins for the next step: longer than the serial work between two steps of a pass.
const LINGER: Duration = Duration::from_micros(50);
/// How long a helper sleeps before it goes back to the pool.
const SHIFT: Duration = Duration::from_secs(1);
/// Bounds of the time that a caller spins for units taken by others: the most is what the last units of a step take
/// on a helper that is running, the least lets a team that was disturbed find out that it no longer is.
const PATIENCE: Range<Duration> = Duration::from_micros(1)..Duration::from_micros(20);

/// A value on cache lines of its own: two of 64 bytes, as processors fetch them in pairs, or one of 128.
#[repr(align(128))]
#[derive(Default)]
struct Padded<T>(T);

/// Units `start..end`, in one word.
#[derive(Clone, Copy)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn unpack(word: u64) -> Self {
        Self { start: word as u32, end: (word >> 32) as u32 }
    }

    fn pack(self) -> u64 {
        u64::from(self.end) << 32 | u64::from(self.start)
    }
}

/// The step that helpers may take part in, but for its units. On one line, because who looks at one needs all.
#[derive(Default)]
struct Post {
    job: AtomicPtr<Job<'static>>,
    min: Hint,
    max: Hint,
    /// Counts the steps: what helpers look at while they wait for the next one.
    steps: Hint,
}

/// Where the helpers are, under one lock; looked at when somebody sleeps or is missing, not for each step.
#[derive(Default)]
struct Crew {
    /// Helpers of this shift that sleep.
    asleep: usize,
    /// Counts the times they were woken, so that a sleeper knows that it was.
    woken: usize,
    /// Helpers that went back to the pool, or never left it.
    gone: usize,
    /// Helpers that were called to this shift and have not come yet.
    due: usize,
}

/// See the head of this file.
#[derive(Default)]
pub(super) struct Board {
    post: Padded<Post>,
    /// What is left of the step, by thread; the caller's first.
    left: Box<[Padded<AtomicU64>]>,
    /// A chunk is 1 / `part` of the span it is taken from.
    part: u32,
    undone: Padded<AtomicUsize>,
    /// Helpers that would come if they were called: what the caller looks at before each step.
    callable: Padded<AtomicUsize>,
    /// Number of the shift; helpers of another one leave.
    shift: AtomicUsize,
    /// Held by the caller of the step on the board.
    turn: Mutex<()>,
    /// For how long that caller spins at the end of a step, in ns.
    patience: Hint,
    /// Whether that caller sleeps, or is about to.
    waiting: AtomicBool,
    crew: Mutex<Crew>,
    /// Wakes helpers.
    work: Condvar,
    /// Wakes the caller.
    over: Condvar,
}

impl Board {
    /// A board for a caller and `helpers`, all of which are still in their pool; `part` is not 0.
    pub(super) fn new(helpers: usize, part: u32) -> Self {
        let left = (0..=helpers).map(|_| Padded::default()).collect();
        let board = Self { left, part, ..Self::default() };
        board.patience.store(nanos(PATIENCE.end), Ordering::Relaxed);
        let mut crew = board.lock();
        crew.gone = helpers;
        board.count(&crew);
        drop(crew);
        board
    }

    /// Helpers there are, wherever they may be.
    pub(super) fn helpers(&self) -> usize {
        self.left.len() - 1
    }

    /// Runs all units of `job` on this thread and whatever helpers come; false, and nothing done, if another caller's
    /// step is on the board or a `u32` cannot count the units. `call` brings the pool's threads to [`help`](Self::help)
    /// with the shift it is given.
    pub(super) fn run(&self, job: &Job<'_>, call: impl FnOnce(usize)) -> bool {
        let Ok(units) = u32::try_from(job.units()) else { return false };
        let _turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        // Before the step is posted: from there to its end nothing may unwind, and `call` is not ours. A helper that
        // falls asleep in between misses this step and is called for the next.
        if self.callable.0.load(Ordering::Relaxed) > 0 {
            self.call().map(call);
        }
        // SAFETY: this returns when all units are crossed off.
        unsafe { self.post(job, units) };
        self.work(0, || ());
        self.wait();
        true
    }

    /// Puts `job` on the board.
    ///
    /// # Safety
    /// It lives until its units are crossed off, if they ever are run.
    pub(super) unsafe fn post(&self, job: &Job<'_>, units: u32) {
        let Post { job: place, min, max, steps } = &self.post.0;
        self.undone.0.store(job.units(), Ordering::Relaxed);
        place.store((&raw const *job).cast_mut().cast(), Ordering::Relaxed);
        min.store(job.chunk().0, Ordering::Relaxed);
        max.store(job.chunk().1, Ordering::Relaxed);
        let threads = self.left.len() as u64;
        let cut = |thread: u64| (u64::from(units) * thread / threads) as u32;
        for (thread, left) in (0..).zip(&self.left) {
            let span = Span { start: cut(thread), end: cut(thread + 1) };
            // Release: who takes units sees the four stores above, and whatever the caller wrote before.
            left.0.store(span.pack(), Ordering::Release);
        }
        // Release: who sees the new number finds units. Nothing but time depends on it: who does not misses a step.
        steps.fetch_add(1, Ordering::Release);
    }

    /// What thread `index` of the pool does in `shift`.
    pub(super) fn help(&self, shift: usize, index: usize) {
        let mut crew = self.lock();
        crew.due -= 1;
        self.count(&crew);
        drop(crew);
        let open = || self.shift.load(Ordering::Relaxed) == shift;
        let steps = || self.post.0.steps.load(Ordering::Acquire);
        let mut stint = Stint::new();
        while open() {
            let seen = steps();
            // A helper that loses its core with units in hand makes all wait. If another process wants the core, it had
            // better have it now.
            self.work(index + 1, || stint.offer());
            let called = || steps() != seen || !open();
            if !spin_until(LINGER, called) && !yield_until(called) && !self.nap(shift) {
                return;
            }
        }
    }

    /// Sends all helpers away for good.
    pub(super) fn close(&self) {
        let mut crew = self.lock();
        self.wake(&mut crew);
        self.shift.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes units and runs them as `thread`, until none are left; `before` each time.
    fn work(&self, thread: usize, mut before: impl FnMut()) {
        loop {
            before();
            let Some(units) = self.take(thread) else { return };
            let taken = units.len();
            // SAFETY: `taken > 0` units of the posted step are this thread's, so `undone > 0` and the caller is still
            // in `run`, to which it lent the job: the pointer is valid until they are crossed off below. It is the
            // pointer of that step: the swap that took the units acquired what `run` stored before it posted, and no
            // other step is posted before this one is over. A job is only ever shared, and is `Sync`.
            let job = unsafe { &*self.post.0.job.load(Ordering::Relaxed) };
            job.run(units);
            // Release: the caller sees what the units wrote. From here on the job may be gone.
            if self.undone.0.fetch_sub(taken, Ordering::AcqRel) == taken {
                // Either this fence or the one in `wait` comes first: the caller sees 0, or this thread sees it wait.
                fence(Ordering::SeqCst);
                if self.waiting.load(Ordering::Relaxed) {
                    // With the lock the caller is asleep, not between its last look and its sleep.
                    let _crew = self.lock();
                    self.over.notify_one();
                }
            }
        }
    }

    /// Takes units of the posted step: of those meant for `thread`, or else of the next one who has some.
    pub(super) fn take(&self, thread: usize) -> Option<Range<usize>> {
        let Post { min, max, .. } = &self.post.0;
        let (before, from) = self.left.split_at_checked(thread)?;
        for (i, left) in from.iter().chain(before).enumerate() {
            // Acquire, so that the bounds are those of the step that the span is of.
            let mut word = left.0.load(Ordering::Acquire);
            while let span = Span::unpack(word)
                && span.start < span.end
            {
                // A part of what is left: chunks shrink as the end comes near, so that threads finish together. If that
                // step ends here and the next comes to the same span, its chunk has another size, nothing worse.
                let len = span.end - span.start;
                let bound = |n: &Hint| u32::try_from(n.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
                let taken = (len / self.part).max(bound(min)).min(bound(max)).clamp(1, len);
                let (rest, units) = if i == 0 {
                    let middle = span.start + taken;
                    (Span { start: middle, ..span }, span.start..middle)
                } else {
                    let middle = span.end - taken;
                    (Span { end: middle, ..span }, middle..span.end)
                };
                match left.0.compare_exchange_weak(word, rest.pack(), Ordering::Acquire, Ordering::Acquire) {
                    Ok(_) => return Some(units.start as usize..units.end as usize),
                    Err(now) => word = now,
                }
            }
        }
        None
    }

    /// Waits until all units are crossed off.
    fn wait(&self) {
        let over = || self.undone.0.load(Ordering::Acquire) == 0;
        let patience = self.patience.load(Ordering::Relaxed);
        let grow = || self.patience.store((patience * 2).min(nanos(PATIENCE.end)), Ordering::Relaxed);
        if spin_until(Duration::from_nanos(patience as u64), over) {
            return grow();
        }
        let start = Start::now();
        let yielded = yield_until(over);
        if yielded && start.is_within(PATIENCE.end) {
            // All were running, and this one might as well have spun.
            return grow();
        }
        // A helper has units and has most likely lost its core. While this thread spins, that core stays lost.
        self.patience.store((patience / 4).max(nanos(PATIENCE.start)), Ordering::Relaxed);
        if yielded {
            return;
        }
        let mut crew = self.lock();
        self.waiting.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        while !over() {
            crew = self.over.wait(crew).unwrap_or_else(PoisonError::into_inner);
        }
        self.waiting.store(false, Ordering::Relaxed);
    }

    /// Sleeps until woken; false if it is time to go back to the pool.
    fn nap(&self, shift: usize) -> bool {
        let mut crew = self.lock();
        if self.shift.load(Ordering::Relaxed) != shift {
            // It was closed after the last look, and whoever closed it has already rung.
            return true;
        }
        crew.asleep += 1;
        self.count(&crew);
        let woken = crew.woken;
        loop {
            let late;
            (crew, late) = sleep(&self.work, crew, SHIFT);
            if crew.woken != woken {
                return true;
            }
            if late {
                crew.asleep -= 1;
                crew.gone += 1;
                self.count(&crew);
                return false;
            }
        }
    }

    /// Wakes who sleeps; a shift's number if one must be called.
    fn call(&self) -> Option<usize> {
        let mut crew = self.lock();
        self.wake(&mut crew);
        let new = crew.gone > 0 && crew.due == 0;
        if new {
            // Those still here leave on seeing the new number, and come again like the others.
            (crew.due, crew.gone) = (self.helpers(), 0);
            self.shift.fetch_add(1, Ordering::Relaxed);
        }
        self.count(&crew);
        new.then(|| self.shift.load(Ordering::Relaxed))
    }

    fn wake(&self, crew: &mut Crew) {
        crew.asleep = 0;
        crew.woken = crew.woken.wrapping_add(1);
        self.work.notify_all();
    }

    /// To be called after each change of `crew`.
    fn count(&self, crew: &Crew) {
        let gone = if crew.due == 0 { crew.gone } else { 0 };
        self.callable.0.store(crew.asleep + gone, Ordering::Relaxed);
    }

    /// No code that can panic runs under this lock, so a poisoned crew is still consistent.
    fn lock(&self) -> MutexGuard<'_, Crew> {
        self.crew.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As atomics hold it.
fn nanos(time: Duration) -> usize {
    usize::try_from(time.as_nanos()).unwrap_or(usize::MAX)
}
