//! The head of a file as bytes: what [`reader`](super::reader) reads before the tensor data.
//!
//! Single values and tensor descriptions are encoded by the library, arrays here, as in reading.

use gguf_rs_lib::{
    GGUFError,
    format::{header::TensorInfo, metadata::MetadataValue, types::GGUFValueType},
};

use super::{Array, Value, layout, writer::Announced};
use crate::FormatError;

/// The version written.
const VERSION: u32 = 3;

/// Everything up to the first byte of tensor data.
pub(super) fn head(
    entries: &[(String, Value)],
    tensors: &[Announced],
    alignment: usize,
) -> Result<Vec<u8>, FormatError> {
    let mut head = Vec::new();
    head.extend(b"GGUF");
    head.extend(VERSION.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend((entries.len() as u64).to_le_bytes());
    // Before any of them takes memory.
    let mut end = head.len() as u64;
    for (key, value) in entries {
        end = end.saturating_add(entry_bytes(key, value));
        layout::check_metadata_end(end)?;
    }
    for (key, value) in entries {
        text(&mut head, key);
        match value {
            Value::Array(values) => array(&mut head, values),
            single => scalar(&mut head, single).map_err(refused("value", head.len()))?,
        }
    }
    let mut offset = 0usize;
    for Announced { name, dims, ty, bytes } in tensors {
        let overflow = || FormatError::SizeOverflow { tensor: name.clone(), offset: 0 };
        let dims = dims.iter().map(|&dim| dim as u64).collect();
        let info = TensorInfo::new(name.clone(), dims, ty.ggml_id(), offset as u64);
        info.write_to(&mut head).map_err(refused("tensor description", head.len()))?;
        let end = offset.checked_add(*bytes).and_then(|end| end.checked_next_multiple_of(alignment));
        offset = end.ok_or_else(overflow)?;
    }
    // A file of metadata only has no data section whose start could be aligned.
    if !tensors.is_empty() {
        head.resize(head.len().next_multiple_of(alignment), 0);
    }
    Ok(head)
}

fn refused(what: &'static str, offset: usize) -> impl FnOnce(GGUFError) -> FormatError {
    move |source| FormatError::Library { what, offset: offset as u64, source: Box::new(source) }
}

fn kind(head: &mut Vec<u8>, kind: GGUFValueType) {
    head.extend((kind as u32).to_le_bytes());
}

fn text(head: &mut Vec<u8>, text: &str) {
    head.extend((text.len() as u64).to_le_bytes());
    head.extend(text.as_bytes());
}

/// A value that is not an array (an array writes nothing).
fn scalar(head: &mut Vec<u8>, value: &Value) -> Result<(), GGUFError> {
    let value = match value {
        Value::U8(v) => MetadataValue::U8(*v),
        Value::I8(v) => MetadataValue::I8(*v),
        Value::U16(v) => MetadataValue::U16(*v),
        Value::I16(v) => MetadataValue::I16(*v),
        Value::U32(v) => MetadataValue::U32(*v),
        Value::I32(v) => MetadataValue::I32(*v),
        Value::U64(v) => MetadataValue::U64(*v),
        Value::I64(v) => MetadataValue::I64(*v),
        Value::F32(v) => MetadataValue::F32(*v),
        Value::F64(v) => MetadataValue::F64(*v),
        Value::Bool(v) => MetadataValue::Bool(*v),
        Value::String(v) => MetadataValue::String(v.clone()),
        Value::Array(_) => return Ok(()),
    };
    kind(head, value.value_type());
    value.write_to(head)
}

/// What the elements of an array are.
fn element(array: &Array) -> GGUFValueType {
    match array {
        Array::U8(_) => GGUFValueType::U8,
        Array::I8(_) => GGUFValueType::I8,
        Array::U16(_) => GGUFValueType::U16,
        Array::I16(_) => GGUFValueType::I16,
        Array::U32(_) => GGUFValueType::U32,
        Array::I32(_) => GGUFValueType::I32,
        Array::U64(_) => GGUFValueType::U64,
        Array::I64(_) => GGUFValueType::I64,
        Array::F32(_) => GGUFValueType::F32,
        Array::F64(_) => GGUFValueType::F64,
        Array::Bool(_) => GGUFValueType::Bool,
        Array::String(_) => GGUFValueType::String,
    }
}

/// Bytes that an entry becomes: length and text of the key, kind, value.
fn entry_bytes(key: &str, value: &Value) -> u64 {
    let value = match value {
        Value::U8(_) | Value::I8(_) | Value::Bool(_) => 1,
        Value::U16(_) | Value::I16(_) => 2,
        Value::U32(_) | Value::I32(_) | Value::F32(_) => 4,
        Value::U64(_) | Value::I64(_) | Value::F64(_) => 8,
        Value::String(text) => 8 + text.len(),
        Value::Array(array) => {
            let elements = match array {
                Array::String(strings) => strings.iter().fold(0, |bytes: usize, text| bytes + 8 + text.len()),
                numbers => numbers.len() * element(numbers).size_in_bytes().unwrap_or_default(),
            };
            4 + 8 + elements
        }
    };
    (8 + key.len() + 4 + value) as u64
}

fn array(head: &mut Vec<u8>, array: &Array) {
    kind(head, GGUFValueType::Array);
    kind(head, element(array));
    head.extend((array.len() as u64).to_le_bytes());
    match array {
        Array::U8(v) => head.extend(v),
        Array::I8(v) => head.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::U16(v) => head.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::I16(v) => head.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::U32(v) => head.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::I32(v) => head.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::U64(v) => head.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::I64(v) => head.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::F32(v) => head.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::F64(v) => head.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::Bool(v) => head.extend(v.iter().map(|&v| u8::from(v))),
        Array::String(v) => v.iter().for_each(|v| text(head, v)),
    }
}
