//! What is written to the terminal besides results: errors, progress, traces. All of it goes to stderr. And how results
//! are shown that a model made.

use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write},
};

use halfbyte::Event;
use indicatif::{ProgressBar, ProgressStyle};
use tracing_subscriber::{
    filter::LevelFilter,
    fmt::{format::FmtSpan, time::Uptime},
};

/// Prints `error` and what caused it, one line each.
pub(crate) fn report(error: &anyhow::Error) {
    let mut text = format!("error: {error}\n");
    let mut shown = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Transparent wrappers repeat the text of what they wrap.
        if cause != shown {
            text.push_str(&format!("  caused by: {cause}\n"));
        }
        shown = cause;
    }
    // Nobody can be told that stderr is gone.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Prints one line to stderr; nobody can be told that stderr is gone.
pub(crate) fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// `text` as it may go to stdout. To a terminal some characters are commands, which can hide text or fill the
/// clipboard: there they are shown as `\u{1b}`. Programs get what there is.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    if io::stdout().is_terminal() { escaped(text) } else { text.into() }
}

fn escaped(text: &str) -> Cow<'_, str> {
    let is_text = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    if text.chars().all(is_text) {
        return text.into();
    }
    let mut shown = String::new();
    for c in text.chars() {
        if is_text(c) {
            shown.push(c);
        } else {
            shown.extend(c.escape_unicode());
        }
    }
    shown.into()
}

/// Says what a session does of its own accord: to be given to `Session::on_event`.
pub(crate) fn event(event: &Event) {
    if let Event::Rerun { tokens, factors, .. } = event {
        note(&format!("(the text now needs the {} rotation factors: {tokens} tokens are run again)", factors.name()));
    }
}

/// A bar over `len` steps on stderr, which shows only on a terminal. `unit` says what a step is, in the plural.
pub(crate) fn progress(len: u64, unit: &str) -> ProgressBar {
    let bar = ProgressBar::new(len);
    let template = format!("{{wide_bar}} {{human_pos}}/{{human_len}} {unit}, {{eta}} left");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar
}

/// Shows how far something has come, on a bar as [`progress`] makes it: to be called with the steps done and all steps.
/// After the last step the bar goes, and the next call begins another.
pub(crate) fn steps(unit: &'static str) -> impl FnMut(usize, usize) + Send + 'static {
    let mut bar = None;
    move |done, total| {
        let shown = bar.get_or_insert_with(|| progress(total as u64, unit));
        shown.set_position(done as u64);
        if done == total {
            shown.finish_and_clear();
            bar = None;
        }
    }
}

/// Prints the spans and events of the libraries to stderr: none at level 0, steps at 1, everything from 2 up.
pub(crate) fn trace(level: u8) {
    let max = match level {
        0 => return,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    tracing_subscriber::fmt()
        .with_max_level(max)
        .with_span_events(FmtSpan::CLOSE)
        .with_ansi(false)
        .with_timer(Uptime::default())
        .with_writer(io::stderr)
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_no_commands() {
        assert!(matches!(escaped("caf\u{e9}\n\t\u{1f600}"), Cow::Borrowed(_)));
        let hostile = "a\u{1b}]52;c;eA==\u{7}\r\u{8}b\u{7f}\u{9b}2J\n\0";
        assert_eq!(escaped(hostile), "a\\u{1b}]52;c;eA==\\u{7}\\u{d}\\u{8}b\\u{7f}\\u{9b}2J\n\\u{0}");
    }
}
