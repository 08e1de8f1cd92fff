//! A JSON file with typed access to its fields; every complaint names file, field, what was expected and found.

use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{FormatError, gguf::Load, map};

/// Longest excerpt of a value that a message repeats, in characters.
const EXCERPT: usize = 80;

/// A parsed JSON file.
#[derive(Debug)]
pub(super) struct Document {
    path: PathBuf,
    root: Value,
}

impl Document {
    /// Reads the file at `path`.
    pub(super) fn open(path: &Path) -> Result<Self, FormatError> {
        let bytes = map::load(path, Load::Copy)?;
        let root = serde_json::from_slice(&bytes)
            .map_err(|error| FormatError::Json { path: path.to_owned(), source: error.into() })?;
        Ok(Self { path: path.to_owned(), root })
    }

    /// Reads the file at `path`, `None` if there is none.
    pub(super) fn open_if_present(path: &Path) -> Result<Option<Self>, FormatError> {
        match Self::open(path) {
            Err(FormatError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// The value of `field`, a path of names and indices joined by dots; `null` counts as absent.
    pub(super) fn value(&self, field: &str) -> Option<&Value> {
        field.split('.').try_fold(&self.root, child).filter(|value| !value.is_null())
    }

    /// The field `first` if it is there, else `second`, which may be absent too.
    pub(super) fn either<'f>(&self, first: &'f str, second: &'f str) -> &'f str {
        if self.value(first).is_some() { first } else { second }
    }

    /// The error that `field` is not what was expected.
    pub(super) fn wrong(&self, field: &str, expected: impl Into<String>) -> FormatError {
        let found = self.value(field).map_or_else(|| "missing".to_owned(), excerpt);
        self.wrong_at(field.to_owned(), found, expected)
    }

    /// As [`wrong`](Self::wrong), for a place that has no path of its own.
    pub(super) fn wrong_at(&self, field: String, found: String, expected: impl Into<String>) -> FormatError {
        FormatError::CheckpointField { path: self.path.clone(), field, expected: expected.into(), found }
    }

    /// Text that must be there.
    pub(super) fn text(&self, field: &str) -> Result<&str, FormatError> {
        self.value(field).and_then(Value::as_str).ok_or_else(|| self.wrong(field, "text"))
    }

    /// A list that must be there.
    pub(super) fn list(&self, field: &str) -> Result<&[Value], FormatError> {
        let list = self.value(field).and_then(Value::as_array).ok_or_else(|| self.wrong(field, "a list"))?;
        Ok(list)
    }

    /// A map that must be there.
    pub(super) fn map(&self, field: &str) -> Result<&serde_json::Map<String, Value>, FormatError> {
        self.value(field).and_then(Value::as_object).ok_or_else(|| self.wrong(field, "a map"))
    }

    /// A whole number that must be there and in `range`.
    pub(super) fn count(&self, field: &str, range: RangeInclusive<usize>) -> Result<usize, FormatError> {
        let number = self.value(field).and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok());
        number
            .filter(|number| range.contains(number))
            .ok_or_else(|| self.wrong(field, format!("a whole number from {} to {}", range.start(), range.end())))
    }

    /// As [`count`](Self::count), or `default` if the field is absent.
    pub(super) fn count_or(
        &self,
        field: &str,
        range: RangeInclusive<usize>,
        default: usize,
    ) -> Result<usize, FormatError> {
        if self.value(field).is_none() { Ok(default) } else { self.count(field, range) }
    }

    /// A positive, finite number that must be there.
    #[expect(clippy::cast_possible_truncation, reason = "hyperparameters are single precision in GGUF")]
    pub(super) fn positive(&self, field: &str) -> Result<f32, FormatError> {
        let number = self.value(field).and_then(Value::as_f64).map(|number| number as f32);
        number
            .filter(|number| *number > 0.0 && number.is_finite())
            .ok_or_else(|| self.wrong(field, "a positive number"))
    }

    /// A list of exactly `len` positive, finite numbers.
    pub(super) fn positives(&self, field: &str, len: usize) -> Result<Vec<f32>, FormatError> {
        let list = self.value(field).and_then(Value::as_array).filter(|list| list.len() == len);
        list.ok_or_else(|| self.wrong(field, format!("a list of {len} numbers")))?;
        (0..len).map(|index| self.positive(&format!("{field}.{index}"))).collect()
    }

    /// A truth value, or `default` if the field is absent.
    pub(super) fn flag_or(&self, field: &str, default: bool) -> Result<bool, FormatError> {
        match self.value(field) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.wrong(field, "true or false")),
        }
    }
}

fn child<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map.get(name),
        Value::Array(list) => list.get(name.parse::<usize>().ok()?),
        _ => None,
    }
}

/// The start of a value, for a message.
pub(super) fn excerpt(value: &Value) -> String {
    let text = match value {
        Value::Object(_) => return "a map".to_owned(),
        Value::Array(list) => return format!("a list of {}", list.len()),
        plain => plain.to_string(),
    };
    match text.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}
