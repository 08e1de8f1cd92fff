//! When a generation ends, and which text may be shown before that is known.

use crate::RuntimeError;

/// Longest stop string, in bytes, and most stop strings: each new token is compared with all of them.
const MAX_STOP_BYTES: usize = 1024;
const MAX_STOP_STRINGS: usize = 64;

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finish {
    /// The model said so: an end-of-generation token.
    EndOfText,
    /// One of [`StopRules::strings`] appeared; it is not part of the text.
    StopString,
    /// [`StopRules::max_tokens`] were generated.
    MaxTokens,
    /// The context is full.
    ContextFull,
}

impl Finish {
    /// A stable lower-case name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::EndOfText => "end_of_text",
            Self::StopString => "stop_string",
            Self::MaxTokens => "max_tokens",
            Self::ContextFull => "context_full",
        }
    }
}

/// What happens when a generation has filled the context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// It ends: [`Finish::ContextFull`].
    #[default]
    Stop,
    /// It fails: [`RuntimeError::ContextFull`].
    Error,
    /// It goes on. The first `keep` tokens stay (a system prompt, say), the older half of the others is dropped, and
    /// the younger half is run again. A prompt that is longer than the context is refused as ever.
    Slide {
        /// Tokens at the start that are never dropped; at least two less than the context has.
        keep: usize,
    },
}

impl Overflow {
    /// The smallest context that it makes sense in. Two tokens after those that are kept: one is dropped, and one is
    /// left to be run, without which the last logits would be those of a token that is gone.
    pub(crate) fn least_context(self) -> usize {
        match self {
            Self::Stop | Self::Error => 1,
            Self::Slide { keep } => keep.saturating_add(2),
        }
    }

    /// Checks that it makes sense in a `context` of so many tokens.
    ///
    /// # Errors
    /// [`RuntimeError::InvalidOption`].
    pub(crate) fn check(self, context: usize) -> Result<(), RuntimeError> {
        match self {
            Self::Slide { keep } if self.least_context() > context => Err(RuntimeError::InvalidOption {
                option: "overflow: keep",
                found: keep.to_string(),
                expected: format!("at least two less than the context of {context} tokens"),
            }),
            _ => Ok(()),
        }
    }
}

/// What ends a generation, besides a full context.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StopRules {
    /// Most tokens to generate; `None` leaves it to the other rules.
    pub max_tokens: Option<usize>,
    /// Texts that end the generation; they are not shown. At most 64, each of 1 to 1024 bytes.
    pub strings: Vec<String>,
    /// Whether end-of-generation tokens end it; if not, the model is made to go on.
    pub end_of_text: bool,
}

impl Default for StopRules {
    fn default() -> Self {
        Self { max_tokens: None, strings: Vec::new(), end_of_text: true }
    }
}

/// Generated text that is not shown yet, because a stop string may have begun in it.
#[derive(Debug, Default)]
pub(crate) struct StopBuffer {
    strings: Vec<String>,
    held: String,
}

impl StopBuffer {
    /// A buffer for other stop strings; what is held is still held, and looked at with the text that follows.
    pub(crate) fn with_strings(&self, strings: &[String]) -> Result<Self, RuntimeError> {
        let invalid =
            |found: String, expected: String| RuntimeError::InvalidOption { option: "stop strings", found, expected };
        if strings.len() > MAX_STOP_STRINGS {
            return Err(invalid(strings.len().to_string(), format!("at most {MAX_STOP_STRINGS}")));
        }
        if let Some(bad) = strings.iter().find(|s| s.is_empty() || s.len() > MAX_STOP_BYTES) {
            return Err(invalid(format!("{} bytes long", bad.len()), format!("1 to {MAX_STOP_BYTES} bytes")));
        }
        let longest = strings.iter().map(String::len).max().unwrap_or(0);
        // Room for the longest stop string and a token, so that steady generation does not allocate.
        let mut held = String::with_capacity(longest + 256);
        held.push_str(&self.held);
        Ok(Self { strings: strings.to_vec(), held })
    }

    /// Adds `text`; moves what may be shown to the end of `out`. True if a stop string is complete.
    pub(crate) fn push(&mut self, text: &str, out: &mut String) -> bool {
        self.held.push_str(text);
        if let Some(at) = self.strings.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            out.push_str(&self.held[..at]);
            self.held.clear();
            return true;
        }
        // Keep the longest tail with which a stop string begins.
        let keep = self.held.char_indices().map(|(at, _)| at).find(|&at| {
            let tail = &self.held[at..];
            self.strings.iter().any(|stop| stop.starts_with(tail))
        });
        let keep = keep.unwrap_or(self.held.len());
        out.push_str(&self.held[..keep]);
        self.held.drain(..keep);
        false
    }

    /// Forgets what is held.
    pub(crate) fn clear(&mut self) {
        self.held.clear();
    }

    /// Moves what is still held to `out`: the generation ended without a stop string.
    pub(crate) fn flush(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool, String) {
        let stops: Vec<String> = stops.iter().map(|s| (*s).to_owned()).collect();
        let mut buffer = StopBuffer::default().with_strings(&stops).expect("valid");
        let mut shown = Vec::new();
        for piece in pieces {
            let mut out = String::new();
            let stop = buffer.push(piece, &mut out);
            shown.push(out);
            if stop {
                return (shown, true, String::new());
            }
        }
        let mut rest = String::new();
        buffer.flush(&mut rest);
        (shown, false, rest)
    }

    #[test]
    fn a_stop_string_over_several_tokens_is_never_shown() {
        let (shown, stopped, _) = run(&["</end>"], &["ab<", "/e", "nd> c"]);
        assert_eq!((shown.concat().as_str(), stopped), ("ab", true));
    }

    #[test]
    fn text_is_held_only_while_a_stop_string_may_begin() {
        let (shown, stopped, rest) = run(&["aab"], &["xa", "a", "a", "c"]);
        assert_eq!(shown, ["x", "", "a", "aac"]);
        assert!(!stopped && rest.is_empty());
    }

    #[test]
    fn the_earliest_of_several_wins_and_the_rest_is_flushed() {
        assert_eq!(run(&["d", "bc"], &["abcd"]).0, ["a"]);
        let (shown, stopped, rest) = run(&["éé"], &["é"]);
        assert_eq!((shown.concat(), stopped, rest), (String::new(), false, "é".to_owned()));
    }

    #[test]
    fn empty_and_huge_rules_are_refused() {
        let buffer = StopBuffer::default();
        assert!(buffer.with_strings(&[String::new()]).is_err());
        assert!(buffer.with_strings(&["x".repeat(MAX_STOP_BYTES + 1)]).is_err());
        assert!(buffer.with_strings(&vec!["x".to_owned(); MAX_STOP_STRINGS + 1]).is_err());
    }

    #[test]
    fn other_rules_lose_no_text() {
        let mut out = String::new();
        let mut buffer = StopBuffer::default().with_strings(&["</end>".to_owned()]).expect("valid");
        assert!(!buffer.push("a</", &mut out));
        let mut buffer = buffer.with_strings(&[]).expect("valid");
        assert!(!buffer.push("b", &mut out));
        assert_eq!(out, "a</b");
    }
}
