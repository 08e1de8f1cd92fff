//! One turn of a conversation.

use super::{ChatError, value::Value};

/// Roles that every template may be given.
const COMMON_ROLES: [&str; 6] = ["system", "user", "assistant", "tool", "developer", "function"];
/// Longest role, in bytes.
const MAX_ROLE: usize = 64;

/// What somebody says in a conversation.
///
/// ```
/// use halfbyte::chat::Message;
///
/// let system = Message::system("You are helpful.").with("tools", "[{\"name\": \"get_weather\"}]");
/// assert_eq!(system.role, "system");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// Who: `system`, `user`, `assistant`, or another role that the template knows.
    pub role: String,
    /// What. Names of special tokens in it are text like any other.
    pub content: String,
    /// What else the template asks of a message (`tools`, `tool_calls`, `reasoning_content`), in order. None is called
    /// `role`.
    pub fields: Vec<(String, Value)>,
}

impl Message {
    /// A message of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), fields: Vec::new() }
    }

    /// What the model is told before the conversation.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new("system", content)
    }

    /// What the user says.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    /// What the model said.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }

    /// Adds a field. Rendering refuses one called `role` ([`ChatError::SecondRole`]): it would not be the checked one.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// Checks that there is one role, and that it is a word that means a role to the template `source`. Templates build
    /// tags of roles, so any other word could become a tag that no user may write: `end` makes `<|end|>`.
    pub(super) fn check_role(&self, source: &str) -> Result<(), ChatError> {
        if self.fields.iter().any(|(name, _)| name == "role") {
            return Err(ChatError::SecondRole);
        }
        let role = self.role.as_str();
        let word = (1..=MAX_ROLE).contains(&role.len())
            && role.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        let named = || ['\'', '"'].iter().any(|quote| source.contains(&format!("{quote}{role}{quote}")));
        if COMMON_ROLES.contains(&role) || word && named() {
            return Ok(());
        }
        let role = role.chars().take(MAX_ROLE).collect();
        Err(ChatError::UnknownRole { role, common: COMMON_ROLES.join(", ") })
    }

    pub(super) fn to_value(&self) -> Value {
        let own = [("role", self.role.as_str()), ("content", self.content.as_str())];
        let own = own.map(|(name, text)| (name.to_owned(), Value::from(text)));
        Value::Map(own.into_iter().chain(self.fields.iter().cloned()).collect())
    }
}
