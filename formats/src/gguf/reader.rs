//! Reading: one validating pass from bytes to [`Gguf`].
//!
//! Bytes come from [`map`](crate::map) or the caller. Everything a length or count in the file decides is compared
//! with the bytes that are left first; metadata is copied out in compact form, tensor data stays where it is and is
//! handed out as [`Bytes`]. A split file is one pass per shard, joined by [`split`](super::split).

use std::path::Path;

use gguf_rs_lib::format::{header::TensorInfo, metadata::MetadataValue, types::GGUFValueType};

use super::{
    Array, Load, Metadata, Strings, Value, foreign,
    index::NameIndex,
    layout::{self, MAX_COUNT, MAX_METADATA_BYTES, MAX_RANK},
    split,
};
use crate::{Bytes, FormatError, QuantType, bytes::Cursor, map};

/// Smallest metadata entry: length and one byte of key, kind, one byte of value.
const MIN_ENTRY_BYTES: u64 = 8 + 1 + 4 + 1;
/// Smallest tensor description: length and one byte of name, rank, one dimension, type, offset.
const MIN_TENSOR_BYTES: u64 = 8 + 1 + 4 + 8 + 4 + 8;

/// One tensor of a file: a checked shape and a view of its data.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Name, as stored.
    pub name: String,
    /// Extents, the contiguous one first; none is 0.
    pub dims: Vec<usize>,
    /// Storage format.
    pub ty: QuantType,
    /// The stored bytes, exactly as long as the shape demands.
    pub data: Bytes,
}

/// An open GGUF file (or all shards of a split one), validated.
#[derive(Clone, Debug)]
pub struct Gguf {
    version: u32,
    metadata: Metadata,
    tensors: Vec<Tensor>,
    index: NameIndex,
}

impl Gguf {
    /// Maps the file at `path`, following its other shards if it is split.
    ///
    /// Any shard may be named: `name-00001-of-00003.gguf` or one of its neighbours. The other shards are looked for
    /// in the same folder. See [`Load::Map`] for what happens if a mapped file is changed by someone else.
    ///
    /// # Errors
    /// [`FormatError::Io`] and [`FormatError::NotRegularFile`] if a file cannot be opened, and any other variant if
    /// the bytes break a rule of the format; a model that is accepted can be read to its last byte.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, FormatError> {
        Self::open_with(path, Load::Map)
    }

    /// As [`open`](Self::open), with a choice between mapping and copying.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(path: impl AsRef<Path>, how: Load) -> Result<Self, FormatError> {
        let path = path.as_ref();
        let named = parse(&map::load(path, how)?)?;
        let Some(place) = named.place()? else { return split::join(vec![named]) };
        let mut named = Some(named);
        let mut shards = Vec::new();
        for no in 0..place.count {
            // The other names come first: one that does not fit the pattern ends here, before anything is opened.
            let other = split::sibling(path, place, no)?;
            shards.push(match named.take_if(|_| no == place.no) {
                Some(shard) => shard,
                None => parse(&map::load(&other, how)?)?,
            });
        }
        split::join(shards)
    }

    /// Reads a whole file from memory.
    ///
    /// # Errors
    /// Any variant that is not about the file system, if the bytes break a rule of the format;
    /// [`FormatError::ShardMismatch`] if they are one shard of several (see [`from_shards`](Self::from_shards)).
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Result<Self, FormatError> {
        split::join(vec![parse(&bytes.into())?])
    }

    /// Reads all shards of a split file from memory, in order.
    ///
    /// # Errors
    /// As [`from_bytes`](Self::from_bytes), and [`FormatError::ShardMismatch`] if the shards do not belong together.
    pub fn from_shards<B: Into<Bytes>>(shards: impl IntoIterator<Item = B>) -> Result<Self, FormatError> {
        split::join(shards.into_iter().map(|bytes| parse(&bytes.into())).collect::<Result<_, _>>()?)
    }

    /// Puts checked parts together; a name that two tensors share is an error.
    pub(super) fn from_parts(version: u32, metadata: Metadata, tensors: Vec<Tensor>) -> Result<Self, FormatError> {
        let mut index = NameIndex::with_capacity(tensors.len());
        for (position, Tensor { name, .. }) in tensors.iter().enumerate() {
            if index.find(name, name_at(&tensors)).is_some() {
                return Err(FormatError::DuplicateTensor { tensor: name.clone() });
            }
            index.insert(name, position);
        }
        Ok(Self { version, metadata, tensors, index })
    }

    /// The version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The metadata; of a split file, that of its first shard.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors, in file order; none in a file that holds only a vocabulary.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The tensor called `name`, found in constant time.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.index.find(name, name_at(&self.tensors)).and_then(|at| self.tensors.get(at))
    }
}

fn name_at<'a>(tensors: &'a [Tensor]) -> impl Fn(usize) -> Option<&'a str> {
    move |at| tensors.get(at).map(|tensor| tensor.name.as_str())
}

/// One file of a model: the whole of it, or a shard.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) version: u32,
    pub(super) metadata: Metadata,
    pub(super) tensors: Vec<Tensor>,
}

pub(super) fn parse(file: &Bytes) -> Result<Shard, FormatError> {
    let mut cursor = Cursor::new(file);
    let version = header(&mut cursor)?;
    let tensor_count = count(&mut cursor, "tensor count")?;
    let entry_count = count(&mut cursor, "metadata count")?;
    let metadata = metadata(&mut cursor, entry_count)?;
    let alignment = layout::alignment(metadata.value(layout::ALIGNMENT_KEY))?;
    let tensors = tensors(file, cursor, tensor_count, alignment)?;
    Ok(Shard { version, metadata, tensors })
}

/// Magic and version.
fn header(cursor: &mut Cursor<'_>) -> Result<u32, FormatError> {
    let start = cursor.rest();
    // A file cut inside the magic is called short, not foreign.
    if start.is_empty() || !b"GGUF".starts_with(start.get(..4).unwrap_or(start)) {
        let reversed = start.starts_with(b"FUGG");
        return Err(match start.get(4..8).and_then(|bytes| bytes.first_chunk()) {
            Some(&version) if reversed => FormatError::BigEndian { found: u32::from_le_bytes(version) },
            _ => FormatError::NotGguf { found: foreign::identify(start) },
        });
    }
    cursor.take("magic", 4)?;
    match cursor.u32("version")? {
        version @ (2 | 3) => Ok(version),
        found if (1..=3).contains(&found.swap_bytes()) => Err(FormatError::BigEndian { found }),
        found => Err(FormatError::UnsupportedVersion { found }),
    }
}

fn count(cursor: &mut Cursor<'_>, what: &'static str) -> Result<u64, FormatError> {
    let offset = cursor.offset();
    layout::in_range(what, offset, cursor.u64(what)?, 0, MAX_COUNT)
}

fn metadata(cursor: &mut Cursor<'_>, count: u64) -> Result<Metadata, FormatError> {
    let mut metadata = Metadata::with_capacity(cursor.expect("metadata entries", count, MIN_ENTRY_BYTES)?);
    for _ in 0..count {
        let offset = cursor.offset();
        let key = key(cursor)?;
        let value = value(cursor, key)?;
        metadata.push(key.to_owned(), value).map_err(|key| FormatError::DuplicateKey { key, offset })?;
    }
    Ok(metadata)
}

fn key<'a>(cursor: &mut Cursor<'a>) -> Result<&'a str, FormatError> {
    let offset = cursor.offset();
    let len = cursor.u64("key length")?;
    layout::check_key_len(len, offset)?;
    layout::check_key(cursor.take("key", len)?, offset)
}

fn kind(cursor: &mut Cursor<'_>, what: &'static str) -> Result<GGUFValueType, FormatError> {
    let offset = cursor.offset();
    let found = cursor.u32(what)?;
    let out_of_range = |_| FormatError::OutOfRange { what, offset, found: found.into(), min: 0, max: 12 };
    GGUFValueType::from_u32(found).map_err(out_of_range)
}

/// A value of any kind: its kind, then itself.
fn value(cursor: &mut Cursor<'_>, key: &str) -> Result<Value, FormatError> {
    Ok(match kind(cursor, "value type")? {
        GGUFValueType::Array => Value::Array(array(cursor, key)?),
        kind => match scalar(cursor, kind)? {
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
            MetadataValue::String(v) => Value::String(v),
            // `scalar` is not asked for arrays.
            MetadataValue::Array(_) => {
                return Err(FormatError::NestedArray { key: key.to_owned(), offset: cursor.offset() });
            }
        },
    })
}

/// A value that is not an array, decoded by the library from exactly the bytes it may use.
fn scalar(cursor: &mut Cursor<'_>, kind: GGUFValueType) -> Result<MetadataValue, FormatError> {
    let offset = cursor.offset();
    let size = match kind.size_in_bytes() {
        Some(size) => size as u64,
        None => {
            let mut ahead = *cursor;
            let len = ahead.u64("string length")?;
            ahead.take("string", len)?;
            8 + len // no overflow: `len` bytes are there
        }
    };
    let mut bytes = cursor.take("value", size)?;
    within_limit(cursor)?;
    let first = bytes.first().copied().unwrap_or_default();
    MetadataValue::read_from(&mut bytes, kind).map_err(|source| match kind {
        GGUFValueType::String => FormatError::NotUtf8 { what: "string", offset },
        GGUFValueType::Bool => FormatError::OutOfRange { what: "bool", offset, found: first.into(), min: 0, max: 1 },
        _ => FormatError::Library { what: "value", offset, source: Box::new(source) },
    })
}

/// An array: element kind, count, elements. Not decoded by the library, which spends 24 bytes on each element.
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
    cursor.expect("array", count, N as u64)?;
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
    let len = cursor.expect("array", count, 8)?;
    let start = *cursor;
    for _ in 0..count {
        let len = cursor.u64("string length")?;
        cursor.take("string", len)?;
    }
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

/// The budget that all metadata of a file share. Nothing takes more memory decoded than stored, so the place the
/// reader has come to bounds what it has allocated.
fn within_limit(cursor: &Cursor<'_>) -> Result<(), FormatError> {
    let at = cursor.offset();
    layout::in_range("end of metadata", at, at, 0, MAX_METADATA_BYTES).map(drop)
}

/// An empty vector with room for the `len` elements that `cursor` has just passed.
fn reserved<T>(cursor: &Cursor<'_>, what: &'static str, len: usize) -> Result<Vec<T>, FormatError> {
    within_limit(cursor)?;
    let mut values = Vec::new();
    let need = (len as u64).saturating_mul(size_of::<T>() as u64);
    values.try_reserve_exact(len).map_err(|_| FormatError::OutOfMemory { what, need })?;
    Ok(values)
}

/// Descriptions and data of all tensors: the data one after the other, each at the next aligned offset, with
/// nothing after the last but the bytes that fill it up.
fn tensors(file: &Bytes, cursor: Cursor<'_>, count: u64, alignment: usize) -> Result<Vec<Tensor>, FormatError> {
    let capacity = cursor.expect("tensor descriptions", count, MIN_TENSOR_BYTES)?;
    // The data starts where the descriptions end, so they are walked once to find that and once to be kept.
    let mut walk = cursor;
    for _ in 0..count {
        description(&mut walk)?;
    }
    // All sums stay far from overflow: `end` is at most the length of a slice, `alignment` at most 1 MiB.
    let (have, mut end) = (file.len(), walk.at());
    let data_start = end.next_multiple_of(alignment);

    let mut cursor = cursor;
    let mut tensors = Vec::with_capacity(capacity);
    for _ in 0..count {
        let Description { offset, tensor, dims, ty, bytes, data_offset } = description(&mut cursor)?;
        let start = end.next_multiple_of(alignment);
        let expected = start - data_start;
        if data_offset != expected as u64 {
            return Err(FormatError::TensorOffset { tensor, offset, expected, found: data_offset });
        }
        end = start.saturating_add(bytes);
        if end > have {
            return Err(FormatError::Truncated { tensor, need: end, have });
        }
        tensors.push(Tensor { name: tensor, dims, ty, data: file.slice(start..end)? });
    }
    let end = end.next_multiple_of(alignment);
    if have > end {
        return Err(FormatError::TrailingBytes { offset: end, found: have - end });
    }
    Ok(tensors)
}

/// A tensor as the file describes it; whether its data is there is not known yet.
struct Description {
    offset: u64,
    tensor: String,
    dims: Vec<usize>,
    ty: QuantType,
    bytes: usize,
    data_offset: u64,
}

/// Checks the fields of a description one by one, then lets the library decode it.
fn description(cursor: &mut Cursor<'_>) -> Result<Description, FormatError> {
    let offset = cursor.offset();
    let mut fields = *cursor;
    let name_len = fields.u64("tensor name length")?;
    layout::check_tensor_name_len(name_len, offset)?;
    let name = layout::check_tensor_name(fields.take("tensor name", name_len)?, offset)?;
    let rank_offset = fields.offset();
    let rank = layout::in_range("tensor rank", rank_offset, fields.u32("tensor rank")?.into(), 1, MAX_RANK)?;
    let dims = (0..rank).map(|_| dimension(&mut fields)).collect::<Result<Vec<_>, _>>()?;
    let type_offset = fields.offset();
    let ty = layout::tensor_type(name, fields.u32("tensor type")?, type_offset)?;
    fields.u64("tensor offset")?;
    let bytes = layout::tensor_bytes(name, &dims, ty, offset)?;

    let refused = |source| FormatError::Library { what: "tensor description", offset, source: Box::new(source) };
    let info = TensorInfo::read_from(&mut cursor.take("tensor description", fields.offset() - offset)?);
    let TensorInfo { name: tensor, offset: data_offset, .. } = info.map_err(refused)?;
    Ok(Description { offset, tensor, dims, ty, bytes, data_offset })
}

fn dimension(fields: &mut Cursor<'_>) -> Result<usize, FormatError> {
    let offset = fields.offset();
    let what = "tensor dimension";
    let found = fields.u64(what)?;
    usize::try_from(found).map_err(|_| FormatError::OutOfRange { what, offset, found, min: 1, max: usize::MAX as u64 })
}
