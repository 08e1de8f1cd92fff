//! What a rendering may use, beside the engine's count of instructions: bytes, values, time.
//!
//! Whatever is made is counted when it is ([`Meter::made`]), so memory is bounded by what may be made in all. Each
//! value that a variable holds is within limits of its own ([`Meter::keep`]), so that no instruction works on it for
//! long.

use std::{
    borrow::Cow,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use minijinja::{
    Error, ErrorKind,
    value::{Tuple, Value, ValueKind},
};

use super::{
    ChatError, print,
    value::{Ordered, pairs},
};
use crate::text::Tokenizer;

/// A wall-clock limit for what instructions do not measure (comparing long texts, say). Real templates take
/// milliseconds.
const MAX_TIME: Duration = Duration::from_secs(2);
/// Longest text a template may make of a conversation without any; see [`Meter::new`].
const BASE_TEXT: usize = 1 << 20;
/// Most values of a list or map that a template may make of a conversation without any.
const BASE_VALUES: usize = 1 << 14;
/// Texts of the limit's length that may be made in all.
const TEXTS: usize = 32;
/// Texts of the limit's length that one value may hold, the same one counted again.
const TEXTS_OF_A_VALUE: usize = 4;
/// Deepest nesting of a value that a template may make.
const MAX_DEPTH: usize = 32;
/// What a value takes beside its text.
pub(super) const VALUE_BYTES: usize = 32;

/// The limits of one rendering, and what is left.
pub(super) struct Meter {
    /// Longest text, in bytes: of a variable, of what a filter makes, of the result.
    pub(super) text_limit: usize,
    value_limit: usize,
    work_limit: usize,
    work: AtomicUsize,
    end: Instant,
    /// Whose names of special tokens a mark breaks.
    names: Option<(Tokenizer, char)>,
}

impl Meter {
    /// For a conversation of `bytes` and `values`: a template repeats its text once or twice, and adds a little.
    pub(super) fn new(bytes: usize, values: usize) -> Self {
        let text_limit = BASE_TEXT + 2 * bytes;
        let work_limit = TEXTS * text_limit;
        Self {
            text_limit,
            value_limit: BASE_VALUES + 4 * values,
            work_limit,
            work: AtomicUsize::new(0),
            end: Instant::now() + MAX_TIME,
            names: None,
        }
    }

    /// The same for texts in which `mark` breaks the names of special tokens of `tokenizer`.
    pub(super) fn marking(self, tokenizer: &Tokenizer, mark: char) -> Self {
        Self { names: Some((tokenizer.clone(), mark)), ..self }
    }

    /// The mark, which stays as it is wherever it is.
    pub(super) fn mark(&self) -> Option<char> {
        self.names.as_ref().map(|(_, mark)| *mark)
    }

    /// `made`, with names of special tokens broken, if it is a text: one whose characters are others than before, so
    /// that what somebody said may have become a name. What was the template's own markup is none any more.
    pub(super) fn said(&self, made: Value) -> Value {
        match (&self.names, made.as_str()) {
            (Some((tokenizer, mark)), Some(text)) => tokenizer.mark_special(text, *mark).into(),
            _ => made,
        }
    }

    /// `text`, marked so that it is no beginning of a name, whatever comes after it.
    pub(super) fn ended<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match &self.names {
            Some((tokenizer, mark)) => Cow::Owned(tokenizer.mark_end(text, *mark)),
            None => Cow::Borrowed(text),
        }
    }

    /// Counts `bytes` that are made, and the time.
    pub(super) fn charge(&self, bytes: usize) -> Result<(), Error> {
        let before = self.work.fetch_add(bytes.min(self.work_limit), Ordering::Relaxed);
        if before + bytes.min(self.work_limit) > self.work_limit {
            return Err(too_large("what the template makes", self.work_limit, "bytes"));
        }
        if Instant::now() > self.end {
            return Err(fail(ChatError::OutOfTime { seconds: MAX_TIME.as_secs() }));
        }
        Ok(())
    }

    /// Checks the length of a text that is to be made.
    pub(super) fn fits(&self, bytes: usize) -> Result<(), Error> {
        if bytes > self.text_limit { Err(self.too_long()) } else { Ok(()) }
    }

    /// A text would be longer than [`Meter::text_limit`].
    pub(super) fn too_long(&self) -> Error {
        too_large("a text the template makes", self.text_limit, "bytes")
    }

    /// What Python's `str` makes of `value`.
    pub(super) fn str(&self, value: &Value) -> Result<String, Error> {
        let mut out = print::Capped::new(self.text_limit);
        let done = print::str(value, &mut out);
        let text = out.into_text();
        self.charge(text.len())?;
        done.map(|()| text).map_err(|_| self.too_long())
    }

    /// Counts a value that was made of others, which are only referred to.
    pub(super) fn made(&self, value: &Value) -> Result<(), Error> {
        match value.as_str() {
            Some(text) => self.fits(text.len()).and_then(|()| self.charge(text.len())),
            None => self.charge(value.len().unwrap_or(0).saturating_mul(VALUE_BYTES)),
        }
    }

    /// Checks that a variable may hold `value`.
    pub(super) fn check(&self, value: &Value) -> Result<(), Error> {
        self.keep(value, false).map(drop)
    }

    /// Checks that comparing something with `value`, or writing it, ends soon, and the time. One that is `plain` is no
    /// namespace, loop or macro. What a copy of all that is in it would take, in bytes.
    pub(super) fn compared(&self, value: &Value, plain: bool) -> Result<usize, Error> {
        let mut walk = Walk { meter: self, values: 0, bytes: 0, plain };
        walk.value(value, 0)?;
        self.charge(0).map(|()| walk.bytes + walk.values * VALUE_BYTES)
    }

    /// Checks the number of `values` that are gone through again and again.
    pub(super) fn few(&self, values: usize) -> Result<(), Error> {
        let limit = self.value_limit;
        if values > limit { Err(too_large("a list the template makes", limit, "values")) } else { self.charge(0) }
    }

    /// As [`Meter::check`] for what outlives its block: the value to hold, without parts that are yet to be computed
    /// (one of them inside the other is how a value could become deep unseen). A `plain` one also has nothing in it
    /// that could hold it.
    pub(super) fn keep(&self, value: &Value, plain: bool) -> Result<Value, Error> {
        let mut walk = Walk { meter: self, values: 0, bytes: 0, plain };
        let settled = walk.value(value, 0);
        self.charge(walk.values * VALUE_BYTES)?;
        Ok(settled?.unwrap_or_else(|| value.clone()))
    }
}

struct Walk<'m> {
    meter: &'m Meter,
    values: usize,
    bytes: usize,
    plain: bool,
}

impl Walk<'_> {
    /// Counts `value`, and returns it if it had to be computed.
    fn value(&mut self, value: &Value, depth: usize) -> Result<Option<Value>, Error> {
        self.values += 1;
        if self.values > self.meter.value_limit {
            return self.meter.few(self.values).map(|()| None);
        }
        if depth > MAX_DEPTH {
            return Err(too_large("a list the template makes", MAX_DEPTH, "lists inside each other"));
        }
        match value.kind() {
            ValueKind::String => {
                let bytes = value.as_str().map_or(0, str::len);
                self.meter.fits(bytes)?;
                self.bytes += bytes;
                let limit = TEXTS_OF_A_VALUE * self.meter.text_limit;
                if self.bytes > limit {
                    return Err(too_large("a list the template makes", limit, "bytes"));
                }
                Ok(None)
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let mut computed = value.kind() == ValueKind::Iterable;
                let mut items = Vec::new();
                for item in value.try_iter()?.checked() {
                    let item = item?;
                    let settled = self.value(&item, depth + 1)?;
                    computed |= settled.is_some();
                    items.push(settled.unwrap_or(item));
                }
                Ok(computed
                    .then(|| if value.is_tuple() { Value::from(Tuple::from(items)) } else { Value::from(items) }))
            }
            ValueKind::Map if value.downcast_object_ref::<Ordered>().is_some() => {
                let mut computed = false;
                let mut map = pairs(value);
                for (name, value) in &mut map {
                    self.value(name, depth + 1)?;
                    if let Some(settled) = self.value(value, depth + 1)? {
                        computed = true;
                        *value = settled;
                    }
                }
                Ok(computed.then(|| Ordered::of(map)))
            }
            ValueKind::None | ValueKind::Undefined | ValueKind::Bool | ValueKind::Number => Ok(None),
            // A namespace, a loop, a macro. One in a list is also refused: it can be there often, and grow later.
            kind if self.plain || depth > 0 => {
                Err(invalid(format!("nothing can hold a namespace, a loop or a macro (found: {kind})")))
            }
            _ => Ok(None),
        }
    }
}

/// An error of ours, on its way through the engine.
pub(super) fn fail(error: ChatError) -> Error {
    Error::new(ErrorKind::InvalidOperation, error.to_string()).with_source(error)
}

pub(super) fn too_large(what: &'static str, limit: usize, unit: &'static str) -> Error {
    fail(ChatError::TooLarge { what, limit, unit })
}

pub(super) fn invalid(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}
