//! `halfbyte chat`: a conversation, one line a turn, in the ChatML format of the Qwen2 family.
//!
//! A turn is pushed in one piece, so a turn that does not fit leaves the conversation as it was. Tags are markup of
//! ours; what the user types is always text, so nobody can type a tag. The tag that closes an answer goes in front of
//! the next turn: the model need not run it before somebody answers.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Context;
use halfbyte::{CancelToken, Finish, RuntimeError, Session, StopRules, text::Special};

use crate::{
    args::{ComputeArgs, ContextArgs, OptionalModelArg, SamplingArgs},
    commands::run::Cost,
    console,
};

const START: &str = "<|im_start|>";
const END: &str = "<|im_end|>";

const EXAMPLES: &str = "Examples:
  halfbyte chat model.gguf
  halfbyte chat model.gguf --system \"Answer in one sentence.\"
  printf 'Who are you?\\nWhy?\\n' | halfbyte chat model.gguf --temp 0

Each line is a turn. Ctrl-C stops an answer; with none running it ends the
program, as the end of the input does.";

const COMMANDS: &str = "/help   this list
/reset  forget the conversation and start a new one
/stats  what the last answer cost, and how full the context is
/quit   end
A line that begins with // is sent without the first of them.";

/// With whom, and how.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    model: OptionalModelArg,
    /// What the model is told before the conversation
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    system: Option<String>,
    /// Most tokens of an answer [default: what the context has room for]
    #[arg(short = 'n', long = "tokens", value_name = "N")]
    tokens: Option<usize>,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    compute: ComputeArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let model = args.model.source().open(&args.compute.load_options())?;
    let mut session = model.session(&args.context.session_options())?;
    session.set_sampling(args.sampling.sampling())?;
    let mut rules = StopRules::default();
    rules.max_tokens = args.tokens;
    session.set_stop(rules)?;
    let mut chat = Chat { interrupt: Interrupt::install(session.cancel_token())?, session, system: args.system };
    chat.check()?;

    let talking = io::stdin().is_terminal();
    if talking {
        console::note("/help lists commands, /quit ends");
    }
    let mut lines = io::stdin().lock().lines();
    loop {
        if talking {
            write!(io::stdout(), "> ")?;
            io::stdout().flush()?;
        }
        let Some(line) = lines.next() else {
            if talking {
                // The shell's prompt gets a line of its own.
                writeln!(io::stdout())?;
            }
            return Ok(());
        };
        let line = line.context("cannot read stdin")?;
        match line.trim() {
            "" => {}
            "/quit" => return Ok(()),
            "/help" => console::note(COMMANDS),
            "/reset" => chat.session.truncate(0),
            "/stats" => chat.stats(),
            other => match other.strip_prefix('/') {
                None => chat.turn(&line)?,
                Some(rest) if rest.starts_with('/') => chat.turn(rest)?,
                Some(_) => console::note(&format!("unknown command {other:?}; /help lists commands")),
            },
        }
    }
}

struct Chat {
    session: Session,
    system: Option<String>,
    interrupt: Interrupt,
}

impl Chat {
    /// Fails if the vocabulary lacks the tags, or would find them in what the user types.
    fn check(&self) -> anyhow::Result<()> {
        let tokenizer = self.session.model().tokenizer().ok_or(RuntimeError::NoVocabulary)?;
        for tag in [START, END] {
            anyhow::ensure!(
                tokenizer.token_id(tag).is_some_and(|id| tokenizer.is_control(id)),
                "the vocabulary has no control token {tag}: this model cannot chat, use `halfbyte run`"
            );
        }
        Ok(())
    }

    /// Says `text` and prints the answer. What can be repaired by the user is told, and is no error.
    fn turn(&mut self, text: &str) -> anyhow::Result<()> {
        self.interrupt.arm();
        let done = self.push(text).and_then(|()| self.answer());
        self.interrupt.disarm();
        match done {
            Err(error) => match error.downcast_ref() {
                Some(RuntimeError::Cancelled) => console::note("(stopped)"),
                Some(RuntimeError::ContextFull { need, context, used }) => console::note(&format!(
                    "not sent: it takes {need} tokens, and {used} of {context} are used; \
                     say less, or forget the conversation with /reset (--ctx gives more room)"
                )),
                _ => return Err(error),
            },
            Ok(()) if self.session.finish() == Some(Finish::ContextFull) => console::note(&format!(
                "(cut short: the context of {} tokens is full; /reset starts a new conversation)",
                self.session.context()
            )),
            Ok(()) => {}
        }
        Ok(())
    }

    /// Pushes all tokens up to the first of the answer, or none.
    fn push(&mut self, text: &str) -> anyhow::Result<()> {
        let tokenizer = self.session.model().tokenizer().ok_or(RuntimeError::NoVocabulary)?;
        let mut tokens = Vec::new();
        let markup = |tokens: &mut Vec<u32>, text: &str| tokens.extend(tokenizer.encode(text, Special::Parse));
        if !self.session.tokens().is_empty() {
            markup(&mut tokens, &format!("{END}\n"));
        } else {
            tokens.extend(tokenizer.bos().filter(|_| tokenizer.add_bos()));
            if let Some(system) = &self.system {
                markup(&mut tokens, &format!("{START}system\n"));
                tokens.extend(tokenizer.encode(system, Special::AsText));
                markup(&mut tokens, &format!("{END}\n"));
            }
        }
        markup(&mut tokens, &format!("{START}user\n"));
        tokens.extend(tokenizer.encode(text, Special::AsText));
        markup(&mut tokens, &format!("{END}\n{START}assistant\n"));
        self.session.on_progress(console::steps("tokens"));
        Ok(self.session.push_tokens(&tokens)?)
    }

    /// Prints the answer and ends its line, also if it was stopped.
    fn answer(&mut self) -> anyhow::Result<()> {
        let mut stdout = io::stdout().lock();
        let done = loop {
            let token = match self.session.next_token() {
                Ok(token) => token,
                Err(error) => break Err(error),
            };
            write!(stdout, "{}", self.session.text())?;
            stdout.flush()?;
            if token.is_none() {
                break Ok(());
            }
        };
        writeln!(stdout)?;
        Ok(done?)
    }

    fn stats(&self) {
        console::note(&Cost::of(&self.session).to_string());
        console::note(&format!("context: {} of {} tokens", self.session.tokens().len(), self.session.context()));
    }
}

/// What Ctrl-C does: stops the answer that is being made, else ends the program.
struct Interrupt {
    cancel: CancelToken,
    armed: Arc<AtomicBool>,
}

impl Interrupt {
    fn install(cancel: CancelToken) -> anyhow::Result<Self> {
        let armed = Arc::new(AtomicBool::new(false));
        let this = Self { cancel: cancel.clone(), armed: Arc::clone(&armed) };
        ctrlc::set_handler(move || {
            if !armed.load(Ordering::SeqCst) {
                std::process::exit(console::INTERRUPTED);
            }
            cancel.cancel();
        })
        .context("cannot listen for Ctrl-C")?;
        Ok(this)
    }

    fn arm(&self) {
        self.cancel.reset();
        self.armed.store(true, Ordering::SeqCst);
    }

    fn disarm(&self) {
        self.armed.store(false, Ordering::SeqCst);
    }
}
