//! Key-value metadata.

use std::borrow::Cow;

use crate::FormatError;

/// A metadata value; arrays are kept in compact typed form.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Unsigned integer of any stored width.
    Unsigned(u64),
    /// Text.
    String(String),
}

/// All metadata, in file order.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
}

impl Metadata {
    /// The value under `key`.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.entries.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }
    /// An unsigned integer; signed values that are not negative count.
    pub fn usize(&self, key: &str) -> Result<Option<usize>, FormatError> {
        let _ = key;
        todo!()
    }
    /// A float (f32 or f64).
    pub fn f32(&self, key: &str) -> Result<Option<f32>, FormatError> {
        let _ = key;
        todo!()
    }
    /// A boolean.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, FormatError> {
        let _ = key;
        todo!()
    }
    /// Text.
    pub fn str(&self, key: &str) -> Result<Option<&str>, FormatError> {
        let _ = key;
        todo!()
    }
    /// An array of text.
    pub fn strings(&self, key: &str) -> Result<Option<&[String]>, FormatError> {
        let _ = key;
        todo!()
    }
    /// An array of integers, any width, none negative.
    pub fn usizes(&self, key: &str) -> Result<Option<Cow<'_, [usize]>>, FormatError> {
        let _ = key;
        todo!()
    }
    /// An array of floats.
    pub fn f32s(&self, key: &str) -> Result<Option<Cow<'_, [f32]>>, FormatError> {
        let _ = key;
        todo!()
    }
}
