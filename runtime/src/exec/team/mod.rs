//! A team of threads that splits one step at a time.
//!
//! The caller runs straight-line code, alone with its `&mut`; for each parallel step it calls [`TeamUntil::run`], takes
//! part in it and returns when it is over. Its helpers are the threads of a private rayon pool. Between the steps of a
//! pass they spin, so that a step costs no system call; they may come late, or never: the caller can finish every step
//! alone. How that works is told in `board.rs`, how outputs are cut in `../split/`.
//!
//! A caller that finds the team busy with another session's step does its own step alone. Steps allocate nothing; a
//! call to the pool does, once a second at most.

#![expect(
    unsafe_code,
    reason = "borrowed data on persistent threads, disjoint parts of one buffer; each has its proof"
)]

mod board;
mod job;
mod sync;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    io,
    ops::Range,
    sync::{Arc, mpsc},
    thread::JoinHandle,
};

use board::Board;
use job::{Done, Job};
use rayon_core::{ThreadPool, ThreadPoolBuilder};

use super::{affinity, split::Split};
use crate::{CancelToken, RuntimeError};

/// Cost of the least chunk: a microsecond or more, while taking one costs a tenth of that.
const MIN_CHUNK: usize = 1 << 16;
/// Cost of the largest chunk: 5 ms on a core that does a thousand million operations a second.
const MAX_CHUNK: usize = 1 << 22;

/// A chunk is a quarter of what is left where a phone's big and middle cores share a step, of which one is up to 2.5
/// times slower than another: with halves it would end 10 % late, see `slow_threads_hold_nobody_up` in the tests.
const PHONE_PART: u32 = 4;
/// Elsewhere the cores that count are alike, and halves make for fewer chunks.
const PART: u32 = if cfg!(target_arch = "aarch64") { PHONE_PART } else { 2 };

/// Fewest and most units of a chunk, if a unit costs `cost`.
fn chunk(cost: usize) -> (usize, usize) {
    let cost = cost.max(1);
    (MIN_CHUNK.div_ceil(cost), (MAX_CHUNK / cost).max(1))
}

/// Threads that run steps together; shared by all sessions of a model.
pub(crate) struct Team {
    board: Arc<Board>,
    /// None if the caller is the whole team.
    pool: Option<ThreadPool>,
    threads: Vec<JoinHandle<()>>,
    /// Where helpers are to run, if not everywhere.
    bound: Option<Arc<BTreeSet<usize>>>,
    processors: BTreeSet<usize>,
}

impl Team {
    /// A team of `threads`, the caller of a step included. Helpers run on the processors in `bound` only, if that is
    /// given and the system lets them; a caller's thread is its own: see [`Team::bind_caller`].
    pub(crate) fn new(threads: usize, bound: Option<BTreeSet<usize>>) -> Result<Self, RuntimeError> {
        let helpers = threads.saturating_sub(1);
        let board = Arc::new(Board::new(helpers, PART));
        let bound = bound.map(Arc::new);
        let mut team =
            Self { board, pool: None, threads: Vec::new(), bound: bound.clone(), processors: affinity::allowed() };
        if helpers > 0 {
            let (tell, told) = mpsc::channel();
            let spawn = |thread: rayon_core::ThreadBuilder| {
                let name = format!("halfbyte-{}", thread.index() + 1);
                let bound = bound.clone().map(|bound| (bound, tell.clone()));
                let run = move || {
                    if let Some((bound, tell)) = bound {
                        affinity::bind(&bound);
                        // Nobody listens if another helper could not be made.
                        let _ = tell.send(affinity::allowed());
                    }
                    thread.run();
                };
                team.threads.push(std::thread::Builder::new().name(name).spawn(run)?);
                Ok(())
            };
            let pool = ThreadPoolBuilder::new().num_threads(helpers).spawn_handler(spawn).build();
            team.pool = Some(pool.map_err(|error| RuntimeError::Thread(io::Error::other(error)))?);
            drop(tell);
            if bound.is_some() {
                // What the system made of it, not what it was asked for.
                team.processors = told.into_iter().flatten().collect();
            }
        }
        Ok(team)
    }

    /// The processors that helpers may run on, as the system says; empty if it does not.
    pub(crate) fn processors(&self) -> &BTreeSet<usize> {
        &self.processors
    }

    /// Binds the calling thread as helpers are.
    pub(crate) fn bind_caller(&self) {
        if let Some(bound) = &self.bound {
            affinity::bind(bound);
        }
    }

    /// Threads that take part in a step, the caller included.
    pub(crate) fn threads(&self) -> usize {
        self.board.helpers() + 1
    }

    /// The team, for a caller who may want to stop: asked whenever a thread takes a chunk.
    pub(crate) fn until<'a>(&'a self, cancel: &'a CancelToken) -> TeamUntil<'a> {
        TeamUntil { team: self, cancel }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.board.close();
        self.pool = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing left to tell.
            let _ = thread.join();
        }
    }
}

/// A [`Team`] whose steps fail with [`RuntimeError::Cancelled`] once their caller wants that. A chunk that was begun is
/// finished: 5 ms of work, or a unit if that is more.
#[derive(Clone, Copy)]
pub(crate) struct TeamUntil<'a> {
    team: &'a Team,
    cancel: &'a CancelToken,
}

impl TeamUntil<'_> {
    /// Threads that take part in a step, the caller included.
    pub(crate) fn threads(self) -> usize {
        self.team.threads()
    }

    /// Runs a step: `body` gets each of `0..units` once, in ranges, from several threads at a time, and with each range
    /// its part of the output. On return all are done.
    ///
    /// `cost` of a unit: multiplications, each with its addition; an element of a norm counts as about 8, one with an
    /// exponential as 32. It decides how many units a chunk has, and whether the step is worth sharing.
    ///
    /// # Errors
    /// The first error of a `body`, [`RuntimeError::Cancelled`] or [`RuntimeError::WorkerPanicked`]; then some units
    /// may not have run.
    pub(crate) fn run<S: Split>(
        self,
        units: usize,
        cost: usize,
        split: S,
        body: impl Fn(Range<usize>, S::Part) -> Done + Sync,
    ) -> Result<(), RuntimeError> {
        self.spread(units, cost, &|range| {
            // SAFETY: `spread` gives each unit to one call, and `split` serves this step only.
            let part = unsafe { split.part(range.clone()) };
            body(range, part)
        })
    }

    /// As [`TeamUntil::run`], with a call and a part for each unit.
    ///
    /// # Errors
    /// As [`TeamUntil::run`].
    pub(crate) fn each<S: Split>(
        self,
        units: usize,
        cost: usize,
        split: S,
        body: impl Fn(usize, S::Part) -> Done + Sync,
    ) -> Result<(), RuntimeError> {
        self.spread(units, cost, &|mut range| {
            range.try_for_each(|unit| {
                // SAFETY: as in `run`.
                let part = unsafe { split.part(unit..unit + 1) };
                body(unit, part)
            })
        })
    }

    /// Calls `body` with ranges that cover `0..units` once.
    fn spread(
        self,
        units: usize,
        cost: usize,
        body: &(dyn Fn(Range<usize>) -> Done + Sync),
    ) -> Result<(), RuntimeError> {
        let (Team { board, pool, bound, .. }, cancel, chunk) = (self.team, self.cancel, chunk(cost));
        let body = |units| if cancel.is_cancelled() { Ok(()) } else { body(units) };
        let job = Job::new(units, chunk, &body);
        let helped = units > chunk.0
            && pool.as_ref().is_some_and(|pool| {
                board.run(&job, |shift| {
                    let (board, bound) = (Arc::clone(board), bound.clone());
                    pool.spawn_broadcast(move |context| {
                        if let Some(bound) = &bound {
                            affinity::keep(bound);
                        }
                        board.help(shift, context.index());
                    });
                })
            });
        if !helped && units > 0 {
            job.run_alone();
        }
        job.finish()?;
        if cancel.is_cancelled() { Err(RuntimeError::Cancelled) } else { Ok(()) }
    }
}
