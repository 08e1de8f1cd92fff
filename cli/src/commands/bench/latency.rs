//! What a caller waits for: the first token of a prompt that is new, known, or known from a file; and the end of a
//! request that is cancelled while its prompt is run.

use std::{
    env, fs,
    io::{self, Write},
    path::PathBuf,
    process,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use halfbyte::{KvType, Model, Request, RuntimeError, Sampling, Scheduler, SchedulerOptions, Update};
use serde::Serialize;

use super::{
    Plan, check_context, random_tokens,
    report::{ModelReport, median},
};
use crate::signals;

/// Requests that are cancelled.
const CANCELS: usize = 100;
/// Waits for as long as a prompt may take.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// How it is measured.
pub(super) struct Latency {
    pub(super) reps: usize,
    pub(super) kv: KvType,
    pub(super) json: bool,
}

/// Times in seconds; medians, if something was measured several times.
#[derive(Serialize)]
struct Report {
    model: ModelReport,
    isa: &'static str,
    threads: usize,
    kv: String,
    prompt_tokens: usize,
    /// To the first token of a prompt that is new.
    new: f64,
    /// From one token to the next after that.
    per_token: f64,
    /// To the first token of a prompt of which all but the last token is known.
    known: f64,
    /// The same, known from a file.
    from_file: f64,
    /// To load that file, of so many bytes.
    load: f64,
    file_bytes: u64,
    cancel: Cancelled,
}

/// From cancelling a request whose prompt is run to being told that it is over.
#[derive(Serialize)]
struct Cancelled {
    count: usize,
    p50: f64,
    p99: f64,
    longest: f64,
}

impl Latency {
    /// Measures and prints the report.
    pub(super) fn run(&self, model: &Model, described: ModelReport, plan: Plan) -> anyhow::Result<()> {
        ensure!(plan.prompt > 0 && plan.tokens > 1, "an empty prompt, or fewer than 2 tokens, take no time");
        check_context(model, plan.prompt.saturating_add(plan.tokens))?;
        let tokens = random_tokens(plan.prompt + 1, model.vocab());
        let (prompt, longer) = (tokens.get(..plan.prompt).unwrap_or_default(), &*tokens);
        let folder = Temporary::new()?;
        let file = folder.0.join("prefixes");
        let [mut new, mut per_token, mut known, mut from_file, mut load] = [const { Vec::<f64>::new() }; 5];
        for _ in 0..self.reps {
            let scheduler = self.scheduler(model)?;
            let (first, mut others) = times(&scheduler, prompt, plan.tokens)?;
            new.push(first);
            per_token.append(&mut others);
            known.push(times(&scheduler, longer, 1)?.0);
            scheduler.prefixes().save(&file)?;
            drop(scheduler);

            let scheduler = self.scheduler(model)?;
            let start = Instant::now();
            scheduler.prefixes().load(&file)?;
            load.push(start.elapsed().as_secs_f64());
            from_file.push(times(&scheduler, longer, 1)?.0);
        }
        let [new, per_token, known, from_file, load] =
            [new, per_token, known, from_file, load].map(|times| median(&times));
        let report = Report {
            model: described,
            isa: model.isa().name(),
            threads: model.threads(),
            kv: format!("{:?}", self.kv).to_lowercase(),
            prompt_tokens: plan.prompt,
            new,
            per_token,
            known,
            from_file,
            load,
            file_bytes: fs::metadata(&file)?.len(),
            cancel: self.cancel(model, prompt, new)?,
        };
        if self.json {
            writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&report)?)?;
        } else {
            report.print()?;
        }
        Ok(())
    }

    fn scheduler(&self, model: &Model) -> anyhow::Result<Scheduler> {
        let mut options = SchedulerOptions::default();
        (options.max_concurrent, options.prefix_bytes, options.kv) = (1, usize::MAX, self.kv);
        (options.timeout, options.refill) = (PATIENCE, Duration::ZERO);
        Ok(Scheduler::new(model, &options)?)
    }

    /// Cancels requests for a prompt that takes `seconds`. Each begins where the one before was stopped, so that all
    /// together are spread over the whole prompt, once or a few times.
    fn cancel(&self, model: &Model, prompt: &[u32], seconds: f64) -> anyhow::Result<Cancelled> {
        let scheduler = self.scheduler(model)?;
        let mut pauses = random_tokens(CANCELS, 1000).into_iter().cycle();
        let mut found = Vec::with_capacity(CANCELS);
        while found.len() < CANCELS {
            let (done, ended) = mpsc::channel();
            let each = move |update| {
                if let Update::Done(result) = update {
                    // Who asked waits for it.
                    let _ = done.send(result);
                }
            };
            let handle = scheduler.submit_with(request(prompt, 1), each)?;
            let pause = pauses.next().map_or(0.0, f64::from) / 1000.0;
            thread::sleep(Duration::from_secs_f64(2.0 * pause * seconds / CANCELS as f64));
            let start = Instant::now();
            handle.cancel();
            match ended.recv().context("the scheduler went away")? {
                Err(RuntimeError::Cancelled) => found.push(start.elapsed().as_secs_f64()),
                Err(error) => return Err(error.into()),
                // It was faster. The next ones begin anew.
                Ok(_) => scheduler.prefixes().clear(),
            }
        }
        found.sort_by(f64::total_cmp);
        let at = |percent: usize| found.get(CANCELS * percent / 100 - 1).copied().unwrap_or_default();
        Ok(Cancelled { count: found.len(), p50: at(50), p99: at(99), longest: at(100) })
    }
}

/// A request for `count` tokens.
fn request(prompt: &[u32], count: usize) -> Request {
    let mut request = Request::new(prompt.to_vec());
    request.sampling = Sampling::greedy();
    (request.stop.max_tokens, request.stop.end_of_text) = (Some(count), false);
    request
}

/// Seconds to the first of `count` tokens, and from each to the next. The scheduler's thread looks at the clock: a
/// reader may wake up late and find several tokens.
fn times(scheduler: &Scheduler, prompt: &[u32], count: usize) -> anyhow::Result<(f64, Vec<f64>)> {
    let (tell, told) = mpsc::channel();
    let each = move |update| {
        // Who asked waits for it.
        let _ = tell.send((Instant::now(), update));
    };
    let mut last = Instant::now();
    let mut times = Vec::with_capacity(count);
    let _running = scheduler.submit_with(request(prompt, count), each)?;
    for (now, update) in told {
        match update {
            Update::Piece(piece) if piece.token.is_some() => {
                times.push((now - last).as_secs_f64());
                last = now;
            }
            Update::Done(result) => {
                result?;
                break;
            }
            _ => {}
        }
    }
    ensure!(times.len() == count, "the generation ended early");
    Ok((times.remove(0), times))
}

/// A folder for a file of prefixes, which is deleted in the end, also if a signal is the end.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> anyhow::Result<Self> {
        let path = env::temp_dir().join(format!("halfbyte-latency-{}", process::id()));
        // Nobody else's.
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let this = Self(path.clone());
        signals::before_end(move || {
            // It is in the folder for that.
            let _ = fs::remove_dir_all(&path);
        })?;
        Ok(this)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Report {
    fn print(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let Self { model, isa, threads, kv, prompt_tokens, new, per_token, known, from_file, load, file_bytes, cancel } =
            self;
        writeln!(out, "model      {model}")?;
        writeln!(out, "machine    {isa}, {threads} threads, keys and values {kv}")?;
        writeln!(
            out,
            "new        first of {prompt_tokens} tokens' answer after {new:.4} s, then {per_token:.4} s a token"
        )?;
        writeln!(out, "known      first token after {known:.4} s: {:.2} times a token", known / per_token)?;
        writeln!(
            out,
            "from file  first token after {from_file:.4} s: {:.2} % of new; {:.1} MiB loaded in {load:.4} s",
            100.0 * from_file / new,
            *file_bytes as f64 / (1 << 20) as f64
        )?;
        let Cancelled { count, p50, p99, longest } = cancel;
        writeln!(out, "cancelled  after {p50:.4}/{p99:.4}/{longest:.4} s (p50/p99/longest) of {count}")
    }
}
