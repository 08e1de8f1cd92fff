//! `halfbyte chat`: a conversation, a turn a line or a text of several, in the format of the model's chat template.
//!
//! The program holds the messages; the session runs what is new in them. A turn that does not fit, fails or is stopped
//! leaves the conversation as it was; but if it does not fit because of the turns before it, the older half of these is
//! forgotten. What the user types is always text, so nobody can type a tag.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, ensure};
use halfbyte::{
    CancelToken, Finish, RuntimeError, Session, StopRules,
    chat::{ChatTemplate, Message},
};

use crate::{
    args::{self, ChatArgs, ComputeArgs, ContextArgs, OptionalModelArg, SamplingArgs},
    commands::run::Cost,
    console,
    prefixes::PrefixArg,
    signals,
    typed::{Input, Typed},
};

const EXAMPLES: &str = "Examples:
  halfbyte chat model.gguf
  halfbyte chat model.gguf --system \"Answer in one sentence.\"
  halfbyte chat model.gguf --template phi-4-mini
  halfbyte chat model.gguf --system \"Be brief.\" --prefix brief.prefix
  printf 'Who are you?\\nWhy?\\n' | halfbyte chat model.gguf --temp 0

Each line is a turn; one that ends with \\ goes on in the next, and all lines
between two that are \"\"\" are one turn. Ctrl-C stops an answer, and its turn is
forgotten; with none running it ends the program, as the end of the input does.
When the context is full, the older half of the turns is forgotten; what --system
says never is.
If the input is no terminal, a turn without an answer makes the exit code 1.";

const COMMANDS: &str = "/help   this list
/reset  forget the conversation and start a new one
/stats  what the last answer cost, and how full the context is
/quit   end
A line that begins with // is sent without the first of them.
A line that ends with \\ goes on in the next one; a line \"\"\" begins a text of
several lines, and another one ends it.";

/// With whom, and how.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    model: OptionalModelArg,
    #[command(flatten)]
    chat: ChatArgs,
    #[command(flatten)]
    prefix: PrefixArg,
    /// Most tokens of an answer [default: what the context has room for]
    #[arg(short = 'n', long = "tokens", value_name = "N", value_parser = args::count(0, u64::MAX))]
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
    let mut session = args.context.session(&model)?;
    session.set_sampling(args.sampling.sampling())?;
    let mut rules = StopRules::default();
    rules.max_tokens = args.tokens;
    session.set_stop(rules)?;
    args.prefix.give(&mut session)?;
    session.on_event(console::event);
    let mut chat = Chat {
        template: args.chat.template(&model)?,
        beginning: args.chat.messages().len(),
        messages: args.chat.messages(),
        interrupt: Interrupt::install(session.cancel_token())?,
        session,
        prefix: Some(args.prefix),
        unanswered: 0,
    };

    let talking = io::stdin().is_terminal();
    if talking {
        console::note("/help lists commands, /quit ends");
    }
    let prompts = talking && io::stdout().is_terminal();
    let mut input = Input { source: io::stdin().lock(), terminal: talking, prompts };
    while let Some(typed) = input.next().context("cannot read stdin")? {
        let (text, quoted) = match typed {
            Typed::Line(text) => (text, false),
            Typed::Quoted(text) => (text, true),
            Typed::Open => {
                chat.not_sent("the text has no closing \"\"\"");
                continue;
            }
        };
        let Ok(text) = String::from_utf8(text) else {
            chat.not_sent("the line is not UTF-8");
            continue;
        };
        match text.trim() {
            "" => {}
            _ if quoted => chat.turn(&text)?,
            "/quit" => break,
            "/help" => console::note(COMMANDS),
            "/reset" => chat.go_back(args.chat.messages(), 0),
            "/stats" => chat.stats(),
            other => match other.strip_prefix('/') {
                None => chat.turn(&text)?,
                Some(rest) if rest.starts_with('/') => chat.turn(rest)?,
                Some(_) => console::note(&format!("unknown command {other:?}; /help lists commands")),
            },
        }
    }
    ensure!(talking || chat.unanswered == 0, "{} of the turns got no answer", chat.unanswered);
    Ok(())
}

struct Chat {
    session: Session,
    template: ChatTemplate,
    messages: Vec<Message>,
    /// How many messages there are before the first turn; after them come pairs, a question and its answer.
    beginning: usize,
    interrupt: Interrupt,
    /// Until the first turn has shown whether it was of use.
    prefix: Option<PrefixArg>,
    /// Turns that were not sent, or whose answer was stopped.
    unanswered: usize,
}

impl Chat {
    /// Says `text` and prints the answer. What can be repaired by the user is told, and is no error.
    fn turn(&mut self, text: &str) -> anyhow::Result<()> {
        let (kept, tokens) = (self.messages.clone(), self.session.tokens().len());
        self.interrupt.arm();
        let done = self.push(text).and_then(|()| self.answer());
        self.interrupt.disarm();
        let error = match done {
            Ok(answer) => {
                self.messages.push(Message::assistant(answer));
                if self.session.finish() == Some(Finish::ContextFull) {
                    let context = self.session.context();
                    console::note(&format!("(cut short: the context of {context} tokens is full)"));
                }
                return Ok(());
            }
            Err(error) => error,
        };
        self.go_back(kept, tokens);
        match error.downcast_ref() {
            Some(RuntimeError::Cancelled) => {
                self.unanswered += 1;
                console::note("(stopped)");
            }
            Some(RuntimeError::Chat(error)) => self.not_sent(error),
            Some(RuntimeError::ContextFull { need, context, used }) => self.not_sent(format_args!(
                "it takes {need} tokens, and {used} of {context} are used; say less (--ctx gives more room)"
            )),
            _ => return Err(error),
        }
        Ok(())
    }

    fn not_sent(&mut self, why: impl Display) {
        self.unanswered += 1;
        console::note(&format!("not sent: {why}"));
    }

    /// Goes back to these messages, and at most so many tokens.
    fn go_back(&mut self, messages: Vec<Message>, tokens: usize) {
        self.messages = messages;
        if self.session.tokens().len() > tokens {
            self.session.truncate(tokens);
        }
    }

    /// Runs what is new, up to the first token of the answer, or nothing. As long as it does not fit, the older half of
    /// the turns is forgotten.
    fn push(&mut self, text: &str) -> anyhow::Result<()> {
        let turns = |messages: &[Message]| (messages.len() - self.beginning) / 2;
        let before = turns(&self.messages);
        self.messages.push(Message::user(text));
        self.session.on_progress(console::steps("tokens"));
        loop {
            let left = turns(&self.messages);
            match self.session.push_chat(&self.template, &self.messages) {
                Err(RuntimeError::ContextFull { .. }) if left > 0 => {
                    self.messages.drain(self.beginning..self.beginning + 2 * left.div_ceil(2));
                }
                done => {
                    done?;
                    self.prefix.take().iter().for_each(|prefix| prefix.advise(&self.session));
                    if left < before {
                        let forgotten = before - left;
                        console::note(&format!("(the context is full: {forgotten} of {before} turns are forgotten)"));
                    }
                    return Ok(());
                }
            }
        }
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
            write!(stdout, "{}", console::shown(self.session.text()))?;
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
        signals::on_interrupt(move || {
            if !armed.load(Ordering::SeqCst) {
                std::process::exit(signals::INTERRUPTED);
            }
            cancel.cancel();
        })?;
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
