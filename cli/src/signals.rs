//! Signals: what Ctrl-C does, and who takes unfinished files away when something else ends the program.
//!
//! A signal that was ignored when the program started stays ignored: `nohup` keeps it alive after a logout, and Ctrl-C
//! does not reach what a script put into the background. One that no command asks for here does what the system has
//! for it, so SIGTERM and SIGHUP end the program at once, whatever it is busy with.

use anyhow::Context;

/// Exit code of a program that Ctrl-C ended, as shells have it.
pub(crate) const INTERRUPTED: i32 = 130;

/// From now on Ctrl-C calls `handler`, on a thread of its own.
pub(crate) fn on_interrupt(mut handler: impl FnMut() + Send + 'static) -> anyhow::Result<()> {
    system::listen(&system::INTERRUPT, move |_| handler()).context("cannot listen for Ctrl-C")
}

/// From now on Ctrl-C, and the signals that end a program or its terminal, call `clean_up` and end the program.
pub(crate) fn before_end(mut clean_up: impl FnMut() + Send + 'static) -> anyhow::Result<()> {
    let handler = move |code| {
        clean_up();
        std::process::exit(code);
    };
    system::listen(&system::ENDS, handler).context("cannot listen for Ctrl-C")
}

#[cfg(unix)]
mod system {
    use std::{fs, io, thread};

    use signal_hook::{
        consts::{SIGHUP, SIGINT, SIGTERM},
        iterator::Signals,
    };

    pub(super) const INTERRUPT: [i32; 1] = [SIGINT];
    pub(super) const ENDS: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

    /// Calls `handler` with the exit code that shells have for a signal whenever one of `signals` comes.
    pub(super) fn listen(signals: &[i32], mut handler: impl FnMut(i32) + Send + 'static) -> io::Result<()> {
        let ignored = ignored();
        let mut signals = Signals::new(signals.iter().filter(|&&signal| ignored >> (signal - 1) & 1 == 0))?;
        thread::Builder::new().spawn(move || signals.forever().for_each(|signal| handler(128 + signal)))?;
        Ok(())
    }

    /// A bit for each signal that is ignored, the first signal lowest. Only Linux tells without a system call that is
    /// `unsafe` to make; elsewhere none seems to be ignored.
    fn ignored() -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
    }
}

#[cfg(not(unix))]
mod system {
    use std::io;

    /// There is Ctrl-C, and what ends a console counts as it.
    pub(super) const INTERRUPT: [i32; 0] = [];
    pub(super) const ENDS: [i32; 0] = [];

    /// Calls `handler` with [`super::INTERRUPTED`] whenever Ctrl-C comes.
    pub(super) fn listen(_: &[i32], mut handler: impl FnMut(i32) + Send + 'static) -> io::Result<()> {
        ctrlc::set_handler(move || handler(super::INTERRUPTED)).map_err(io::Error::other)
    }
}
