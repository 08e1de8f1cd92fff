//! Many requests at a time: what a scheduler makes of them, beside what one request alone gets.
//!
//! First one request runs alone, then all are submitted at once: every fourth realtime, two normal, one batch. Prompts
//! are random and differ, so that next to nothing of them is found in the prefix cache.

use std::{
    io::{self, Write},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use halfbyte::{
    Generation, KvType, Model, Priority, Request, RuntimeError, Sampling, Scheduler, SchedulerOptions, SchedulerStats,
    SessionOptions,
};
use serde::Serialize;

use super::{Plan, check_context, random_tokens, report::ModelReport};

/// Waits for as long as a load test may take.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);
/// Who comes in which order.
const ORDER: [Priority; 4] = [Priority::Realtime, Priority::Normal, Priority::Normal, Priority::Batch];

/// What was measured.
#[derive(Serialize)]
struct Report {
    model: ModelReport,
    isa: &'static str,
    threads: usize,
    kv: String,
    concurrent: usize,
    requests: usize,
    batching: bool,
    prompt_tokens: usize,
    tokens: usize,
    alone: Alone,
    seconds: f64,
    /// Tokens generated per second of that time, prompts included.
    tokens_per_second: f64,
    /// The same as a multiple of one request's.
    speedup: f64,
    /// Requests that got what a session alone makes of them, if that was checked.
    equal: Option<usize>,
    /// What the scheduler itself counted.
    stats: SchedulerStats,
}

/// One request without others.
#[derive(Serialize)]
struct Alone {
    first_token: f64,
    per_token_p50: f64,
    per_token_p95: f64,
    tokens_per_second: f64,
}

/// How the test is run.
pub(super) struct Load {
    pub(super) concurrent: usize,
    pub(super) requests: usize,
    pub(super) batching: bool,
    pub(super) check: bool,
    pub(super) kv: KvType,
    pub(super) json: bool,
}

impl Load {
    /// Runs it and prints the report.
    pub(super) fn run(&self, model: &Model, described: ModelReport, plan: Plan) -> anyhow::Result<()> {
        ensure!(plan.tokens > 0, "a load test without tokens to decode (-n) measures nothing");
        check_context(model, plan.prompt.max(1).saturating_add(plan.tokens))?;
        let requests = self.requests(model, plan)?;
        let alone = self.measure(model, 1, requests.get(..1).unwrap_or_default())?;
        let Measured { seconds, stats, tokens } = self.measure(model, self.concurrent, &requests)?;
        let equal = self.check.then(|| self.equal(model, &requests, &tokens)).transpose()?;
        let tokens_per_second = stats.tokens as f64 / seconds;
        let alone_per_second = alone.stats.tokens as f64 / alone.seconds;
        let [realtime, ..] = alone.stats.classes;
        let report = Report {
            model: described,
            isa: model.isa().name(),
            threads: model.threads(),
            kv: format!("{:?}", self.kv).to_lowercase(),
            concurrent: self.concurrent,
            requests: self.requests,
            batching: self.batching,
            prompt_tokens: plan.prompt.max(1),
            tokens: plan.tokens,
            speedup: tokens_per_second / alone_per_second,
            alone: Alone {
                first_token: realtime.first_token.p50,
                per_token_p50: realtime.per_token.p50,
                per_token_p95: realtime.per_token.p95,
                tokens_per_second: alone_per_second,
            },
            seconds,
            tokens_per_second,
            equal,
            stats,
        };
        if self.json {
            writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&report)?)?;
        } else {
            report.print()?;
        }
        ensure!(equal.is_none_or(|equal| equal == self.requests), "some requests got something else than alone");
        Ok(())
    }

    /// Requests with random prompts.
    fn requests(&self, model: &Model, plan: Plan) -> anyhow::Result<Vec<Request>> {
        let random = random_tokens(plan.prompt.max(1) + self.requests, model.vocab());
        let request = |(n, priority): (usize, Priority)| {
            let tokens = random.get(n..n + plan.prompt.max(1)).context("a prompt")?;
            let mut request = Request::new(tokens.to_vec());
            (request.priority, request.sampling) = (priority, Sampling::greedy());
            (request.stop.max_tokens, request.stop.end_of_text) = (Some(plan.tokens), false);
            anyhow::Ok(request)
        };
        ORDER.into_iter().cycle().take(self.requests).enumerate().map(request).collect()
    }

    /// Runs `requests`, at most `concurrent` at a time.
    fn measure(&self, model: &Model, concurrent: usize, requests: &[Request]) -> anyhow::Result<Measured> {
        let mut options = SchedulerOptions::default();
        (options.max_concurrent, options.queue) = (concurrent, requests.len());
        (options.timeout, options.refill) = (PATIENCE, Duration::ZERO);
        (options.batching, options.kv) = (self.batching, self.kv);
        let scheduler = Scheduler::new(model, &options)?;
        let start = Instant::now();
        let generations = requests.iter().map(|request| scheduler.submit(request.clone()));
        let generations = generations.collect::<Result<Vec<_>, _>>()?;
        let tokens = thread::scope(|scope| {
            let read = |generation: Generation| -> Result<Vec<u32>, RuntimeError> {
                generation.filter_map(|piece| piece.map(|piece| piece.token).transpose()).collect()
            };
            let readers: Vec<_> = generations.into_iter().map(|g| scope.spawn(move || read(g))).collect();
            let readers = readers.into_iter().map(|reader| reader.join());
            readers.map(|read| read.unwrap_or(Err(RuntimeError::WorkerPanicked))).collect::<Result<_, _>>()
        })?;
        Ok(Measured { seconds: start.elapsed().as_secs_f64(), stats: scheduler.stats(), tokens })
    }

    /// How many of `requests` got, as `tokens`, what a session alone makes of them.
    fn equal(&self, model: &Model, requests: &[Request], tokens: &[Vec<u32>]) -> anyhow::Result<usize> {
        let mut equal = 0;
        for (request, found) in requests.iter().zip(tokens) {
            let mut options = SessionOptions::default();
            (options.kv, options.context) = (self.kv, Some(request.tokens.len() + found.len()));
            let mut session = model.session(&options)?;
            session.set_sampling(request.sampling.clone())?;
            session.push_tokens(&request.tokens)?;
            session.set_stop(request.stop.clone())?;
            let alone = std::iter::from_fn(|| session.next_token().transpose()).collect::<Result<Vec<_>, _>>()?;
            equal += usize::from(alone == *found);
        }
        Ok(equal)
    }
}

/// What came of some requests.
struct Measured {
    seconds: f64,
    stats: SchedulerStats,
    /// The tokens of each.
    tokens: Vec<Vec<u32>>,
}

impl Report {
    fn print(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let Self { model, isa, threads, kv, alone, stats, .. } = self;
        writeln!(out, "model      {model}")?;
        writeln!(out, "machine    {isa}, {threads} threads, keys and values {kv}")?;
        let batching = if self.batching { "passes shared" } else { "passes of their own" };
        let (requests, concurrent) = (self.requests, self.concurrent);
        writeln!(out, "load       {requests} requests, {concurrent} at a time, {batching}")?;
        writeln!(
            out,
            "alone      {:.2} tokens/s, first token after {:.3} s",
            alone.tokens_per_second, alone.first_token
        )?;
        writeln!(out, "together   {:.2} tokens/s, {:.2} times as many", self.tokens_per_second, self.speedup)?;
        if let Some(equal) = self.equal {
            writeln!(out, "equal      {equal} of {requests} got what they get alone")?;
        }
        for class in &stats.classes {
            let times = [("queue", class.queue), ("first token", class.first_token), ("per token", class.per_token)];
            let times = times.map(|(name, t)| format!("{name} {:.4}/{:.4}/{:.4} s", t.p50, t.p95, t.p99));
            writeln!(out, "{:<10} {} (p50/p95/p99)", class.priority.name(), times.join(", "))?;
        }
        writeln!(out, "memory     {:.1} MiB at most", stats.memory_peak as f64 / (1 << 20) as f64)
    }
}
