//! What is typed in a conversation: a line a turn, or several lines that belong together.
//!
//! A terminal hands over a line at a time, and not more of it than 4095 bytes; what is pasted is many lines. So a line
//! can go on in the next one, and lines between quotes are one text.

use std::io::{self, BufRead, Write};

use crate::console;

/// A line of its own, it begins and ends a text.
const QUOTES: &[u8] = b"\"\"\"";
/// Most bytes of a line that a terminal hands over, on Linux; it drops the others.
const MAX_TERMINAL_LINE: usize = 4095;

/// What came for a turn.
#[derive(Debug, PartialEq)]
pub(crate) enum Typed {
    /// A line, which may be a command, or several that went on.
    Line(Vec<u8>),
    /// The text between quotes.
    Quoted(Vec<u8>),
    /// A text whose closing quotes did not come.
    Open,
}

/// Where it is typed.
pub(crate) struct Input<R> {
    pub(crate) source: R,
    /// Whether that is a terminal.
    pub(crate) terminal: bool,
    /// Whether to show what is waited for, on stdout.
    pub(crate) prompts: bool,
}

impl<R: BufRead> Input<R> {
    /// The next turn or command; nothing at the end of the input.
    pub(crate) fn next(&mut self) -> io::Result<Option<Typed>> {
        let Some(mut text) = self.line("> ")? else { return Ok(None) };
        if text.trim_ascii() == QUOTES {
            return self.quoted().map(Some);
        }
        while text.ends_with(b"\\") {
            // A backslash before the end of the input is one.
            let Some(line) = self.line("... ")? else { break };
            text.pop();
            text.push(b'\n');
            text.extend(line);
        }
        Ok(Some(Typed::Line(text)))
    }

    /// All up to the closing quotes.
    fn quoted(&mut self) -> io::Result<Typed> {
        let mut text = Vec::new();
        while let Some(line) = self.line("... ")? {
            if line.trim_ascii() == QUOTES {
                text.pop();
                return Ok(Typed::Quoted(text));
            }
            text.extend(line);
            text.push(b'\n');
        }
        Ok(Typed::Open)
    }

    /// A line without its end.
    fn line(&mut self, prompt: &str) -> io::Result<Option<Vec<u8>>> {
        if self.prompts {
            write!(io::stdout(), "{prompt}")?;
            io::stdout().flush()?;
        }
        let mut line = Vec::new();
        if self.source.read_until(b'\n', &mut line)? == 0 {
            if self.prompts {
                // The shell's prompt gets a line of its own.
                writeln!(io::stdout())?;
            }
            return Ok(None);
        }
        while line.last().is_some_and(|byte| b"\r\n".contains(byte)) {
            line.pop();
        }
        if self.terminal && line.len() >= MAX_TERMINAL_LINE {
            console::note(&format!(
                "note: a terminal hands over at most {MAX_TERMINAL_LINE} bytes of a line: the rest is lost (/help)"
            ));
        }
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_belong_together_are_one_turn() {
        let source = &b"one\r\n two \\\nthree\\\n\n\"\"\" \n/quit\n\n\\\n \"\"\"\n\"\"\"\n\"\"\"\nx\"\"\"\nend\\"[..];
        let mut input = Input { source, terminal: false, prompts: false };
        let mut next = || input.next().expect("in memory");
        let line = |text: &str| Some(Typed::Line(text.into()));
        assert_eq!(next(), line("one"));
        assert_eq!(next(), line(" two \nthree\n"));
        assert_eq!(next(), Some(Typed::Quoted(b"/quit\n\n\\".to_vec())));
        assert_eq!(next(), Some(Typed::Quoted(Vec::new())));
        assert_eq!(next(), line("x\"\"\""), "quotes in a line are text");
        assert_eq!(next(), line("end\\"), "nothing to join it with");
        assert_eq!(next(), None);
        input.source = b"\"\"\"\nwho?\n";
        assert_eq!(input.next().expect("in memory"), Some(Typed::Open));
        assert_eq!(input.next().expect("in memory"), None);
    }
}
