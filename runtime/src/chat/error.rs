//! Why a conversation could not be made into a prompt.

/// Why a chat template was refused, or gave no prompt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The template is longer than any real one.
    #[error("the chat template has {bytes} bytes, at most {limit} are supported")]
    SourceTooLong {
        /// Its length.
        bytes: usize,
        /// Most supported.
        limit: usize,
    },
    /// The template is not in the language of chat templates.
    #[error("chat template: {message} (line {line})")]
    Syntax {
        /// Line in the template, from 1; 0 if it is not known.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// The template did something that cannot be done.
    #[error("chat template: {message} (line {line})")]
    Render {
        /// Line in the template, from 1; 0 if it is not known.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// The template refuses this conversation, by `raise_exception`.
    #[error("the chat template refuses this conversation: {message}")]
    Refused {
        /// Its reason.
        message: String,
    },
    /// The conversation, or something the template makes of it, is too large.
    #[error("{what} would have more than {limit} {unit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Most allowed.
        limit: usize,
        /// Of what.
        unit: &'static str,
    },
    /// The template does not come to an end.
    #[error("the chat template takes more than {limit} instructions")]
    OutOfFuel {
        /// Most allowed.
        limit: u64,
    },
    /// The template takes too long.
    #[error("the chat template takes longer than {seconds} s")]
    OutOfTime {
        /// Most allowed.
        seconds: u64,
    },
    /// A role could be used to write markup.
    #[error("role {role:?} is neither a common one ({common}) nor named in the chat template")]
    UnknownRole {
        /// The role.
        role: String,
        /// Roles that every template may be given.
        common: String,
    },
    /// A message has a field called `role`, which is not checked as its role is.
    #[error("a message has a field \"role\" beside its role")]
    SecondRole,
    /// No built-in template has this name.
    #[error("there is no built-in chat template {name:?} (there are: {names})")]
    UnknownTemplate {
        /// The name.
        name: String,
        /// All there are.
        names: String,
    },
    /// The model's file has no template, and none is built in for its architecture.
    #[error(
        "the file has no chat template, and none is built in for architecture {architecture:?} (there are: {names})"
    )]
    NoTemplate {
        /// `general.architecture` of the file.
        architecture: String,
        /// All there are.
        names: String,
    },
    /// The vocabulary lacks a token without which a built-in template means nothing.
    #[error("the vocabulary has no control token {token}, which chat template {template} needs")]
    MissingToken {
        /// The token.
        token: &'static str,
        /// Name of the template.
        template: &'static str,
    },
    /// The conversation uses every code point that could mark a place in it.
    #[error("the conversation contains all 32 noncharacters from U+FDD0 to U+FDEF")]
    NoMarker,
    /// The thread that renders could not be started.
    #[error("cannot start the thread that renders chat templates")]
    Thread(#[source] std::io::Error),
    /// The engine panicked: a bug, but not one that ends the program.
    #[error("the template engine panicked")]
    EnginePanicked,
}

impl ChatError {
    /// The same error, for those that a template can cause while it runs.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::Refused { message } => Self::Refused { message: message.clone() },
            Self::TooLarge { what, limit, unit } => Self::TooLarge { what, limit: *limit, unit },
            Self::OutOfTime { seconds } => Self::OutOfTime { seconds: *seconds },
            other => Self::Render { line: 0, message: other.to_string() },
        }
    }
}
