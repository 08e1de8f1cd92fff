//! The board as loom sees it: run through every order of events that weak memory allows, up to three preemptions.
//!
//! `board.rs` is compiled a second time, with loom's types in place of the standard library's. A helper is a thread a
//! visit, so one may arrive while its last visit has not ended, which a pool does not do: the model allows more.

use std::{cell::Cell, sync::Arc};

use board::Board;
use loom::{
    model::Builder,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread::{JoinHandle, spawn},
};

use crate::exec::team::job::{self, Job};

#[path = "../board.rs"]
#[allow(clippy::duplicate_mod, reason = "the point of this file")]
mod board;

mod sync {
    use std::{sync::PoisonError, time::Duration};

    pub(super) use loom::sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, fence},
    };

    /// Not loom's: every order of events around a hint would be many times as many.
    pub(super) type Hint = std::sync::atomic::AtomicUsize;

    /// As little patience as can be: one look. More looks are more of the same.
    pub(super) fn spin_until(_: Duration, mut ready: impl FnMut() -> bool) -> bool {
        ready()
    }

    pub(super) fn yield_until(_: impl FnMut() -> bool) -> bool {
        false
    }

    pub(super) struct Start;

    impl Start {
        pub(super) fn now() -> Self {
            Self
        }

        pub(super) fn is_within(&self, _: Duration) -> bool {
            false
        }
    }

    pub(super) struct Stint;

    impl Stint {
        pub(super) fn new() -> Self {
            Self
        }

        pub(super) fn offer(&mut self) {}
    }

    pub(super) fn sleep<'a, T>(bell: &Condvar, guard: MutexGuard<'a, T>, _: Duration) -> (MutexGuard<'a, T>, bool) {
        if super::SLEEPERS_STAY.get() {
            (bell.wait(guard).unwrap_or_else(PoisonError::into_inner), false)
        } else {
            (guard, true)
        }
    }
}

thread_local! {
    /// Whether a helper that sleeps does so until it is woken, or goes back to its pool at once. Loom runs all threads
    /// of a model on one.
    static SLEEPERS_STAY: Cell<bool> = const { Cell::new(true) };
}

/// Runs one step of `units` and checks that each ran once, on this thread or on a helper of `board`.
fn step(board: &Arc<Board>, units: usize, visits: &mut Vec<JoinHandle<()>>) {
    let seen: Vec<AtomicUsize> = (0..units).map(|_| AtomicUsize::new(0)).collect();
    let body = |range: std::ops::Range<usize>| {
        // Not `fetch_add`, which would see the newest value whatever the order of events.
        range.for_each(|unit| seen[unit].store(seen[unit].load(Relaxed) + 1, Relaxed));
        Ok(())
    };
    let job = Job::new(units, (1, 1), &body);
    let posted = board.run(&job, |shift| {
        for index in 0..board.helpers() {
            let board = Arc::clone(board);
            visits.push(spawn(move || board.help(shift, index)));
        }
    });
    if !posted {
        job.run_alone();
    }
    job.finish().expect("no failure");
    // An older value than the last store is what loom would show if nothing ordered the store before this.
    assert!(seen.iter().all(|count| count.load(Relaxed) == 1));
}

fn explore(sleepers_stay: bool, model: impl Fn() + Sync + Send + 'static) {
    SLEEPERS_STAY.set(sleepers_stay);
    let mut builder = Builder::new();
    // `LOOM_MAX_PREEMPTIONS=3` takes minutes instead of seconds.
    builder.preemption_bound.get_or_insert(2);
    builder.check(model);
}

fn steps(board: Arc<Board>, units: &[usize]) {
    let mut visits = Vec::new();
    for &units in units {
        step(&board, units, &mut visits);
    }
    board.close();
    for visit in visits {
        visit.join().expect("no panic");
    }
}

#[test]
fn steps_follow_each_other_with_one_helper() {
    for stay in [true, false] {
        explore(stay, || steps(Arc::new(Board::new(1, 2)), &[2, 2]));
    }
}

#[test]
fn two_helpers_share_a_step() {
    explore(true, || steps(Arc::new(Board::new(2, 2)), &[3]));
}

#[test]
fn two_callers_with_one_helper() {
    for stay in [true, false] {
        explore(stay, || {
            let board = Arc::new(Board::new(1, 2));
            let other = Arc::clone(&board);
            let caller = spawn(move || {
                let mut visits = Vec::new();
                step(&other, 2, &mut visits);
                visits
            });
            let mut visits = Vec::new();
            step(&board, 2, &mut visits);
            visits.extend(caller.join().expect("no panic"));
            board.close();
            for visit in visits {
                visit.join().expect("no panic");
            }
        });
    }
}
