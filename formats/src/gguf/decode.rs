//! Metadata values from bytes: what [`encode`](super::encode) wrote, or what a hostile file pretends was written.
//!
//! Numbers are decoded by the library, from exactly the bytes they may use. Strings and arrays are decoded here, where
//! too little memory is an error; the library also spends 24 bytes on each element, and a file of `u8` would take 24
//! times its size.

use gguf_rs_lib::format::{metadata::MetadataValue, types::GGUFValueType};

use super::{Array, Strings, Value, layout, memory::with_room};
use crate::{FormatError, bytes::Cursor};

/// A value of any kind: its kind, then itself.
pub(super) fn value(cursor: &mut Cursor<'_>, key: &str) -> Result<Value, FormatError> {
    Ok(match kind(cursor, "value type")? {
        GGUFValueType::Array => Value::Array(array(cursor, key)?),
        GGUFValueType::String => Value::String(string(cursor)?),
        kind => match scalar(cursor, kind, key)? {
            MetadataValue::U8(v) => Value::U8(v),
            MetadataValue::I8(v) => Value::I8(v),
            MetadataValue::U16(v) => Value::U16(v),
            MetadataValue::I16(v) => Value::I16(v),
            MetadataValue::U32(v) => Value::U32(v),
            MetadataValue::I32(v) => Value::I32(v),
            MetadataValue::U64(v) => Value::U64(v),
            MetadataValue::I64(v) => Value::I64(v),
            MetadataValue::F32(v) => Value::F32(v),
            MetadataValue::F64(v) => Value::F64(v),
            MetadataValue::Bool(v) => Value::Bool(v),
            // `scalar` is not asked for these.
            MetadataValue::String(_) | MetadataValue::Array(_) => {
                return Err(FormatError::NestedArray { key: key.to_owned(), offset: cursor.offset() });
            }
        },
    })
}

/// Passes a value of any kind if all of it is there, and looks no closer: what [`value`] accepts is passed.
pub(super) fn pass(cursor: &mut Cursor<'_>) -> Result<(), FormatError> {
    match kind(cursor, "value type")? {
        GGUFValueType::Array => {
            let kind = kind(cursor, "array element type")?;
            let count = cursor.u64("array length")?;
            match kind.size_in_bytes() {
                Some(size) => cursor.take("array", count.saturating_mul(size as u64)).map(drop),
                None => pass_texts(cursor, count),
            }
        }
        kind => match kind.size_in_bytes() {
            Some(size) => cursor.take("value", size as u64).map(drop),
            None => pass_texts(cursor, 1),
        },
    }
}

/// Passes `count` texts, to the limit of metadata: a file with holes can be longer than anybody can wait.
fn pass_texts(cursor: &mut Cursor<'_>, count: u64) -> Result<(), FormatError> {
    for _ in 0..count {
        let len = cursor.u64("string length")?;
        cursor.take("string", len)?;
        layout::check_metadata_end(cursor.offset())?;
    }
    Ok(())
}

fn kind(cursor: &mut Cursor<'_>, what: &'static str) -> Result<GGUFValueType, FormatError> {
    let offset = cursor.offset();
    let found = cursor.u32(what)?;
    let out_of_range = |_| FormatError::OutOfRange { what, offset, found: found.into(), min: 0, max: 12 };
    GGUFValueType::from_u32(found).map_err(out_of_range)
}

/// A number or truth value, decoded by the library from exactly the bytes it may use.
fn scalar(cursor: &mut Cursor<'_>, kind: GGUFValueType, key: &str) -> Result<MetadataValue, FormatError> {
    let offset = cursor.offset();
    let size = kind.size_in_bytes().ok_or_else(|| FormatError::NestedArray { key: key.to_owned(), offset })?;
    let mut bytes = cursor.take("value", size as u64)?;
    layout::check_metadata_end(cursor.offset())?;
    let first = bytes.first().copied().unwrap_or_default();
    MetadataValue::read_from(&mut bytes, kind).map_err(|source| match kind {
        GGUFValueType::Bool => FormatError::OutOfRange { what: "bool", offset, found: first.into(), min: 0, max: 1 },
        _ => FormatError::Library { what: "value", offset, source: Box::new(source) },
    })
}

/// Text: its length, then itself.
fn string(cursor: &mut Cursor<'_>) -> Result<String, FormatError> {
    let offset = cursor.offset();
    let len = cursor.u64("string length")?;
    let bytes = cursor.take("string", len)?;
    let mut text = reserved(cursor, "string", bytes.len())?;
    text.extend_from_slice(bytes);
    String::from_utf8(text).map_err(|_| FormatError::NotUtf8 { what: "string", offset })
}

/// An array: element kind, count, elements.
fn array(cursor: &mut Cursor<'_>, key: &str) -> Result<Array, FormatError> {
    let offset = cursor.offset();
    let kind = kind(cursor, "array element type")?;
    let count = cursor.u64("array length")?;
    Ok(match kind {
        GGUFValueType::U8 => Array::U8(numbers(cursor, count, u8::from_le_bytes)?),
        GGUFValueType::I8 => Array::I8(numbers(cursor, count, i8::from_le_bytes)?),
        GGUFValueType::U16 => Array::U16(numbers(cursor, count, u16::from_le_bytes)?),
        GGUFValueType::I16 => Array::I16(numbers(cursor, count, i16::from_le_bytes)?),
        GGUFValueType::U32 => Array::U32(numbers(cursor, count, u32::from_le_bytes)?),
        GGUFValueType::I32 => Array::I32(numbers(cursor, count, i32::from_le_bytes)?),
        GGUFValueType::U64 => Array::U64(numbers(cursor, count, u64::from_le_bytes)?),
        GGUFValueType::I64 => Array::I64(numbers(cursor, count, i64::from_le_bytes)?),
        GGUFValueType::F32 => Array::F32(numbers(cursor, count, f32::from_le_bytes)?),
        GGUFValueType::F64 => Array::F64(numbers(cursor, count, f64::from_le_bytes)?),
        GGUFValueType::Bool => Array::Bool(bools(cursor, count)?),
        GGUFValueType::String => Array::String(strings(cursor, count)?),
        GGUFValueType::Array => return Err(FormatError::NestedArray { key: key.to_owned(), offset }),
    })
}

fn numbers<const N: usize, T>(
    cursor: &mut Cursor<'_>,
    count: u64,
    decode: fn([u8; N]) -> T,
) -> Result<Vec<T>, FormatError> {
    cursor.room_for("array", count, N as u64)?;
    let (elements, _) = cursor.take("array", count * N as u64)?.as_chunks::<N>();
    let mut values = reserved(cursor, "array", elements.len())?;
    values.extend(elements.iter().map(|&bytes| decode(bytes)));
    Ok(values)
}

fn bools(cursor: &mut Cursor<'_>, count: u64) -> Result<Vec<bool>, FormatError> {
    let offset = cursor.offset();
    let bytes = cursor.take("array", count)?;
    if let Some(at) = bytes.iter().position(|&byte| byte > 1) {
        let found = bytes.get(at).copied().unwrap_or_default().into();
        return Err(FormatError::OutOfRange { what: "bool", offset: offset + at as u64, found, min: 0, max: 1 });
    }
    let mut values = reserved(cursor, "array", bytes.len())?;
    values.extend(bytes.iter().map(|&byte| byte == 1));
    Ok(values)
}

/// Two passes: the first learns the sizes, so that each allocation is made once and is exact.
fn strings(cursor: &mut Cursor<'_>, count: u64) -> Result<Strings, FormatError> {
    let len = cursor.room_for("array", count, 8)?;
    let start = *cursor;
    pass_texts(cursor, count)?;
    // Each string took 8 bytes for its length, the rest is text.
    let text_len = cursor.at() - start.at() - len * 8;
    let mut ends = reserved(cursor, "array of strings", len)?;
    let mut text: Vec<u8> = reserved(cursor, "array of strings", text_len)?;
    let mut again = start;
    for _ in 0..count {
        let len = again.u64("string length")?;
        text.extend_from_slice(again.take("string", len)?);
        ends.push(text.len());
    }
    // All text is checked at once; each string is valid if it also starts and stops between characters.
    let strings = String::from_utf8(text).ok().and_then(|text| Strings::from_parts(text, ends));
    strings.ok_or_else(|| FormatError::NotUtf8 { what: "string", offset: first_not_utf8(start, count) })
}

/// Where the first bad string of an array is, for the message.
fn first_not_utf8(mut cursor: Cursor<'_>, count: u64) -> u64 {
    for _ in 0..count {
        let offset = cursor.offset();
        let bytes = cursor.u64("string length").and_then(|len| cursor.take("string", len));
        if !bytes.is_ok_and(|bytes| str::from_utf8(bytes).is_ok()) {
            return offset;
        }
    }
    cursor.offset()
}

/// An empty vector with room for the `len` elements that `cursor` has just passed. Nothing takes more memory decoded
/// than stored, so the limit of where metadata ends is one of what is allocated.
fn reserved<T>(cursor: &Cursor<'_>, what: &'static str, len: usize) -> Result<Vec<T>, FormatError> {
    layout::check_metadata_end(cursor.offset())?;
    with_room(what, len)
}
