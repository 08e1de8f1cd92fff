//! Values as text, as Python writes them: `str`, `repr` and `json.dumps`. Templates are written for it.

use std::fmt::{self, Write};

use minijinja::value::{Value, ValueKind};

use super::value::pairs;

/// Deepest nesting that is printed; what templates can make is less deep.
const MAX_DEPTH: usize = 128;

/// A string that refuses to grow beyond a limit.
pub(super) struct Capped {
    text: String,
    limit: usize,
}

impl Capped {
    pub(super) fn new(limit: usize) -> Self {
        Self { text: String::new(), limit }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

impl Write for Capped {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.len() > self.limit - self.text.len() {
            return Err(fmt::Error);
        }
        self.text.push_str(text);
        Ok(())
    }
}

/// Writes `str(value)`; an undefined value is nothing.
pub(super) fn str(value: &Value, out: &mut impl Write) -> fmt::Result {
    match value.as_str() {
        Some(text) => out.write_str(text),
        None if value.is_undefined() => Ok(()),
        None => repr(value, out, MAX_DEPTH),
    }
}

fn repr(value: &Value, out: &mut impl Write, depth: usize) -> fmt::Result {
    let below = depth.checked_sub(1).ok_or(fmt::Error)?;
    match value.kind() {
        ValueKind::None => out.write_str("None"),
        ValueKind::Bool => out.write_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => number(value, out),
        ValueKind::String => quoted(value.as_str().unwrap_or_default(), out),
        ValueKind::Undefined => out.write_str("Undefined"),
        ValueKind::Seq | ValueKind::Iterable => {
            let (open, close) = if value.is_tuple() { ("(", ")") } else { ("[", "]") };
            out.write_str(open)?;
            let mut items = 0;
            for item in value.try_iter().into_iter().flatten() {
                out.write_str(if items > 0 { ", " } else { "" })?;
                repr(&item, out, below)?;
                items += 1;
            }
            out.write_str(if value.is_tuple() && items == 1 { "," } else { "" })?;
            out.write_str(close)
        }
        ValueKind::Map => {
            out.write_char('{')?;
            for (n, (name, value)) in pairs(value).into_iter().enumerate() {
                out.write_str(if n > 0 { ", " } else { "" })?;
                repr(&name, out, below)?;
                out.write_str(": ")?;
                repr(&value, out, below)?;
            }
            out.write_char('}')
        }
        _ => write!(out, "{value}"),
    }
}

fn number(value: &Value, out: &mut impl Write) -> fmt::Result {
    if value.is_integer() {
        return write!(out, "{value}");
    }
    let Ok(x) = f64::try_from(value.clone()) else { return write!(out, "{value}") };
    // Shortest digits that round back, in both languages; they differ in when and how the exponent is written.
    if !x.is_finite() {
        out.write_str(if x.is_nan() {
            "nan"
        } else if x > 0.0 {
            "inf"
        } else {
            "-inf"
        })
    } else if x == 0.0 || (1e-4..1e16).contains(&x.abs()) {
        write!(out, "{x:?}")
    } else {
        let text = format!("{x:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
        write!(out, "{digits}e{sign}{exponent:0>2}")
    }
}

/// Python's `repr` of a string.
fn quoted(text: &str, out: &mut impl Write) -> fmt::Result {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.write_char(quote)?;
    for c in text.chars() {
        match c {
            '\\' => out.write_str("\\\\")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            c if c == quote => write!(out, "\\{c}")?,
            c if c.is_control() => write!(out, "\\x{:02x}", u32::from(c))?,
            c => out.write_char(c)?,
        }
    }
    out.write_char(quote)
}

/// How `json.dumps` writes.
pub(super) struct Json {
    /// Spaces of each level, on lines of their own.
    pub(super) indent: Option<String>,
    pub(super) comma: String,
    pub(super) colon: String,
    pub(super) ascii: bool,
    pub(super) sort_keys: bool,
    /// What is taken out of the prompt afterwards, so never escaped.
    pub(super) mark: Option<char>,
}

/// Why there is no JSON: the text grew too long, or a value has none.
pub(super) enum JsonError {
    TooLong,
    NoJson(ValueKind),
}

impl From<fmt::Error> for JsonError {
    fn from(_: fmt::Error) -> Self {
        Self::TooLong
    }
}

impl Json {
    pub(super) fn write(&self, value: &Value, out: &mut impl Write) -> Result<(), JsonError> {
        self.value(value, out, 0)
    }

    fn value(&self, value: &Value, out: &mut impl Write, depth: usize) -> Result<(), JsonError> {
        if depth > MAX_DEPTH {
            return Err(JsonError::TooLong);
        }
        match value.kind() {
            ValueKind::None => out.write_str("null")?,
            ValueKind::Bool => out.write_str(if value.is_true() { "true" } else { "false" })?,
            ValueKind::Number => self.number(value, out)?,
            ValueKind::String => self.text(value.as_str().unwrap_or_default(), out)?,
            ValueKind::Seq | ValueKind::Iterable => {
                out.write_char('[')?;
                let mut empty = true;
                for item in value.try_iter().into_iter().flatten() {
                    self.separate(empty, out, depth + 1)?;
                    empty = false;
                    self.value(&item, out, depth + 1)?;
                }
                self.close(empty, ']', out, depth)?;
            }
            ValueKind::Map => {
                let mut all = pairs(value);
                if self.sort_keys {
                    all.sort_by(|a, b| a.0.cmp(&b.0));
                }
                out.write_char('{')?;
                for (n, (name, value)) in all.iter().enumerate() {
                    self.separate(n == 0, out, depth + 1)?;
                    match name.as_str() {
                        Some(name) => self.text(name, out)?,
                        None => {
                            out.write_char('"')?;
                            self.value(name, out, MAX_DEPTH)?;
                            out.write_char('"')?;
                        }
                    }
                    out.write_str(&self.colon)?;
                    self.value(value, out, depth + 1)?;
                }
                self.close(all.is_empty(), '}', out, depth)?;
            }
            kind => return Err(JsonError::NoJson(kind)),
        }
        Ok(())
    }

    fn number(&self, value: &Value, out: &mut impl Write) -> fmt::Result {
        match f64::try_from(value.clone()) {
            Ok(x) if x.is_nan() => out.write_str("NaN"),
            Ok(x) if x.is_infinite() => out.write_str(if x > 0.0 { "Infinity" } else { "-Infinity" }),
            _ => number(value, out),
        }
    }

    fn separate(&self, first: bool, out: &mut impl Write, depth: usize) -> fmt::Result {
        if !first {
            out.write_str(&self.comma)?;
        }
        self.line(out, depth)
    }

    fn close(&self, empty: bool, bracket: char, out: &mut impl Write, depth: usize) -> fmt::Result {
        if !empty {
            self.line(out, depth)?;
        }
        out.write_char(bracket)
    }

    fn line(&self, out: &mut impl Write, depth: usize) -> fmt::Result {
        let Some(indent) = &self.indent else { return Ok(()) };
        out.write_char('\n')?;
        (0..depth).try_for_each(|_| out.write_str(indent))
    }

    fn text(&self, text: &str, out: &mut impl Write) -> fmt::Result {
        out.write_char('"')?;
        for c in text.chars() {
            match c {
                '"' => out.write_str("\\\"")?,
                '\\' => out.write_str("\\\\")?,
                '\n' => out.write_str("\\n")?,
                '\r' => out.write_str("\\r")?,
                '\t' => out.write_str("\\t")?,
                '\u{8}' => out.write_str("\\b")?,
                '\u{c}' => out.write_str("\\f")?,
                c if u32::from(c) < 0x20 || self.ascii && !c.is_ascii() && self.mark != Some(c) => {
                    c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(out, "\\u{unit:04x}"))?;
                }
                c => out.write_char(c)?,
            }
        }
        out.write_char('"')
    }
}
