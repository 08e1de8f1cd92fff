//! `halfbyte prefix`: what a model has made of a prompt, kept in a file for the next time.

use std::{
    fmt,
    io::{self, Write},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::{ArgGroup, Subcommand};
use halfbyte::{
    Model, PrefixCache, Request, RuntimeError, Sampling, Scheduler, SchedulerOptions, chat::Message, text::Special,
};
use halfbyte_formats::FormatError;
use serde::Serialize;

use crate::{
    args::{ChatArgs, ComputeArgs, KvArg, ModelArg, Prompt},
    console, prefixes,
};

const EXAMPLES: &str = "A file holds keys and values of any number of prompts, and is of use with the very
model, number format and instruction set that it was made with; others refuse it.
What run, chat and schedulers make of a prompt begins with what it has in common
with one of them.

Examples:
  halfbyte prefix save model.gguf brief.prefix --chat --system \"Be brief.\"
  halfbyte chat model.gguf --system \"Be brief.\" --prefix brief.prefix
  halfbyte prefix save model.gguf story.prefix -f story.txt
  halfbyte run model.gguf -f story.txt --prefix story.prefix
  halfbyte prefix list model.gguf story.prefix";

const SAVED: &str = "With --chat it is what conversations begin with: what --system says, or that and
a message of a user (-p), without which some templates make nothing.
While another program saves the file, this one waits.

--json prints one object: {\"file\", \"pages\", \"bytes\"}, of all that is in it now.";

const LOADED: &str = "--json prints one object:
  {\"pages\", \"load_s\", \"prompt_tokens\", \"cached_tokens\", \"first_token_s\"}
where cached_tokens of the prompt_tokens were known from the file, and not run.";

const LISTED: &str = "--json prints one object:
  {\"prefixes\": [{\"tokens\": count, \"kv\", \"factors\", \"text\"}]}
where text is how it begins.";

/// How long whoever saves the file is given before it is tried again.
const PATIENCE: Duration = Duration::from_millis(50);

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
    #[command(after_help = SAVED)]
    Save(Prompted),
    /// Check a file, and run a prompt with what is in it
    #[command(after_help = LOADED)]
    Load(Prompted),
    /// Check a file and show what is in it
    #[command(after_help = LISTED)]
    List(Place),
}

/// A prompt for a model with a file.
#[derive(clap::Args)]
#[command(mut_arg("system", |arg| arg.requires("chat")), mut_arg("template", |arg| arg.requires("chat")))]
#[command(mut_group("Prompt", |group| group.required(false)))]
#[command(group = ArgGroup::new("what").args(["prompt", "file", "system"]).required(true).multiple(true))]
struct Prompted {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    prompt: Option<Prompt>,
    /// The prompt of a conversation, as run --chat and chat make it
    #[arg(long)]
    chat: bool,
    #[command(flatten)]
    conversation: ChatArgs,
    /// Let the names of special tokens in the text stand for these tokens
    #[arg(long, conflicts_with = "chat")]
    special: bool,
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
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Runs `prefix`.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    match args.action {
        Action::Save(prompted) => save(prompted),
        Action::Load(prompted) => load(prompted),
        Action::List(place) => list(&place),
    }
}

impl Place {
    /// A scheduler that keeps whatever it is given.
    fn open(&self) -> anyhow::Result<Scheduler> {
        let model = self.model.model.open(&self.compute.load_options())?;
        let mut options = SchedulerOptions::default();
        (options.max_concurrent, options.kv, options.prefix_bytes) = (1, self.kv.kv, usize::MAX);
        options.timeout = Duration::from_secs(3600);
        Ok(Scheduler::new(&model, &options)?)
    }

    fn load(&self, scheduler: &Scheduler) -> anyhow::Result<usize> {
        prefixes::load(scheduler.prefixes(), &self.prefixes)
    }

    /// Prints `report`, as an object or in words.
    fn print(&self, report: &(impl Serialize + fmt::Display)) -> anyhow::Result<()> {
        if self.json {
            return Ok(writeln!(io::stdout(), "{}", serde_json::to_string(report)?)?);
        }
        Ok(writeln!(io::stdout(), "{report}")?)
    }
}

impl Prompted {
    /// The file, and the tokens of the prompt for `model`, one at least.
    fn tokens(self, model: &Model) -> anyhow::Result<(Place, Vec<u32>)> {
        let tokenizer = model.tokenizer().ok_or(RuntimeError::NoVocabulary)?;
        let text = self.prompt.map(Prompt::read).transpose()?;
        let tokens = if self.chat {
            let (mut messages, has_user) = (self.conversation.messages(), text.is_some());
            messages.extend(text.map(Message::user));
            let template = self.conversation.template(model)?.with_tokenizer(tokenizer);
            let prompt = match template.render(&messages, has_user) {
                Err(error) if !has_user => Err(error).context(
                    "the template makes no prompt of a system message alone (-p adds a message of a user to it)",
                ),
                done => done.map_err(Into::into),
            }?;
            prompt.tokens().unwrap_or(&[]).to_vec()
        } else {
            let special = if self.special { Special::Parse } else { Special::AsText };
            let mut tokens = tokenizer.encode(&text.unwrap_or_default(), special);
            // As every session puts it there.
            tokens.splice(0..0, tokenizer.bos().filter(|_| tokenizer.add_bos()));
            tokens
        };
        let what = if self.chat { "what the template makes of the messages" } else { "the prompt" };
        ensure!(!tokens.is_empty(), "{what} is empty");
        Ok((self.place, tokens))
    }
}

/// Runs the prompt up to its first token; after how long that came.
fn first_token(scheduler: &Scheduler, tokens: Vec<u32>) -> anyhow::Result<Duration> {
    let mut request = Request::new(tokens);
    (request.sampling, request.stop.max_tokens) = (Sampling::greedy(), Some(1));
    request.stop.end_of_text = false;
    let start = Instant::now();
    for piece in scheduler.submit(request)? {
        piece?;
    }
    Ok(start.elapsed())
}

fn save(prompted: Prompted) -> anyhow::Result<()> {
    let scheduler = prompted.place.open()?;
    let (place, tokens) = prompted.tokens(scheduler.model())?;
    if place.prefixes.exists() {
        place.load(&scheduler)?;
    }
    first_token(&scheduler, tokens)?;
    let pages = add(scheduler.prefixes(), &place.prefixes)?;
    let bytes = place.prefixes.metadata()?.len();
    place.print(&Saved { file: place.prefixes.display().to_string(), pages, bytes })
}

/// Adds `prefixes` to the file `path`, when nobody else does. Returns how many pages are in it then.
fn add(prefixes: &PrefixCache, path: &Path) -> anyhow::Result<usize> {
    let mut waits = false;
    loop {
        match prefixes.add_to(path) {
            Err(RuntimeError::Format(FormatError::Io { action: "lock", source, .. }))
                if source.kind() == io::ErrorKind::WouldBlock =>
            {
                if !waits {
                    console::note(&format!("(another program is saving {}: waiting for it)", path.display()));
                }
                waits = true;
                thread::sleep(PATIENCE);
            }
            done => return Ok(done?),
        }
    }
}

fn load(prompted: Prompted) -> anyhow::Result<()> {
    let scheduler = prompted.place.open()?;
    let (place, tokens) = prompted.tokens(scheduler.model())?;
    let start = Instant::now();
    let pages = place.load(&scheduler)?;
    let load_s = start.elapsed().as_secs_f64();
    let prompt_tokens = tokens.len();
    let first_token_s = first_token(&scheduler, tokens)?.as_secs_f64();
    let cached_tokens = scheduler.stats().cached_tokens;
    place.print(&Loaded { pages, load_s, prompt_tokens, cached_tokens, first_token_s })
}

fn list(place: &Place) -> anyhow::Result<()> {
    let scheduler = place.open()?;
    place.load(&scheduler)?;
    let prefixes = scheduler.prefixes().entries()?.into_iter().map(|entry| Listed {
        tokens: entry.tokens.len(),
        kv: format!("{:?}", entry.kv).to_lowercase(),
        factors: entry.factors.name(),
        text: beginning(scheduler.model(), &entry.tokens),
    });
    let mut out = io::stdout().lock();
    if place.json {
        return Ok(writeln!(out, "{}", serde_json::to_string(&List { prefixes: prefixes.collect() })?)?);
    }
    for Listed { tokens, kv, factors, text } in prefixes {
        let text: String = text.chars().flat_map(char::escape_debug).take(SHOWN).collect();
        writeln!(out, "{tokens:>8} tokens  {kv:<4}  {factors} factors  {text}")?;
    }
    Ok(())
}

/// How the text of `tokens` begins.
fn beginning(model: &Model, tokens: &[u32]) -> String {
    let Some(tokenizer) = model.tokenizer() else { return String::new() };
    let mut text = String::new();
    let mut decoder = tokenizer.decoder();
    tokens.iter().take(SHOWN).for_each(|&token| decoder.push(token, &mut text));
    text.chars().take(SHOWN).collect()
}

/// What is in a file that was saved.
#[derive(Serialize)]
struct Saved {
    file: String,
    pages: usize,
    bytes: u64,
}

impl fmt::Display for Saved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} pages, {} bytes", self.file, self.pages, self.bytes)
    }
}

/// What a file was good for; times are in seconds.
#[derive(Serialize)]
struct Loaded {
    pages: usize,
    load_s: f64,
    prompt_tokens: usize,
    cached_tokens: u64,
    first_token_s: f64,
}

impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pages loaded in {:.3} s; ", self.pages, self.load_s)?;
        write!(f, "{} of {} tokens of the prompt were known, ", self.cached_tokens, self.prompt_tokens)?;
        write!(f, "first token after {:.3} s", self.first_token_s)
    }
}

#[derive(Serialize)]
struct List {
    prefixes: Vec<Listed>,
}

#[derive(Serialize)]
struct Listed {
    tokens: usize,
    kv: String,
    factors: &'static str,
    text: String,
}
