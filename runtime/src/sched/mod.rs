//! Many requests, one model: who runs when, with whom, and with how much memory.
//!
//! Callers queue requests ([`queue`]) and read what comes of them ([`handover`]); one thread runs the model
//! ([`worker`]). Who may start is decided by a state machine without threads or clock ([`admission`]), so that it can
//! be tested like a database. A request that starts has memory set aside for all of its context, so nothing that others
//! do later can take it away.

mod admission;
mod bucket;
mod core;
mod generation;
mod handover;
mod pace;
mod queue;
mod request;
mod running;
mod stats;
mod sync;
#[cfg(test)]
mod tests;
mod worker;

use std::{
    cell::Cell,
    fmt,
    sync::Arc,
    thread::{self, Builder, JoinHandle},
    time::{Duration, Instant},
};

use halfbyte_kernels::KvType;

use self::{
    admission::Admission,
    core::{Core, Waiting},
    generation::Outlet,
    handover::Handover,
    queue::Limits,
    worker::Worker,
};
pub use self::{
    generation::{Generation, RequestHandle},
    queue::Priority,
    request::{ContextPolicy, Piece, Pressure, Request, Update},
    stats::{ClassStats, Percentiles, SchedulerStats},
};
use crate::{
    BudgetMode, CancelToken, Model, PrefixCache, RuntimeError, Sampling, StopRules,
    generate::{Sampler, StopBuffer},
    kv::{KvCache, MAX_SEQUENCES},
    session::in_range,
};

/// Most requests that may wait.
const MAX_QUEUE: usize = 1 << 20;
/// Longest chunk: with the tokens of others it has to fit into the pages of a pass.
const MAX_CHUNK: usize = 1024;

/// How a [`Scheduler`] shares a model.
///
/// ```
/// use std::time::Duration;
///
/// let mut options = halfbyte::SchedulerOptions::default();
/// options.max_concurrent = 8;
/// options.timeout = Duration::from_secs(30);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SchedulerOptions {
    /// Sequences that run at the same time, 1 to 32.
    pub max_concurrent: usize,
    /// Requests that wait at most, 1 to 2^20.
    pub queue: usize,
    /// How long a request waits at most for its turn.
    pub timeout: Duration,
    /// Waiting for so long is worth as much as being one class more urgent: [`Priority::Batch`] is overtaken by nobody
    /// who comes more than twice as long after it.
    pub ageing: Duration,
    /// The rate limit: twice `max_concurrent` requests may start at once, and then one more each time this has passed;
    /// zero is no limit. Whoever is let wait by this is not refused, but for the timeout.
    pub refill: Duration,
    /// Prompt tokens that pass through the model at a time, 1 to 1024; fewer while a realtime request decodes, so that
    /// a pass takes at most 1.5 times as long as one without them.
    pub chunk: usize,
    /// Whether sequences share passes. They then take turns less often, and the weights are read once for all: more
    /// tokens in all, but a pass of one alone is faster.
    pub batching: bool,
    /// How keys and values are stored.
    pub kv: KvType,
    /// Most bytes of prefixes that are kept; 0 keeps none.
    pub prefix_bytes: usize,
    /// Asked for a shorter context before a request is refused for want of memory; by default it is refused.
    pub policy: Option<Arc<dyn ContextPolicy>>,
}

impl Default for SchedulerOptions {
    fn default() -> Self {
        Self {
            max_concurrent: 2,
            queue: 1000,
            timeout: Duration::from_secs(5),
            ageing: Duration::from_secs(1),
            refill: Duration::from_millis(10),
            chunk: 128,
            batching: true,
            kv: KvType::F16,
            prefix_bytes: 256 << 20,
            policy: None,
        }
    }
}

/// Runs requests of any number of callers with one [`Model`].
///
/// What a request gets does not depend on who else runs, on batching, on the number of threads, or on whether its
/// prefix was cached: it is, bit for bit, what a [`Session`](crate::Session) of the same context would generate.
///
/// ```no_run
/// use halfbyte::{Model, Request, Scheduler, SchedulerOptions};
///
/// # fn main() -> Result<(), halfbyte::RuntimeError> {
/// let model = Model::open("model.gguf")?;
/// let scheduler = Scheduler::new(&model, &SchedulerOptions::default())?;
/// let mut request = Request::text(&model, "Once upon a time")?;
/// request.stop.max_tokens = Some(100);
/// for piece in scheduler.submit(request)? {
///     print!("{}", piece?.text);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Scheduler {
    core: Arc<Core>,
    model: Model,
    prefixes: PrefixCache,
    /// Stops a pass that many share.
    stop: CancelToken,
    threads: Vec<JoinHandle<()>>,
}

impl Scheduler {
    /// Starts two threads: one runs the model, with the model's own team; one watches the queue.
    ///
    /// # Errors
    /// [`RuntimeError::InvalidOption`], [`RuntimeError::BudgetExceeded`], [`RuntimeError::OutOfMemory`],
    /// [`RuntimeError::Thread`].
    pub fn new(model: &Model, options: &SchedulerOptions) -> Result<Self, RuntimeError> {
        in_range("max_concurrent", options.max_concurrent, MAX_SEQUENCES)?;
        in_range("chunk", options.chunk, MAX_CHUNK)?;
        in_range("queue", options.queue, MAX_QUEUE)?;
        KvCache::page_bytes(model.config(), options.kv)?;
        let limits = Limits { length: options.queue, timeout: options.timeout, ageing: options.ageing };
        let admission = Admission::new(limits, options.max_concurrent, options.refill);
        let core = Arc::new(Core::new(admission, options.timeout, options.queue));
        let prefixes = PrefixCache::new(model, options.prefix_bytes);
        let stop = CancelToken::default();
        let worker = Worker::new(Arc::clone(&core), model.clone(), options.clone(), prefixes.clone(), stop.clone())?;
        let mut scheduler = Self { core, model: model.clone(), prefixes, stop, threads: Vec::new() };
        let watcher = Arc::clone(&scheduler.core);
        // If the second one cannot be started, dropping `scheduler` ends the first.
        for (name, body) in [
            ("halfbyte-run", Box::new(move || worker.run()) as Box<dyn FnOnce() + Send>),
            ("halfbyte-watch", Box::new(move || watcher.watch())),
        ] {
            let thread = Builder::new().name(name.to_owned()).spawn(body).map_err(RuntimeError::Thread)?;
            scheduler.threads.push(thread);
        }
        Ok(scheduler)
    }

    /// Queues `request`; what comes of it is read from the [`Generation`].
    ///
    /// # Errors
    /// [`RuntimeError::QueueFull`], and what can be said of the request at once: [`RuntimeError::EmptySession`],
    /// [`RuntimeError::TokenOutOfRange`], [`RuntimeError::InvalidOption`], [`RuntimeError::ContextFull`]. Later, as the
    /// last item of the generation: [`RuntimeError::QueueTimeout`], [`RuntimeError::BudgetExceeded`],
    /// [`RuntimeError::Cancelled`], [`RuntimeError::SchedulerClosed`], and what can happen to a session.
    pub fn submit(&self, request: Request) -> Result<Generation, RuntimeError> {
        let handover = Arc::new(Handover::new());
        let handle = self.queue(request, Outlet::Handover(Arc::clone(&handover)), Some(Arc::clone(&handover)))?;
        Ok(Generation::new(handover, handle))
    }

    /// Queues `request` and calls `each` with what comes of it, the last time with [`Update::Done`]; on a thread of the
    /// scheduler or on one that cancels. All requests wait while it runs. If it panics, it is not called again, and the
    /// request is cancelled.
    ///
    /// # Errors
    /// As [`Scheduler::submit`]; `each` is then not called.
    pub fn submit_with(
        &self,
        request: Request,
        each: impl FnMut(Update) + Send + 'static,
    ) -> Result<RequestHandle, RuntimeError> {
        self.queue(request, Outlet::Callback(Some(Box::new(each))), None)
    }

    fn queue(
        &self,
        request: Request,
        outlet: Outlet,
        reader: Option<Arc<Handover<Update>>>,
    ) -> Result<RequestHandle, RuntimeError> {
        if request.tokens.is_empty() {
            return Err(RuntimeError::EmptySession);
        }
        let vocab = self.model.vocab();
        if let Some(&id) = request.tokens.iter().find(|&&id| id as usize >= vocab) {
            return Err(RuntimeError::TokenOutOfRange { id, vocab });
        }
        check(&request.sampling, &request.stop)?;
        let (priority, cancel) = (request.priority, CancelToken::default());
        let submitted = Instant::now();
        let waiting = Waiting { request, outlet, cancel: cancel.clone(), submitted, short_at: Cell::new(None) };
        running::context(&waiting.request, &self.model)?;
        let id = self.core.submit(priority, waiting)?;
        Ok(RequestHandle { core: Arc::clone(&self.core), id, cancel, reader })
    }

    /// The model that is run.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The prefixes that are kept, to be saved and loaded.
    #[must_use]
    pub fn prefixes(&self) -> &PrefixCache {
        &self.prefixes
    }

    /// What was done so far, and what is being done.
    #[must_use]
    pub fn stats(&self) -> SchedulerStats {
        let budget = self.model.budget();
        let door = self.core.lock();
        let counters = &door.counters;
        let (bucket_level, bucket_capacity) = door.admission.bucket(self.core.now());
        let busy = counters.busy.as_secs_f64();
        SchedulerStats {
            active: door.admission.taken(),
            queued: door.admission.queued(),
            finished: counters.finished,
            cancelled: counters.cancelled,
            failed: counters.failed,
            refused_queue: counters.refused_queue,
            timed_out: counters.timed_out,
            refused_budget: counters.refused_budget,
            shortened: counters.shortened,
            loops: counters.loops,
            evicted: self.prefixes.evicted(),
            memory_used: budget.used(),
            memory_peak: budget.peak(),
            memory_limit: (budget.mode() != BudgetMode::Off).then(|| budget.limit()),
            prefix_bytes: self.prefixes.bytes(),
            bucket_level,
            bucket_capacity,
            prompt_tokens: counters.prompt_tokens,
            cached_tokens: counters.cached_tokens,
            tokens: counters.tokens,
            tokens_per_second: if busy > 0.0 { counters.tokens as f64 / busy } else { 0.0 },
            classes: counters.class_stats(),
        }
    }
}

/// Fails on options that make no sense, without the memory that using them takes.
fn check(sampling: &Sampling, stop: &StopRules) -> Result<(), RuntimeError> {
    Sampler::new(sampling.clone(), 0)?;
    StopBuffer::default().with_strings(&stop.strings)?;
    Ok(())
}

impl Drop for Scheduler {
    /// Stops everything, at the next chunk that a thread takes, and waits for that.
    fn drop(&mut self) {
        self.stop.cancel();
        self.core.close();
        let this = thread::current().id();
        // A callback may be what drops the scheduler: its thread ends by itself.
        for thread in self.threads.drain(..).filter(|thread| thread.thread().id() != this) {
            // A thread that panicked has nothing left to tell.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler").field("model", &self.model).finish_non_exhaustive()
    }
}
