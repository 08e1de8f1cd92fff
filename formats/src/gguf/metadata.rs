//! Key-value metadata: what a file says about itself, asked for by key and type.
//!
//! The same hyperparameter is stored as u32 by one converter and i32 or u64 by another, so integers are accepted in
//! every width; a negative one, or a value of another kind, is an error that names key, expected and found.

use std::borrow::Cow;

use super::{Array, Strings, Value, index::NameIndex, memory::with_room};
use crate::FormatError;

/// All metadata, in file order; looking up a key takes constant time.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    /// Of a key no more than its text: files may have many, and little else.
    entries: Vec<(Box<str>, Value)>,
    index: NameIndex,
}

impl Metadata {
    /// Room for `len` entries; more must not be pushed.
    pub(super) fn with_room(len: usize) -> Result<Self, FormatError> {
        Ok(Self { entries: with_room("metadata entries", len)?, index: NameIndex::with_room(len)? })
    }

    /// Appends an entry; hands it back as `Err` if the key is taken.
    pub(super) fn push(&mut self, key: String, value: Value) -> Result<(), String> {
        if self.position(&key).is_some() {
            return Err(key);
        }
        self.index.insert(&key, self.entries.len());
        self.entries.push((key.into_boxed_str(), value));
        Ok(())
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All entries, in file order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (&**key, value))
    }

    /// The value under `key`.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.position(key).and_then(|at| self.entries.get(at)).map(|(_, value)| value)
    }

    /// An unsigned integer; any stored width, signed ones if they are not negative.
    ///
    /// # Errors
    /// [`FormatError::MetadataKind`] if the value is not an integer, [`FormatError::MetadataRange`] if it is negative
    /// or larger than a `usize`.
    pub fn usize(&self, key: &str) -> Result<Option<usize>, FormatError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let found = value.integer().ok_or_else(|| kind_error(key, "an unsigned integer", value))?;
        usize::try_from(found).map(Some).map_err(|_| range_error(key, found))
    }

    /// A float; f64 is rounded to f32.
    ///
    /// # Errors
    /// [`FormatError::MetadataKind`] if the value is neither f32 nor f64.
    #[expect(clippy::cast_possible_truncation, reason = "rounding an f64 is the point")]
    pub fn f32(&self, key: &str) -> Result<Option<f32>, FormatError> {
        self.typed(key, "a float", |value| match *value {
            Value::F32(v) => Some(v),
            Value::F64(v) => Some(v as f32),
            _ => None,
        })
    }

    /// A truth value.
    ///
    /// # Errors
    /// [`FormatError::MetadataKind`] if the value is not a bool.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, FormatError> {
        self.typed(key, "a bool", |value| match *value {
            Value::Bool(v) => Some(v),
            _ => None,
        })
    }

    /// Text.
    ///
    /// # Errors
    /// [`FormatError::MetadataKind`] if the value is not a string.
    pub fn str(&self, key: &str) -> Result<Option<&str>, FormatError> {
        self.typed(key, "a string", |value| match value {
            Value::String(v) => Some(v.as_str()),
            _ => None,
        })
    }

    /// An array of text.
    ///
    /// # Errors
    /// [`FormatError::MetadataKind`] if the value is not an array of strings.
    pub fn strings(&self, key: &str) -> Result<Option<&Strings>, FormatError> {
        self.typed(key, "an array of strings", |value| match value {
            Value::Array(Array::String(v)) => Some(v),
            _ => None,
        })
    }

    /// An array of integers, any width, none negative.
    ///
    /// # Errors
    /// [`FormatError::MetadataKind`] if the value is not an array of integers, [`FormatError::MetadataRange`] naming
    /// the first element that is negative or larger than a `usize`, [`FormatError::OutOfMemory`].
    pub fn usizes(&self, key: &str) -> Result<Option<Cow<'_, [usize]>>, FormatError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let converted = match value {
            Value::Array(Array::U8(v)) => unsigned(key, v),
            Value::Array(Array::I8(v)) => unsigned(key, v),
            Value::Array(Array::U16(v)) => unsigned(key, v),
            Value::Array(Array::I16(v)) => unsigned(key, v),
            Value::Array(Array::U32(v)) => unsigned(key, v),
            Value::Array(Array::I32(v)) => unsigned(key, v),
            Value::Array(Array::U64(v)) => unsigned(key, v),
            Value::Array(Array::I64(v)) => unsigned(key, v),
            _ => return Err(kind_error(key, "an array of unsigned integers", value)),
        };
        Ok(Some(Cow::Owned(converted?)))
    }

    /// An array of floats; f64 is rounded to f32.
    ///
    /// # Errors
    /// [`FormatError::MetadataKind`] if the value is not an array of f32 or f64, [`FormatError::OutOfMemory`].
    #[expect(clippy::cast_possible_truncation, reason = "rounding an f64 is the point")]
    pub fn f32s(&self, key: &str) -> Result<Option<Cow<'_, [f32]>>, FormatError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Array(Array::F32(v))) => Ok(Some(Cow::Borrowed(v.as_slice()))),
            Some(Value::Array(Array::F64(v))) => {
                let mut rounded = with_room("array", v.len())?;
                rounded.extend(v.iter().map(|&v| v as f32));
                Ok(Some(Cow::Owned(rounded)))
            }
            Some(value) => Err(kind_error(key, "an array of floats", value)),
        }
    }

    /// An array of truth values.
    ///
    /// # Errors
    /// [`FormatError::MetadataKind`] if the value is not an array of bools.
    pub fn bools(&self, key: &str) -> Result<Option<&[bool]>, FormatError> {
        self.typed(key, "an array of bools", |value| match value {
            Value::Array(Array::Bool(v)) => Some(v.as_slice()),
            _ => None,
        })
    }

    fn position(&self, key: &str) -> Option<usize> {
        self.index.find(key, |at| self.entries.get(at).map(|(key, _)| &**key))
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, FormatError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        convert(value).map(Some).ok_or_else(|| kind_error(key, expected, value))
    }
}

/// Each element of the array under `key` as `usize`.
fn unsigned<T: Copy + Into<i128>>(key: &str, values: &[T]) -> Result<Vec<usize>, FormatError> {
    let mut converted = with_room("array", values.len())?;
    for value in values.iter().map(|&value| value.into()) {
        converted.push(usize::try_from(value).map_err(|_| range_error(key, value))?);
    }
    Ok(converted)
}

fn kind_error(key: &str, expected: &'static str, found: &Value) -> FormatError {
    FormatError::MetadataKind { key: key.to_owned(), expected, found: found.kind() }
}

fn range_error(key: &str, found: i128) -> FormatError {
    FormatError::MetadataRange { key: key.to_owned(), found, limit: usize::MAX as u64 }
}
