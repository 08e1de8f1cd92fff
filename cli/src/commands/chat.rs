//! `halfbyte chat`: a conversation, one line a turn, in the format of the model's chat template.
//!
//! The program holds the messages; the session runs what is new in them. A turn that does not fit, fails or is stopped
//! leaves the conversation as it was. What the user types is always text, so nobody can type a tag.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Context;
use halfbyte::{
    CancelToken, Finish, RuntimeError, Session, StopRules,
    chat::{ChatTemplate, Message},
};

use crate::{
    args::{ChatArgs, ComputeArgs, ContextArgs, OptionalModelArg, SamplingArgs},
    commands::run::Cost,
    console,
};

const EXAMPLES: &str = "Examples:
  halfbyte chat model.gguf
  halfbyte chat model.gguf --system \"Answer in one sentence.\"
  halfbyte chat model.gguf --template phi-4-mini
  printf 'Who are you?\\nWhy?\\n' | halfbyte chat model.gguf --temp 0

Each line is a turn. Ctrl-C stops an answer, and its turn is forgotten; with none
running it ends the program, as the end of the input does.";

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
    #[command(flatten)]
    chat: ChatArgs,
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
    session.on_event(console::event);
    let mut chat = Chat {
        template: args.chat.template(&model)?,
        messages: args.chat.messages(),
        interrupt: Interrupt::install(session.cancel_token())?,
        session,
    };
    let beginning = chat.messages.len();

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
            "/reset" => chat.go_back(beginning, 0),
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
    template: ChatTemplate,
    messages: Vec<Message>,
    interrupt: Interrupt,
}

impl Chat {
    /// Says `text` and prints the answer. What can be repaired by the user is told, and is no error.
    fn turn(&mut self, text: &str) -> anyhow::Result<()> {
        let (messages, tokens) = (self.messages.len(), self.session.tokens().len());
        self.interrupt.arm();
        let done = self.push(text).and_then(|()| self.answer());
        self.interrupt.disarm();
        match done {
            Ok(answer) => self.messages.push(Message::assistant(answer)),
            Err(error) => {
                self.go_back(messages, tokens);
                match error.downcast_ref() {
                    Some(RuntimeError::Cancelled) => console::note("(stopped)"),
                    Some(RuntimeError::Chat(error)) => console::note(&format!("not sent: {error}")),
                    Some(RuntimeError::ContextFull { need, context, used }) => console::note(&format!(
                        "not sent: it takes {need} tokens, and {used} of {context} are used; \
                         say less, or forget the conversation with /reset (--ctx gives more room)"
                    )),
                    _ => return Err(error),
                }
            }
        }
        if self.session.finish() == Some(Finish::ContextFull) {
            console::note(&format!(
                "(cut short: the context of {} tokens is full; /reset starts a new conversation)",
                self.session.context()
            ));
        }
        Ok(())
    }

    /// Forgets what came after these numbers of messages and tokens.
    fn go_back(&mut self, messages: usize, tokens: usize) {
        self.messages.truncate(messages);
        if self.session.tokens().len() > tokens {
            self.session.truncate(tokens);
        }
    }

    /// Runs what is new, up to the first token of the answer, or nothing.
    fn push(&mut self, text: &str) -> anyhow::Result<()> {
        self.messages.push(Message::user(text));
        self.session.on_progress(console::steps("tokens"));
        self.session.push_chat(&self.template, &self.messages)?;
        Ok(())
    }

    /// Prints the answer and ends its line, also if it was stopped.
    fn answer(&mut self) -> anyhow::Result<String> {
        let (mut stdout, mut answer) = (io::stdout().lock(), String::new());
        let done = loop {
            let token = match self.session.next_token() {
                Ok(token) => token,
                Err(error) => break Err(error),
            };
            answer.push_str(self.session.text());
            write!(stdout, "{}", self.session.text())?;
            stdout.flush()?;
            if token.is_none() {
                break Ok(());
            }
        };
        writeln!(stdout)?;
        done?;
        Ok(answer)
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
