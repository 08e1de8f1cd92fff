//! `halfbyte bench`: how fast a model runs on this machine, how much memory it takes, and how much of the machine's
//! memory bandwidth decoding uses.
//!
//! Prefill, decode and reading are measured in turn, one of each per repetition, so that a machine that gets slower
//! (or busy) does so for all of them. The first round warms up and is not counted.

mod bandwidth;
mod latency;
mod load;
mod memory;
mod report;

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    time::Instant,
};

use anyhow::{Context, ensure};
use halfbyte::{Gguf, Model, Sampling, Session, SessionOptions, StopRules};

use self::{
    latency::Latency,
    load::Load,
    memory::{Memory, Watch},
    report::{Bandwidth, DecodeReport, MemoryReport, ModelReport, Rates, Report},
};
use super::inspect::type_name;
use crate::{
    args::{self, ComputeArgs, KvArg, OptionalModelArg},
    console,
    source::Source,
};

/// A model smaller than this many caches is read from them in part, and no share of the memory's bandwidth.
const CACHES: u64 = 4;

const EXAMPLES: &str =
    "Prompts are random tokens, always the same. Decoding is greedy and goes on past the end of a text.

Examples:
  halfbyte bench model.gguf
  halfbyte bench model.gguf -p 0 -n 64 --depth 2048    decode only, far into a conversation
  halfbyte bench model.gguf --threads 1 --reps 5 --json > bench.json
  halfbyte bench model.gguf --concurrent 8 -p 64 -n 64 requests of many callers
  halfbyte bench model.gguf --latency -p 2000          prefixes and cancelling

--json prints one object:
  {\"model\": {\"source\", \"name\", \"architecture\", \"tensor_bytes\", \"formats\"},
   \"isa\", \"threads\", \"processors\", \"kv\", \"context\", \"load_seconds\",
   \"prefill\": {\"tokens\", \"median\", \"runs\"},
   \"decode\": {\"tokens\", \"median\", \"runs\", \"depth\", \"weight_bytes\",
              \"kv_bytes\", \"bandwidth_share\"},
   \"bandwidth\": {\"best\", \"runs\"}, \"available_bytes\",
   \"memory\": {\"loaded\", \"peak\"}, \"cache_bytes\", \"cache_resident\"}
Rates are in tokens per second, bandwidth is in bytes per second. Processors
are those that threads may run on, as the system says; available_bytes is what
memory was free before loading. What was not measured is null.
With --concurrent it is
  {\"model\", \"isa\", \"threads\", \"kv\", \"concurrent\", \"requests\", \"batching\",
   \"prompt_tokens\", \"tokens\", \"alone\": {\"first_token\", \"per_token_p50\",
   \"per_token_p95\", \"tokens_per_second\"}, \"seconds\", \"tokens_per_second\",
   \"speedup\", \"equal\", \"stats\": what the scheduler counted}
and with --latency
  {\"model\", \"isa\", \"threads\", \"kv\", \"prompt_tokens\", \"new\", \"per_token\",
   \"known\", \"from_file\", \"load\", \"file_bytes\",
   \"cancel\": {\"count\", \"p50\", \"p99\", \"longest\"}}
with times in seconds.";

/// Arguments of `bench`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    model: OptionalModelArg,
    /// Prompt tokens; 0 measures no prefill
    #[arg(short, long, value_name = "N", default_value_t = 512, value_parser = args::count(0, u64::MAX))]
    prompt: usize,
    /// Tokens to decode; 0 measures no decoding
    #[arg(short = 'n', long, value_name = "N", default_value_t = 128, value_parser = args::count(0, u64::MAX))]
    tokens: usize,
    /// Decode after this many tokens
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = args::count(0, u64::MAX),
          conflicts_with_all = ["concurrent", "latency"])]
    depth: usize,
    /// How often everything is measured; the median counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = args::count(1, 1000), conflicts_with = "concurrent")]
    reps: usize,
    #[command(flatten)]
    compute: ComputeArgs,
    #[command(flatten)]
    kv: KvArg,
    /// Load test instead: requests of many callers, so many at a time (1 to 32)
    #[arg(long, value_name = "N", value_parser = args::count(1, 32))]
    concurrent: Option<usize>,
    /// Requests of the load test [default: four times N]
    #[arg(long, value_name = "N", requires = "concurrent", value_parser = args::count(1, 100_000))]
    requests: Option<usize>,
    /// Give every sequence of the load test passes of its own
    #[arg(long, requires = "concurrent")]
    no_batching: bool,
    /// Compare what each request of the load test gets with what it gets alone
    #[arg(long, requires = "concurrent")]
    check: bool,
    /// Measure what one caller waits for instead: the first token of a prompt that is new, known or loaded, and the end
    /// of a request that is cancelled
    #[arg(long, conflicts_with = "concurrent")]
    latency: bool,
    /// Print one JSON object, with all repetitions
    #[arg(long)]
    json: bool,
}

/// Runs `bench`.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let Args { model, prompt, tokens, depth, reps, compute, kv, json, .. } = args;
    let (source, plan) = (model.source(), Plan { prompt, tokens, depth });
    source.advise();
    let available_bytes = halfbyte::available_memory();
    let watch = Watch::start();
    let start = Instant::now();
    // Opened here and not by the model, to read the very same pages for the bandwidth.
    let file = source.gguf()?;
    let model = source.model(&file, None, &compute.load_options())?;
    if let Some(concurrent) = args.concurrent {
        let (requests, batching) = (args.requests.unwrap_or(4 * concurrent), !args.no_batching);
        let load = Load { concurrent, requests, batching, check: args.check, kv: kv.kv, json };
        return load.run(&model, describe(&source, &file, &model), plan);
    }
    if args.latency {
        return Latency { reps, kv: kv.kv, json }.run(&model, describe(&source, &file, &model), plan);
    }
    let load_seconds = start.elapsed().as_secs_f64();
    let loaded = Memory::now();

    let mut bench = Bench::new(plan, kv.session_options(), &model)?;
    let mut runs = Runs::default();
    let bar = console::progress(reps as u64 + 1, "rounds");
    for round in 0..=reps {
        let mut warm_up = Runs::default();
        bench.round(&file, if round == 0 { &mut warm_up } else { &mut runs })?;
        bar.inc(1);
    }
    bar.finish_and_clear();

    let cache_bytes = last_level_cache();
    let weight_bytes = model.decode_bytes();
    let cache_resident = cache_bytes.is_some_and(|cache| (weight_bytes as u64) < CACHES.saturating_mul(cache));
    let best = runs.reads.values().flatten().copied().fold(0.0, f64::max);
    let decode = (tokens > 0).then(|| {
        let rates = Rates::new(tokens, runs.decode);
        let read = rates.median * (weight_bytes + bench.kv_bytes) as f64;
        let share = (!cache_resident && best > 0.0).then_some(read / best);
        DecodeReport { rates, depth, weight_bytes, kv_bytes: bench.kv_bytes, bandwidth_share: share }
    });
    let report = Report {
        model: describe(&source, &file, &model),
        isa: model.isa().name(),
        threads: model.threads(),
        processors: model.processors().collect(),
        kv: format!("{:?}", kv.kv).to_lowercase(),
        context: bench.session.context(),
        load_seconds,
        prefill: (prompt > 0).then(|| Rates::new(prompt, runs.prefill)),
        decode,
        bandwidth: (best > 0.0).then_some(Bandwidth { best, runs: runs.reads }),
        available_bytes,
        memory: loaded.zip(watch.finish()).map(|(loaded, peak)| MemoryReport { loaded, peak }),
        cache_bytes,
        cache_resident,
    };
    if json {
        writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        report.print()?;
    }
    Ok(())
}

/// All that was measured, one number each time.
#[derive(Default)]
struct Runs {
    prefill: Vec<f64>,
    decode: Vec<f64>,
    reads: BTreeMap<&'static str, Vec<f64>>,
}

/// What to measure, in tokens.
#[derive(Clone, Copy)]
struct Plan {
    prompt: usize,
    tokens: usize,
    depth: usize,
}

/// A session and what to do with it.
struct Bench {
    session: Session,
    plan: Plan,
    /// Random tokens, enough for the prompt and the depth.
    random: Vec<u32>,
    /// Keys and values that a token in the middle of the last decode run read.
    kv_bytes: usize,
}

impl Bench {
    fn new(mut plan: Plan, mut options: SessionOptions, model: &Model) -> anyhow::Result<Self> {
        // The token whose logits the first one is chosen from has to be in the cache.
        plan.depth = plan.depth.max(1);
        let decode = plan.tokens.saturating_add(plan.depth).saturating_add(1);
        let need = decode.max(plan.prompt);
        check_context(model, need)?;
        options.context = Some(need);
        let mut session = model.session(&options)?;
        session.set_sampling(Sampling::greedy())?;
        let mut rules = StopRules::default();
        rules.end_of_text = false;
        session.set_stop(rules)?;
        let random = random_tokens(plan.prompt.max(plan.depth), model.vocab());
        Ok(Self { session, plan, random, kv_bytes: 0 })
    }

    /// Measures everything once.
    fn round(&mut self, file: &Gguf, runs: &mut Runs) -> anyhow::Result<()> {
        if self.plan.prompt > 0 {
            runs.prefill.push(self.prefill()?);
        }
        if self.plan.tokens > 0 {
            runs.decode.push(self.decode()?);
            for (name, read) in bandwidth::READS {
                let bytes_per_second = bandwidth::measure(file, self.session.model().threads(), read);
                runs.reads.entry(name).or_default().push(bytes_per_second);
            }
        }
        Ok(())
    }

    /// Runs the prompt; in tokens per second.
    fn prefill(&mut self) -> anyhow::Result<f64> {
        self.session.truncate(0);
        let start = Instant::now();
        self.session.push_tokens(&self.random[..self.plan.prompt])?;
        Ok(self.plan.prompt as f64 / start.elapsed().as_secs_f64())
    }

    /// Decodes; in tokens per second.
    fn decode(&mut self) -> anyhow::Result<f64> {
        self.session.truncate(0);
        self.session.push_tokens(&self.random[..self.plan.depth])?;
        // Comes out of the logits that are there already.
        self.session.next_token()?;
        let before = self.session.kv_bytes();
        let start = Instant::now();
        for _ in 0..self.plan.tokens {
            self.session.next_token()?.context("the generation ended early")?;
        }
        let rate = self.plan.tokens as f64 / start.elapsed().as_secs_f64();
        self.kv_bytes = before.midpoint(self.session.kv_bytes());
        Ok(rate)
    }
}

/// Fails if the model has no context of `need` tokens.
fn check_context(model: &Model, need: usize) -> anyhow::Result<()> {
    let limit = model.config().context;
    ensure!(need <= limit, "this takes a context of {need} tokens, the model has {limit}: lower -p, -n or --depth");
    Ok(())
}

/// `count` random token ids, the same every time.
fn random_tokens(count: usize, vocab: usize) -> Vec<u32> {
    // Knuth's MMIX generator: its upper bits are random enough to spread over an embedding.
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % vocab as u64) as u32
    };
    (0..count).map(|_| next()).collect()
}

fn describe(source: &Source, file: &Gguf, model: &Model) -> ModelReport {
    let mut formats = BTreeMap::new();
    for tensor in file.tensors() {
        *formats.entry(type_name(tensor)).or_default() += 1;
    }
    ModelReport {
        source: source.to_string(),
        name: model.config().name.clone(),
        architecture: model.config().architecture.clone(),
        tensor_bytes: file.tensors().iter().map(|tensor| tensor.data.len()).sum(),
        formats,
    }
}

/// Size of the largest cache of the first processor, in bytes, if Linux tells.
fn last_level_cache() -> Option<u64> {
    let caches = fs::read_dir("/sys/devices/system/cpu/cpu0/cache").ok()?;
    let sizes = caches.filter_map(|cache| {
        let size = fs::read_to_string(cache.ok()?.path().join("size")).ok()?;
        size.trim().strip_suffix('K')?.parse::<u64>().ok()?.checked_mul(1024)
    });
    sizes.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_in_the_vocabulary_and_never_change() {
        let tokens = random_tokens(1000, 300);
        assert!(tokens.iter().all(|&id| id < 300));
        assert!(tokens.iter().any(|&id| id != tokens[0]));
        assert_eq!(tokens, random_tokens(1000, 300));
    }
}
