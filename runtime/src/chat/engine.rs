//! The template engine: minijinja with our limits, on a stack of its own.
//!
//! Of minijinja only what cannot grow is used as it is; filters, tests, functions and methods are those of
//! `functions` and `methods`. Templates cannot read files, import others or reach anything but the values they are
//! given. What is left is that the engine recurses over long expressions, hence the stack: with the limits of `guard`
//! the deepest template needs a few MiB, unoptimised.

use std::{error::Error as _, io, panic, sync::Arc, thread};

use minijinja::{Environment, Error, ErrorKind, Value, syntax::SyntaxConfig};

use super::{
    ChatError, functions,
    meter::{self, Meter},
    methods,
};

/// Instructions of one rendering. A conversation of 100 turns takes about 10,000.
const FUEL: u64 = 1_000_000;
/// Address space, mostly: only what is used is ever touched.
const STACK_BYTES: usize = 64 << 20;
/// Longest message of an error that is passed on.
const MAX_MESSAGE: usize = 1000;

/// Checks that `source`, as `guard` made it, is a template.
pub(super) fn check(source: &str) -> Result<(), ChatError> {
    on_own_stack(|| {
        let meter = Arc::new(Meter::new(0, 0));
        environment(&meter)?.template_from_str(source).map(drop)
    })
}

/// What the template `source` makes of `variables`.
pub(super) fn render(source: &str, variables: &Value, meter: Meter) -> Result<String, ChatError> {
    let meter = Arc::new(meter);
    on_own_stack(|| {
        let environment = environment(&meter)?;
        let template = environment.template_from_str(source)?;
        let mut out = Capped { bytes: Vec::new(), limit: meter.text_limit };
        match template.render_captured_to(variables, &mut out) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WriteFailure => {
                return Err(meter::too_large("the prompt", meter.text_limit, "bytes"));
            }
            Err(error) => return Err(error),
        }
        // Whole texts were written.
        Ok(String::from_utf8_lossy(&out.bytes).into_owned())
    })
}

fn environment(meter: &Arc<Meter>) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::empty();
    // As transformers sets Jinja up.
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_fuel(Some(FUEL));
    let for_output = Arc::clone(meter);
    environment.set_formatter(move |out, _, value| match value.as_str() {
        Some(text) => {
            for_output.charge(text.len())?;
            Ok(out.write_str(text)?)
        }
        None => Ok(out.write_str(&for_output.str(value)?)?),
    });
    functions::add(&mut environment, meter);
    methods::add(&mut environment, meter);
    Ok(environment)
}

/// Runs `work` with room to recurse; a panic of the engine is an error.
fn on_own_stack<T: Send>(work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, ChatError> {
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("chat template".to_owned()).stack_size(STACK_BYTES);
        let work = || panic::catch_unwind(panic::AssertUnwindSafe(work));
        match builder.spawn_scoped(scope, work).map_err(ChatError::Thread)?.join() {
            Ok(Ok(done)) => done.map_err(translated),
            _ => Err(ChatError::EnginePanicked),
        }
    })
}

/// The engine's error as ours.
fn translated(error: Error) -> ChatError {
    // One of ours is at the end of the chain of causes, if at all.
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(ours) = inner.downcast_ref::<ChatError>() {
            return ours.again();
        }
        cause = inner.source();
    }
    let line = error.line().unwrap_or(0);
    let mut message = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE) {
        message.truncate(end);
    }
    // One line, whatever a template puts into it.
    let message = message.replace(char::is_control, " ");
    match error.kind() {
        ErrorKind::OutOfFuel => ChatError::OutOfFuel { limit: FUEL },
        ErrorKind::SyntaxError | ErrorKind::BadEscape => ChatError::Syntax { line, message },
        _ => ChatError::Render { line, message },
    }
}

/// The result, as long as it may become.
struct Capped {
    bytes: Vec<u8>,
    limit: usize,
}

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit - self.bytes.len() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
