//! `halfbyte run`: a text goes in and comes out longer.
//!
//! Text streams to stdout as the model makes it, the prompt first; what it cost goes to stderr, as does a bar while a
//! long prompt is read. With `--json` nothing streams: one object at the end has it all. With `--chat` the text is a
//! message, and only the answer is printed. Ctrl-C ends the text where it is.

use std::{
    io::{self, Write},
    process,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use clap::error::ErrorKind;
use halfbyte::{Finish, RuntimeError, Session, StopRules, chat::Message};
use serde::Serialize;

use crate::{
    args::{self, ChatArgs, ComputeArgs, ContextArgs, OptionalModelArg, Prompt, SamplingArgs},
    console,
    prefixes::PrefixArg,
    signals,
};

const EXAMPLES: &str = "Examples:
  halfbyte run -p \"Once upon a time\"
  halfbyte run model.gguf -p \"The king said\" -n 500 --temp 0
  halfbyte run model.gguf -f story.txt --stop \"THE END\" --seed 7
  halfbyte run model.gguf --chat --system \"Be brief.\" -p \"Who was Ada Lovelace?\"
  halfbyte run model.gguf --prefix story.prefix -f story.txt
  date | halfbyte run model.gguf -p - --json

--json prints one object:
  {\"model\", \"prompt\", \"text\", \"tokens\": [ids], \"finish\", \"stats\": {\"load_s\",
   \"prompt_tokens\", \"cached_tokens\", \"prompt_s\", \"prompt_tokens_per_s\", \"first_token_s\",
   \"tokens\", \"decode_s\", \"tokens_per_s\", \"seed\", \"isa\", \"threads\"}}
where text and tokens are what was generated, and finish is end_of_text,
stop_string, max_tokens, context_full, or cancelled, by Ctrl-C; first_token_s
is null if there was no token. Of the prompt_tokens, cached_tokens were known
from the file of --prefix, and not run.";

/// Longest stop string the runtime takes, in bytes, and most of them.
const MAX_STOP_BYTES: usize = 1024;
const MAX_STOPS: usize = 64;

/// What to continue, and how.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(mut_arg("system", |arg| arg.requires("chat")), mut_arg("template", |arg| arg.requires("chat")))]
pub(crate) struct Args {
    #[command(flatten)]
    model: OptionalModelArg,
    #[command(flatten)]
    prompt: Prompt,
    /// Most tokens to generate
    #[arg(short = 'n', long = "tokens", value_name = "N", default_value_t = 256,
          value_parser = args::count(0, u64::MAX))]
    tokens: usize,
    /// End the text where TEXT would appear; may be given more than once
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = stop)]
    stop: Vec<String>,
    /// Go on when the model says that the text is at its end
    #[arg(long)]
    ignore_eos: bool,
    /// Answer the text as a message of a user instead of continuing it
    #[arg(long)]
    chat: bool,
    #[command(flatten)]
    conversation: ChatArgs,
    /// Let the names of special tokens in the text stand for these tokens
    #[arg(long, conflicts_with = "chat")]
    special: bool,
    #[command(flatten)]
    prefix: PrefixArg,
    /// Print only what was generated, not the prompt before it
    #[arg(long)]
    no_echo: bool,
    /// Do not say on stderr what it cost
    #[arg(short, long)]
    quiet: bool,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    compute: ComputeArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
}

/// Reads a stop string.
fn stop(text: &str) -> Result<String, String> {
    let fits = (1..=MAX_STOP_BYTES).contains(&text.len());
    fits.then(|| text.to_owned()).ok_or_else(|| format!("expected 1 to {MAX_STOP_BYTES} bytes"))
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let stops = args.stop.len();
    if stops > MAX_STOPS {
        let text = format!("--stop is given {stops} times: expected at most {MAX_STOPS}\n");
        return Err(clap::Error::raw(ErrorKind::TooManyValues, text).into());
    }
    let prompt = args.prompt.read()?;
    let source = args.model.source();
    let model = source.open(&args.compute.load_options())?;
    let mut session = args.context.session(&model)?;
    session.set_sampling(args.sampling.sampling())?;
    let mut rules = StopRules::default();
    rules.max_tokens = Some(args.tokens);
    rules.strings = args.stop;
    rules.end_of_text = !args.ignore_eos;
    session.set_stop(rules)?;
    args.prefix.give(&mut session)?;

    static STOPPED: AtomicBool = AtomicBool::new(false);
    let cancel = session.cancel_token();
    signals::on_interrupt(move || {
        // Who asks twice does not want to wait.
        if STOPPED.swap(true, Ordering::SeqCst) {
            process::exit(signals::INTERRUPTED);
        }
        cancel.cancel();
    })?;
    session.on_event(console::event);
    session.on_progress(console::steps("tokens of the prompt"));
    let pushed = if args.chat {
        let mut messages = args.conversation.messages();
        messages.push(Message::user(&*prompt));
        session.push_chat(&args.conversation.template(&model)?, &messages)
    } else if args.special {
        session.push_markup(&prompt)
    } else {
        session.push_text(&prompt)
    };
    let pushed = pushed.map_err(|error| match error {
        RuntimeError::Cancelled => process::exit(signals::INTERRUPTED),
        RuntimeError::ContextFull { context, .. } => anyhow::Error::new(error).context(format!(
            "the prompt is too long for a context of {context} tokens (--ctx; this model has at most {})",
            model.config().context
        )),
        other => other.into(),
    })?;
    let what = if args.chat { "what the template makes of the message" } else { "the prompt" };
    anyhow::ensure!(pushed > 0, "{what} is empty");
    args.prefix.advise(&session);
    let mut stdout = io::stdout().lock();
    if !(args.json || args.no_echo || args.chat) {
        // Only now: the bar shares the terminal.
        write!(stdout, "{}", console::shown(&prompt))?;
        stdout.flush()?;
    }
    let (mut text, mut tokens) = (String::new(), Vec::new());
    loop {
        let token = match session.next_token() {
            Err(RuntimeError::Cancelled) => break,
            token => token?,
        };
        text.push_str(session.text());
        if !args.json && !session.text().is_empty() {
            write!(stdout, "{}", console::shown(session.text()))?;
            stdout.flush()?;
        }
        match token {
            Some(token) => tokens.push(token),
            None => break,
        }
    }
    if args.json {
        let report = Report {
            model: source.to_string(),
            finish: if STOPPED.load(Ordering::SeqCst) { Some("cancelled") } else { session.finish().map(Finish::name) },
            stats: Cost::of(&session),
            prompt,
            text,
            tokens,
        };
        writeln!(stdout, "{}", serde_json::to_string(&report)?)?;
    } else {
        if !text.ends_with('\n') {
            writeln!(stdout)?;
        }
        stdout.flush()?;
        if !args.quiet {
            console::note(&Cost::of(&session).to_string());
        }
    }
    if STOPPED.load(Ordering::SeqCst) {
        process::exit(signals::INTERRUPTED);
    }
    Ok(())
}

#[derive(Serialize)]
struct Report {
    model: String,
    prompt: String,
    text: String,
    tokens: Vec<u32>,
    finish: Option<&'static str>,
    stats: Cost,
}

/// What a generation cost; times are in seconds.
#[derive(Serialize)]
pub(crate) struct Cost {
    load_s: f64,
    prompt_tokens: usize,
    cached_tokens: usize,
    prompt_s: f64,
    prompt_tokens_per_s: f64,
    first_token_s: Option<f64>,
    tokens: usize,
    decode_s: f64,
    tokens_per_s: f64,
    seed: u64,
    isa: &'static str,
    threads: usize,
    #[serde(skip)]
    finish: Option<Finish>,
}

impl Cost {
    /// Of the last prompt of `session` and what it made of it.
    pub(crate) fn of(session: &Session) -> Self {
        let (stats, model) = (session.stats(), session.model());
        Self {
            load_s: stats.load.as_secs_f64(),
            prompt_tokens: stats.prompt_tokens,
            cached_tokens: stats.cached_tokens,
            prompt_s: stats.prompt.as_secs_f64(),
            prompt_tokens_per_s: stats.prompt_rate(),
            first_token_s: stats.first_token.as_ref().map(Duration::as_secs_f64),
            tokens: stats.tokens,
            decode_s: stats.decode.as_secs_f64(),
            tokens_per_s: stats.decode_rate(),
            seed: stats.seed,
            isa: model.isa().name(),
            threads: model.threads(),
            finish: session.finish(),
        }
    }
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "load {:.1} ms", self.load_s * 1e3)?;
        write!(f, " | prompt {} tokens", self.prompt_tokens)?;
        if self.cached_tokens > 0 {
            write!(f, " ({} known)", self.cached_tokens)?;
        }
        write!(f, ", {:.1} tokens/s", self.prompt_tokens_per_s)?;
        if let Some(first) = self.first_token_s {
            write!(f, " | first token {:.1} ms", first * 1e3)?;
        }
        write!(f, " | {} tokens, {:.1} tokens/s", self.tokens, self.tokens_per_s)?;
        write!(f, " | seed {} | {} | {} threads", self.seed, self.isa, self.threads)?;
        match self.finish {
            Some(finish) => write!(f, " | {}", finish.name()),
            None => Ok(()),
        }
    }
}
