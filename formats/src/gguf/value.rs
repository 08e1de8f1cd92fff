//! Metadata values: the twelve scalar kinds of GGUF, and arrays of them in compact typed form.
//!
//! The stored kind is kept, so that a file read and written again is the same file. Arrays hold no more memory than
//! they take in the file: numbers in a `Vec` of their own type, text in one string with the ends marked ([`Strings`]).

use std::iter::FusedIterator;

/// A metadata value, with the width it was stored in.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Unsigned, 8 bits.
    U8(u8),
    /// Signed, 8 bits.
    I8(i8),
    /// Unsigned, 16 bits.
    U16(u16),
    /// Signed, 16 bits.
    I16(i16),
    /// Unsigned, 32 bits.
    U32(u32),
    /// Signed, 32 bits.
    I32(i32),
    /// Unsigned, 64 bits.
    U64(u64),
    /// Signed, 64 bits.
    I64(i64),
    /// Single precision.
    F32(f32),
    /// Double precision.
    F64(f64),
    /// Truth value.
    Bool(bool),
    /// Text.
    String(String),
    /// Many values of one scalar kind.
    Array(Array),
}

/// The elements of an array; arrays do not nest.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Array {
    /// Unsigned, 8 bits.
    U8(Vec<u8>),
    /// Signed, 8 bits.
    I8(Vec<i8>),
    /// Unsigned, 16 bits.
    U16(Vec<u16>),
    /// Signed, 16 bits.
    I16(Vec<i16>),
    /// Unsigned, 32 bits.
    U32(Vec<u32>),
    /// Signed, 32 bits.
    I32(Vec<i32>),
    /// Unsigned, 64 bits.
    U64(Vec<u64>),
    /// Signed, 64 bits.
    I64(Vec<i64>),
    /// Single precision.
    F32(Vec<f32>),
    /// Double precision.
    F64(Vec<f64>),
    /// Truth values.
    Bool(Vec<bool>),
    /// Text.
    String(Strings),
}

impl Value {
    /// What kind of value this is, in words for messages: `u32`, `string`, `array of f32`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::U8(_) => "u8",
            Self::I8(_) => "i8",
            Self::U16(_) => "u16",
            Self::I16(_) => "i16",
            Self::U32(_) => "u32",
            Self::I32(_) => "i32",
            Self::U64(_) => "u64",
            Self::I64(_) => "i64",
            Self::F32(_) => "f32",
            Self::F64(_) => "f64",
            Self::Bool(_) => "bool",
            Self::String(_) => "string",
            Self::Array(array) => array.kind(),
        }
    }

    /// The integer, whatever its width; `None` for everything that is not one.
    pub fn integer(&self) -> Option<i128> {
        Some(match *self {
            Self::U8(v) => v.into(),
            Self::I8(v) => v.into(),
            Self::U16(v) => v.into(),
            Self::I16(v) => v.into(),
            Self::U32(v) => v.into(),
            Self::I32(v) => v.into(),
            Self::U64(v) => v.into(),
            Self::I64(v) => v.into(),
            _ => return None,
        })
    }
}

impl Array {
    /// As [`Value::kind`].
    pub fn kind(&self) -> &'static str {
        match self {
            Self::U8(_) => "array of u8",
            Self::I8(_) => "array of i8",
            Self::U16(_) => "array of u16",
            Self::I16(_) => "array of i16",
            Self::U32(_) => "array of u32",
            Self::I32(_) => "array of i32",
            Self::U64(_) => "array of u64",
            Self::I64(_) => "array of i64",
            Self::F32(_) => "array of f32",
            Self::F64(_) => "array of f64",
            Self::Bool(_) => "array of bool",
            Self::String(_) => "array of strings",
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::I8(v) => v.len(),
            Self::U16(v) => v.len(),
            Self::I16(v) => v.len(),
            Self::U32(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::U64(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::F32(v) => v.len(),
            Self::F64(v) => v.len(),
            Self::Bool(v) => v.len(),
            Self::String(v) => v.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A list of strings in one allocation: their text end to end, and where each one stops.
///
/// ```
/// use halfbyte_formats::gguf::Strings;
///
/// let words: Strings = ["one", "", "two"].into_iter().collect();
/// assert_eq!(words.len(), 3);
/// assert_eq!(words.at(2), Some("two"));
/// assert_eq!(words.iter().collect::<Vec<_>>(), ["one", "", "two"]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strings {
    text: Box<str>,
    ends: Box<[usize]>,
}

impl Strings {
    /// Takes over `text`, cut at `ends`; `None` unless these rise along character boundaries to the end of it.
    pub(super) fn from_parts(text: String, ends: Vec<usize>) -> Option<Self> {
        let sorted = ends.is_sorted() && ends.last().copied().unwrap_or(0) == text.len();
        let whole = sorted && ends.iter().all(|&end| text.is_char_boundary(end));
        whole.then(|| Self { text: text.into_boxed_str(), ends: ends.into_boxed_slice() })
    }

    /// Number of strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The string at `index`, `None` past the end.
    pub fn at(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)?;
        let start = match index.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        self.text.get(start..end)
    }

    /// All strings in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> + DoubleEndedIterator + FusedIterator + Clone {
        // Every index below `len` has a string.
        (0..self.len()).map(|index| self.at(index).unwrap_or_default())
    }
}

impl<S: AsRef<str>> FromIterator<S> for Strings {
    fn from_iter<I: IntoIterator<Item = S>>(strings: I) -> Self {
        let (mut text, mut ends) = (String::new(), Vec::new());
        for string in strings {
            text.push_str(string.as_ref());
            ends.push(text.len());
        }
        Self { text: text.into_boxed_str(), ends: ends.into_boxed_slice() }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

/// `From` for each payload of `Value` and, wrapped in `Value::Array`, each of `Array`.
macro_rules! from_payload {
    ($($kind:ident: $scalar:ty, $array:ty;)*) => {$(
        impl From<$scalar> for Value {
            fn from(value: $scalar) -> Self {
                Self::$kind(value)
            }
        }
        impl From<$array> for Value {
            fn from(values: $array) -> Self {
                Self::Array(Array::$kind(values))
            }
        }
    )*};
}

from_payload! {
    U8: u8, Vec<u8>;
    I8: i8, Vec<i8>;
    U16: u16, Vec<u16>;
    I16: i16, Vec<i16>;
    U32: u32, Vec<u32>;
    I32: i32, Vec<i32>;
    U64: u64, Vec<u64>;
    I64: i64, Vec<i64>;
    F32: f32, Vec<f32>;
    F64: f64, Vec<f64>;
    Bool: bool, Vec<bool>;
    String: String, Strings;
}
