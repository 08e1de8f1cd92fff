//! Conversations as prompts: chat templates, from a model's file or built in.
//!
//! A [`ChatTemplate`] is a text in a part of Jinja, as Hugging Face's libraries render it. It came with a file, so it
//! is not trusted: its length, instructions, time and what it makes are limited, it reaches nothing but the messages,
//! and whatever it does ends in a prompt or a [`ChatError`].
//!
//! What is said is not trusted either: names of special tokens in a message stay text in the prompt's tokens. Before
//! rendering, each of them is broken by a mark, a noncharacter that occurs nowhere else; the mark is taken out when the
//! pieces between the template's own special tokens are encoded. So no message can end its turn, or begin another's,
//! also by what becomes a name only in other letters, without what a template replaces, or beside another text. Only a
//! template that cuts pieces out of texts, and puts them beside each other, can still make a name of them.
//!
//! ```
//! use halfbyte::chat::{ChatTemplate, Message};
//!
//! # fn main() -> Result<(), halfbyte::chat::ChatError> {
//! let template = ChatTemplate::builtin("phi-4-mini")?;
//! let prompt = template.render(&[Message::system("Be brief."), Message::user("Hello")], true)?;
//! assert_eq!(prompt.text(), "<|system|>Be brief.<|end|><|user|>Hello<|end|><|assistant|>");
//! # Ok(())
//! # }
//! ```
//!
//! [`Session::push_chat`](crate::Session::push_chat) runs a conversation, turn by turn.

mod builtin;
mod date;
mod engine;
mod error;
mod functions;
mod guard;
mod lexer;
mod message;
mod meter;
mod methods;
mod predicates;
mod print;
mod slice;
mod value;

use std::{cell::Cell, fmt, sync::Arc};

pub use error::ChatError;
pub use message::Message;
pub use value::Value;

use crate::{Model, text::Tokenizer};
use meter::Meter;
use value::{MAX_DEPTH, Ordered};

/// Longest template. The longest real ones have 20 KB.
const MAX_SOURCE: usize = 32 << 10;
/// Longest conversation, and most values in it.
const MAX_CONVERSATION: usize = 4 << 20;
const MAX_VALUES: usize = 1 << 20;

/// How messages become a prompt. Cheap to clone, `Send + Sync`.
#[derive(Clone)]
pub struct ChatTemplate {
    source: Arc<Source>,
    tokenizer: Option<Tokenizer>,
    variables: Vec<(String, Value)>,
}

#[derive(Debug)]
struct Source {
    name: Option<&'static str>,
    text: String,
    guarded: String,
}

impl ChatTemplate {
    /// The template `source`, in Jinja.
    ///
    /// # Errors
    /// [`ChatError::SourceTooLong`] over 32 KiB, [`ChatError::Syntax`].
    pub fn from_source(source: &str) -> Result<Self, ChatError> {
        Self::new(None, source)
    }

    fn new(name: Option<&'static str>, source: &str) -> Result<Self, ChatError> {
        if source.len() > MAX_SOURCE {
            return Err(ChatError::SourceTooLong { bytes: source.len(), limit: MAX_SOURCE });
        }
        let guarded = guard::guard(source)?;
        engine::check(&guarded)?;
        let source = Arc::new(Source { name, text: source.to_owned(), guarded });
        Ok(Self { source, tokenizer: None, variables: Vec::new() })
    }

    /// The built-in template `name`: one of [`ChatTemplate::builtin_names`].
    ///
    /// # Errors
    /// [`ChatError::UnknownTemplate`].
    pub fn builtin(name: &str) -> Result<Self, ChatError> {
        let builtin = builtin::named(name)?;
        Self::new(Some(builtin.name), builtin.source)
    }

    /// Names of the built-in templates.
    pub fn builtin_names() -> impl Iterator<Item = &'static str> {
        builtin::BUILTINS.iter().map(|builtin| builtin.name)
    }

    /// The template in `model`'s file; if there is none, the built-in one for its architecture and vocabulary. It has
    /// the model's tokenizer.
    ///
    /// # Errors
    /// As [`ChatTemplate::from_source`]; [`ChatError::NoTemplate`], also for a model without a vocabulary;
    /// [`ChatError::MissingToken`].
    pub fn for_model(model: &Model) -> Result<Self, ChatError> {
        let Some(tokenizer) = model.tokenizer() else {
            let architecture = model.config().architecture.clone();
            return Err(ChatError::NoTemplate { architecture, names: builtin::names() });
        };
        let template = match tokenizer.chat_template() {
            Some(source) => Self::from_source(source)?,
            None => Self::builtin(builtin::for_model(model, tokenizer)?.name)?,
        };
        Ok(template.with_tokenizer(tokenizer))
    }

    /// The same template with the special tokens of `tokenizer`: their names in messages are text, `bos_token` and
    /// `eos_token` are its, and prompts have tokens.
    #[must_use]
    pub fn with_tokenizer(mut self, tokenizer: &Tokenizer) -> Self {
        self.tokenizer = Some(tokenizer.clone());
        self
    }

    /// The same template with one more variable for it: `tools`, `enable_thinking` and what else templates ask for. The
    /// messages and a tokenizer's tokens cannot be changed by it.
    #[must_use]
    pub fn with_variable(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// The name, if it is a built-in one.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        self.source.name
    }

    /// The template itself.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source.text
    }

    /// The prompt for `messages`; with `add_generation_prompt` it ends where the assistant's answer begins.
    ///
    /// # Errors
    /// [`ChatError`]: a role that could be markup, a second one, a conversation of more than 4 MiB, or a template that
    /// refuses it, fails, or takes more than its limits.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<Prompt, ChatError> {
        messages.iter().try_for_each(|message| message.check_role(self.source()))?;
        let messages = Value::List(messages.iter().map(Message::to_value).collect());
        let given = || [&messages].into_iter().chain(self.variables.iter().map(|(_, value)| value));
        let too_large = |limit, unit| Err(ChatError::TooLarge { what: "the conversation", limit, unit });
        let mut sum = (0, 0);
        if !given().all(|value| value.measure(&mut sum, 0)) {
            return too_large(MAX_DEPTH, "values inside each other");
        }
        let (bytes, values) = sum;
        if bytes > MAX_CONVERSATION {
            return too_large(MAX_CONVERSATION, "bytes");
        }
        if values > MAX_VALUES {
            return too_large(MAX_VALUES, "values");
        }
        let Some(tokenizer) = &self.tokenizer else {
            let variables = self.variables(&messages, add_generation_prompt, &str::to_owned);
            let text = engine::render(&self.source.guarded, &variables, Meter::new(bytes, values))?;
            return Ok(Prompt { text, tokens: None });
        };
        let mark = ('\u{FDD0}'..='\u{FDEF}')
            .find(|&mark| !self.source().contains(mark) && !given().any(|value| value.contains(mark)));
        let mark = mark.ok_or(ChatError::NoMarker)?;
        let bytes = Cell::new(0);
        let variables = self.variables(&messages, add_generation_prompt, &|text| {
            let marked = tokenizer.mark_special(text, mark);
            bytes.set(bytes.get() + marked.len());
            marked
        });
        let meter = Meter::new(bytes.get(), values).marking(tokenizer, mark);
        let marked = engine::render(&self.source.guarded, &variables, meter)?;
        let mut tokens = tokenizer.encode_marked(&marked, mark);
        // Files say whether a text begins with it, templates often write it themselves.
        if let Some(bos) = tokenizer.bos().filter(|&bos| tokenizer.add_bos() && tokens.first() != Some(&bos)) {
            tokens.insert(0, bos);
        }
        Ok(Prompt { text: marked.replace(mark, ""), tokens: Some(tokens) })
    }

    /// What the template sees; `text` is done to all that is said.
    fn variables(
        &self,
        messages: &Value,
        add_generation_prompt: bool,
        text: &impl Fn(&str) -> String,
    ) -> minijinja::Value {
        let name_of = |id: fn(&Tokenizer) -> Option<u32>| {
            let tokenizer = self.tokenizer.as_ref()?;
            Some(String::from_utf8_lossy(tokenizer.token_bytes(id(tokenizer)?)?).into_owned())
        };
        let own = [("messages", with_roles(messages, text)), ("add_generation_prompt", add_generation_prompt.into())];
        let tokens = [("bos_token", name_of(Tokenizer::bos)), ("eos_token", name_of(Tokenizer::eos))];
        let tokens = tokens.into_iter().filter_map(|(name, token)| Some((name, token?.into())));
        let given = self.variables.iter().map(|(name, value)| (name.as_str(), value.to_engine(text)));
        // As in transformers these are there, and none.
        let absent = ["tools", "documents"].map(|name| (name, ().into()));
        // The first of a name counts.
        Ordered::of(own.into_iter().chain(tokens).chain(given).chain(absent))
    }
}

/// The messages for the engine, roles as they are: [`Message::check_role`] saw each, and that there is one a message.
fn with_roles(messages: &Value, text: &impl Fn(&str) -> String) -> minijinja::Value {
    let Value::List(messages) = messages else { return ().into() };
    let message = |message: &Value| match message {
        Value::Map(fields) => Ordered::of(fields.iter().map(|(name, value)| match value {
            Value::Text(role) if name == "role" => (name.clone(), role.as_str().into()),
            value => (text(name), value.to_engine(text)),
        })),
        _ => ().into(),
    };
    messages.iter().map(message).collect()
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name().unwrap_or("from a file");
        f.debug_struct("ChatTemplate").field("name", &name).field("variables", &self.variables).finish_non_exhaustive()
    }
}

/// A conversation as the model reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    text: String,
    tokens: Option<Vec<u32>>,
}

impl Prompt {
    /// The text, for people: it does not tell names of special tokens that somebody typed from the tokens themselves,
    /// so do not encode it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The tokens, if the template has a tokenizer, with the begin-of-sequence token if the vocabulary asks for it.
    #[must_use]
    pub fn tokens(&self) -> Option<&[u32]> {
        self.tokens.as_deref()
    }
}
