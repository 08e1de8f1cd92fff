//! The thread that runs the model: lets requests in, then one pass, and so on.
//!
//! A pass has a token of every sequence that decodes, and a chunk of one prompt: that of the request with the earliest
//! place in the queue. So a prompt delays those that decode by a chunk at most each time, and reads no weights that
//! they do not read. Without batching every sequence has passes of its own, in turn. One whose reader is far behind
//! stands still.
//!
//! Nothing counts before a pass is over: one that is cancelled or fails leaves every sequence as it was. If one fails
//! that several share, each of them gets a pass of its own, and whoever fails then is to blame.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    SchedulerOptions,
    core::{Core, Waiting},
    pace::Pace,
    queue::{Priority, place},
    running::{Running, Share},
};
use crate::{
    CancelToken, Finish, Model, RuntimeError,
    exec::Scratch,
    generate::{Logits, PEAK_RUN},
    kv::KvCache,
    layers::{Exec, fill_peaks},
    memory::Buffer,
    prefix::PrefixCache,
};

/// How long those that wait for memory are not looked after while all that run stand still: nobody tells when memory
/// comes back from elsewhere.
const PATIENCE: Duration = Duration::from_millis(50);

/// See the head of this file.
pub(super) struct Worker {
    core: Arc<Core>,
    model: Model,
    options: SchedulerOptions,
    prefixes: PrefixCache,
    running: Vec<Running>,
    scratch: Scratch,
    /// The logits of each sequence of a pass: (max_concurrent, vocab).
    logits: Buffer<f32>,
    /// The largest of each run of one sequence's logits.
    peaks: Buffer<f32>,
    pace: Pace,
    /// Stops a pass that no single request may stop.
    stop: CancelToken,
}

/// What one sequence has in a pass.
#[derive(Clone, Copy)]
struct Row {
    /// Its place in `running`.
    place: usize,
    /// Tokens that are run.
    count: usize,
}

impl Worker {
    pub(super) fn new(
        core: Arc<Core>,
        model: Model,
        options: SchedulerOptions,
        prefixes: PrefixCache,
        stop: CancelToken,
    ) -> Result<Self, RuntimeError> {
        let (vocab, places) = (model.vocab(), options.max_concurrent);
        let mut lease = model.budget().lease();
        let scratch = Scratch::of(&mut lease, &model, options.chunk + places, model.config().context)?;
        Ok(Self {
            logits: Buffer::zeros(&mut lease, "logits", [places, vocab])?,
            peaks: Buffer::zeros(&mut lease, "logits", [vocab.div_ceil(PEAK_RUN), 1])?,
            pace: Pace::new(options.batching),
            scratch,
            core,
            model,
            options,
            prefixes,
            running: Vec::with_capacity(places),
            stop,
        })
    }

    /// Runs requests until the scheduler is closed.
    pub(super) fn run(mut self) {
        self.model.bind_current_thread();
        while self.let_in() {
            let start = Instant::now();
            self.round();
            self.core.lock().counters.busy += start.elapsed();
        }
        for running in self.running.drain(..) {
            let closed = Err(RuntimeError::SchedulerClosed);
            running.free(&closed, &self.prefixes).done(closed);
        }
    }

    /// Lets in who may come, and waits for somebody if there is nobody to run; false once the scheduler is closed.
    fn let_in(&mut self) -> bool {
        loop {
            let mut door = self.core.lock();
            if door.closed {
                return false;
            }
            let (model, options, prefixes) = (&self.model, &self.options, &self.prefixes);
            let others = !self.running.is_empty();
            let share = |waiting: &Waiting| Share::of(waiting, model, options, prefixes, others);
            let now = self.core.now();
            let Some((waited, waiting, share)) = door.admission.admit(now, share) else {
                if self.running.iter().all(Running::is_stalled) {
                    let has_place = door.admission.taken() < self.options.max_concurrent;
                    let limit = (others && has_place).then_some(PATIENCE);
                    drop(self.core.sleep(door, limit));
                    continue;
                }
                return true;
            };
            let priority = waiting.request.priority;
            let counters = &mut door.counters;
            counters.class(priority).queue.add(waited);
            match share {
                Share::Ready { sequence, cached, shortened } => {
                    counters.prompt_tokens += (waiting.request.tokens.len() - cached) as u64;
                    counters.cached_tokens += cached as u64;
                    counters.shortened += u64::from(shortened.is_some());
                    drop(door);
                    tracing::debug!(priority = priority.name(), cached, ?waited, "request let in");
                    let place = place(now.saturating_sub(waited), priority, self.options.ageing);
                    let mut running = Running::new(waiting, place, *sequence);
                    if let Some(event) = shortened {
                        running.add_event(event);
                    }
                    self.running.push(running);
                    self.core.lock().active = self.tokens();
                }
                Share::Refused(error) => {
                    counters.refused_budget += u64::from(matches!(error, RuntimeError::BudgetExceeded { .. }));
                    counters.failed += u64::from(!matches!(error, RuntimeError::BudgetExceeded { .. }));
                    door.admission.leave();
                    drop(door);
                    waiting.outlet.done(Err(error));
                }
            }
        }
    }

    /// With which the running requests are stopped.
    fn tokens(&self) -> Vec<CancelToken> {
        self.running.iter().map(|running| running.sequence.cancel.clone()).collect()
    }

    /// One pass, or without batching one for each sequence; who is over leaves before and after.
    fn round(&mut self) {
        for place in (0..self.running.len()).rev() {
            match self.running[place].prepare() {
                Ok(true) => {}
                Ok(false) => self.end(place, None),
                Err(error) => self.end(place, Some(error)),
            }
        }
        let rows = self.plan();
        let together = if self.options.batching { rows.len().max(1) } else { 1 };
        let mut over = Vec::new();
        for rows in rows.chunks(together) {
            match self.pass(rows, &mut over) {
                Ok(()) | Err(RuntimeError::Cancelled) => {}
                Err(error) if rows.len() == 1 => over.push((rows[0].place, Some(error))),
                Err(error) => {
                    tracing::warn!(%error, sequences = rows.len(), "a pass failed: each sequence gets one of its own");
                    for row in rows {
                        if let Err(error) = self.pass(&[*row], &mut over) {
                            over.push((row.place, Some(error)));
                        }
                    }
                }
            }
        }
        over.sort_by_key(|(place, _)| std::cmp::Reverse(*place));
        for (place, error) in over {
            self.end(place, error);
        }
    }

    /// Who has what in the next pass: those that decode, the most urgent first, then the chunk.
    fn plan(&self) -> Vec<Row> {
        let places = || self.running.iter().enumerate().filter(|(_, running)| !running.is_stalled());
        let mut rows: Vec<Row> =
            places().filter(|(_, r)| r.decodes()).map(|(place, _)| Row { place, count: 1 }).collect();
        rows.sort_by_key(|row| self.running[row.place].priority);
        let prompt = places().filter(|(_, r)| !r.decodes()).min_by_key(|(_, running)| running.place);
        if let Some((place, running)) = prompt {
            let heard = rows.iter().any(|row| self.running[row.place].priority == Priority::Realtime);
            let most = self.pace.chunk(heard, self.options.chunk);
            if most > 0 {
                rows.push(Row { place, count: running.sequence.pending().min(most) });
            }
        }
        rows
    }

    /// Runs `rows` in one pass, and has a token chosen for each that has come to its last one.
    fn pass(&mut self, rows: &[Row], over: &mut Vec<(usize, Option<RuntimeError>)>) -> Result<(), RuntimeError> {
        let start = Instant::now();
        let Some((last, singles)) = rows.split_last() else { return Ok(()) };
        let vocab = self.model.vocab();
        let mut tokens = Vec::with_capacity(singles.len() + last.count);
        for row in rows {
            let Running { sequence, .. } = &self.running[row.place];
            let at = sequence.cache.len();
            tokens.extend_from_slice(sequence.tokens.get(at..at + row.count).unwrap_or(&[]));
        }
        let owner = &self.running[last.place];
        let (finishes, is_chunk) = (owner.sequence.pending() == last.count, !owner.decodes());
        // One that decodes with others cannot stop them.
        let cancel = if rows.len() == 1 || is_chunk { &owner.sequence.cancel } else { &self.stop }.clone();
        let mut caches: Vec<(usize, &mut KvCache)> = Vec::with_capacity(rows.len());
        for (place, running) in self.running.iter_mut().enumerate() {
            if let Some(order) = rows.iter().position(|row| row.place == place) {
                caches.push((order, &mut running.sequence.cache));
            }
        }
        caches.sort_by_key(|(order, _)| *order);
        let mut caches: Vec<&mut KvCache> = caches.into_iter().map(|(_, cache)| cache).collect();
        let (model, scratch, logits) = (&self.model, &mut self.scratch, &mut self.logits);
        let exec = Exec::new(model.kernels(), model.team(), &cancel);
        let mut each = |row: usize, found: &[f32]| {
            if let Some(place) = logits.get_mut(row * vocab..(row + 1) * vocab) {
                place.copy_from_slice(found);
            }
        };
        // What the threads of a step do is caught there; this is for what lies between the steps.
        let forward = || model.graph().forward_many(exec, scratch, &mut caches, &tokens, finishes, &mut each);
        catch_unwind(AssertUnwindSafe(forward)).unwrap_or(Err(RuntimeError::WorkerPanicked))?;
        let chunk = if is_chunk { last.count } else { 0 };
        self.pace.observe(rows.len() - usize::from(is_chunk), chunk, start.elapsed().as_secs_f64());
        let mut told = Vec::with_capacity(rows.len());
        for (order, row) in rows.iter().enumerate() {
            let running = &mut self.running[row.place];
            running.commit(row.count, &self.prefixes);
            if running.sequence.pending() > 0 {
                continue;
            }
            let values = self.logits.get(order * vocab..(order + 1) * vocab).unwrap_or_default();
            fill_peaks(values, &mut self.peaks);
            match running.choose(Logits { values, peaks: &self.peaks }, start) {
                Ok(chosen) => {
                    if !chosen.heard {
                        over.push((row.place, Some(RuntimeError::Cancelled)));
                    } else if running.sequence.finish().is_some() {
                        over.push((row.place, None));
                    }
                    told.push(chosen);
                }
                Err(error) => over.push((row.place, Some(error))),
            }
        }
        let mut door = self.core.lock();
        told.iter().for_each(|told| told.count(&mut door.counters));
        Ok(())
    }

    /// Takes out the sequence at `place`, which has come to its end or failed.
    fn end(&mut self, place: usize, error: Option<RuntimeError>) {
        let running = self.running.remove(place);
        let finish = running.sequence.finish().unwrap_or(Finish::ContextFull);
        let mut result = error.map_or(Ok(finish), Err);
        let outlet = running.free(&result, &self.prefixes);
        let mut door = self.core.lock();
        if door.closed && matches!(result, Err(RuntimeError::Cancelled)) {
            // That is how the scheduler stops who runs.
            result = Err(RuntimeError::SchedulerClosed);
        }
        let counters = &mut door.counters;
        match &result {
            Ok(_) => counters.finished += 1,
            Err(RuntimeError::Cancelled) => counters.cancelled += 1,
            Err(_) => counters.failed += 1,
        }
        door.admission.leave();
        door.active = self.tokens();
        drop(door);
        outlet.done(result);
    }
}
