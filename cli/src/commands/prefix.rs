//! `halfbyte prefix`: what a model has made of a prompt, kept in a file for the next time.

use std::{
    io::{self, Write},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Subcommand;
use halfbyte::{Model, Request, Sampling, Scheduler, SchedulerOptions};

use crate::args::{ComputeArgs, KvArg, ModelArg, Prompt};

const EXAMPLES: &str = "A file holds keys and values of any number of prompts, and is of use with the very
model, number format and instruction set that it was made with; others refuse it.

Examples:
  halfbyte prefix save model.gguf system.prefix -f system.txt
  halfbyte prefix list model.gguf system.prefix
  halfbyte prefix load model.gguf system.prefix -f question.txt";

/// Characters of a prompt that `list` shows.
const SHOWN: usize = 60;

/// Arguments of `prefix`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Run a prompt and add it to a file
    Save(Prompted),
    /// Check a file, and run a prompt with what is in it
    Load(Prompted),
    /// Check a file and show what is in it
    List(Place),
}

/// A prompt for a model with a file.
#[derive(clap::Args)]
struct Prompted {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    prompt: Prompt,
}

/// A model, and the file with its prefixes.
#[derive(clap::Args)]
struct Place {
    #[command(flatten)]
    model: ModelArg,
    /// The file with prefixes
    #[arg(value_name = "FILE")]
    prefixes: PathBuf,
    #[command(flatten)]
    compute: ComputeArgs,
    #[command(flatten)]
    kv: KvArg,
}

/// Runs `prefix`.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    match args.action {
        Action::Save(Prompted { place, prompt }) => save(&place, prompt),
        Action::Load(Prompted { place, prompt }) => load(&place, prompt),
        Action::List(place) => list(&place),
    }
}

impl Place {
    /// A scheduler that keeps whatever it is given, with what is in the file if that is there.
    fn open(&self) -> anyhow::Result<Scheduler> {
        let model = self.model.model.open(&self.compute.load_options())?;
        let mut options = SchedulerOptions::default();
        (options.max_concurrent, options.kv, options.prefix_bytes) = (1, self.kv.kv, usize::MAX);
        options.timeout = Duration::from_secs(3600);
        Ok(Scheduler::new(&model, &options)?)
    }

    fn load(&self, scheduler: &Scheduler) -> anyhow::Result<usize> {
        scheduler.prefixes().load(&self.prefixes).with_context(|| format!("cannot use {}", self.prefixes.display()))
    }
}

/// Runs `prompt` up to its first token; after how long that came.
fn first_token(scheduler: &Scheduler, prompt: Prompt) -> anyhow::Result<Duration> {
    let mut request = Request::text(scheduler.model(), &prompt.read()?)?;
    (request.sampling, request.stop.max_tokens) = (Sampling::greedy(), Some(1));
    request.stop.end_of_text = false;
    let start = Instant::now();
    for piece in scheduler.submit(request)? {
        piece?;
    }
    Ok(start.elapsed())
}

fn save(place: &Place, prompt: Prompt) -> anyhow::Result<()> {
    let scheduler = place.open()?;
    if place.prefixes.exists() {
        place.load(&scheduler)?;
    }
    first_token(&scheduler, prompt)?;
    let pages = scheduler.prefixes().save(&place.prefixes)?;
    let bytes = scheduler.prefixes().bytes();
    writeln!(io::stdout(), "{}: {pages} pages, {bytes} bytes of keys and values", place.prefixes.display())?;
    Ok(())
}

fn load(place: &Place, prompt: Prompt) -> anyhow::Result<()> {
    let scheduler = place.open()?;
    let start = Instant::now();
    let pages = place.load(&scheduler)?;
    let loaded = start.elapsed();
    let first = first_token(&scheduler, prompt)?;
    let stats = scheduler.stats();
    writeln!(
        io::stdout(),
        "{pages} pages loaded in {:.3} s; {} of {} tokens of the prompt were known, first token after {:.3} s",
        loaded.as_secs_f64(),
        stats.cached_tokens,
        stats.cached_tokens + stats.prompt_tokens,
        first.as_secs_f64()
    )?;
    Ok(())
}

fn list(place: &Place) -> anyhow::Result<()> {
    let scheduler = place.open()?;
    place.load(&scheduler)?;
    let mut out = io::stdout().lock();
    for entry in scheduler.prefixes().entries()? {
        let (tokens, kv) = (entry.tokens.len(), format!("{:?}", entry.kv).to_lowercase());
        let text = shown(scheduler.model(), &entry.tokens);
        writeln!(out, "{tokens:>8} tokens  {kv:<4}  {} factors  {text}", entry.factors.name())?;
    }
    Ok(())
}

/// How the text of `tokens` begins, on one line.
fn shown(model: &Model, tokens: &[u32]) -> String {
    let Some(tokenizer) = model.tokenizer() else { return String::new() };
    let mut text = String::new();
    let mut decoder = tokenizer.decoder();
    tokens.iter().take(SHOWN).for_each(|&token| decoder.push(token, &mut text));
    text.chars().flat_map(char::escape_debug).take(SHOWN).collect()
}
