//! Reading: one validating pass from bytes to [`Gguf`].
//!
//! Bytes come from [`map`](crate::map) or the caller. Everything a length or count in the file decides is compared
//! with the bytes that are left first; metadata is copied out in compact form, tensor data stays where it is and is
//! handed out as [`Bytes`]. A split file is one pass per shard, joined by [`split`](super::split).

use std::{fs, path::Path};

use gguf_rs_lib::format::header::TensorInfo;

use super::{
    Load, Metadata, decode, foreign,
    index::NameIndex,
    layout::{self, MAX_COUNT, MAX_RANK},
    memory::with_room,
    packed::{self, Packed},
    split,
};
use crate::{Bytes, FormatError, QuantType, bytes::Cursor, map, quant::PanelType};

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
    /// What the bytes are, in a packed file.
    pub(super) packed: Option<Box<Packed>>,
}

impl Tensor {
    /// Extents of the weights it holds, the contiguous one first: [`dims`](Self::dims), or those of the matrix (or
    /// stack of matrices) whose panels it is.
    pub fn shape(&self) -> &[usize] {
        self.packed.as_ref().map_or(&self.dims, |packed| packed.dims())
    }

    /// The format of the panels it holds, if it is packed.
    pub fn panels(&self) -> Option<PanelType> {
        self.packed.as_ref().map(|packed| packed.ty)
    }
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

    /// Bytes of the file at `path` and, if it is split, of its other shards: what [`Load::Copy`] will take. How many
    /// shards there are is in the name of each, so no file is read, or mapped: whoever copies may have to do without.
    ///
    /// # Errors
    /// [`FormatError::Io`] if one of the files is not there, [`FormatError::NotRegularFile`] if the named one is none.
    pub fn file_bytes(path: impl AsRef<Path>) -> Result<u64, FormatError> {
        let path = path.as_ref();
        let named = map::open_regular(path)?.1.len();
        let Some(place) = split::named(path) else { return Ok(named) };
        (0..place.count).try_fold(0_u64, |sum, no| {
            let path = split::sibling(path, place, no)?;
            match fs::metadata(&path) {
                Ok(metadata) => Ok(sum.saturating_add(metadata.len())),
                Err(source) => Err(FormatError::Io { action: "open", path, source }),
            }
        })
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

    /// Puts checked parts together; two tensors with one name are an error, or a wrong description of packed ones.
    pub(super) fn from_parts(version: u32, metadata: Metadata, mut tensors: Vec<Tensor>) -> Result<Self, FormatError> {
        let mut index = NameIndex::with_room(tensors.len())?;
        for (position, Tensor { name, .. }) in tensors.iter().enumerate() {
            if index.find(name, name_at(&tensors)).is_some() {
                return Err(FormatError::DuplicateTensor { tensor: name.clone() });
            }
            index.insert(name, position);
        }
        packed::describe(&metadata, &index, &mut tensors)?;
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

    /// Whether it is packed: has a description of packed tensors.
    pub fn is_packed(&self) -> bool {
        packed::is_described(&self.metadata)
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
    cursor.room_for("metadata entries", count, MIN_ENTRY_BYTES)?;
    // Kept, an entry takes more than four times its smallest size. So room is made for those that are there, not for
    // those that are said to be; where one is not, the second walk ends as well, and says what is wrong.
    let mut walk = *cursor;
    let there = (0..count).take_while(|_| pass_entry(&mut walk).is_ok()).count();
    let mut metadata = Metadata::with_room(there)?;
    for _ in 0..count {
        let offset = cursor.offset();
        let key = key(cursor)?;
        let value = decode::value(cursor, &key)?;
        metadata.push(key, value).map_err(|key| FormatError::DuplicateKey { key, offset })?;
    }
    Ok(metadata)
}

/// Passes an entry if all of it is there, whatever it says.
fn pass_entry(cursor: &mut Cursor<'_>) -> Result<(), FormatError> {
    let len = cursor.u64("key length")?;
    layout::check_key_len(len, cursor.offset())?;
    cursor.take("key", len)?;
    decode::pass(cursor)
}

fn key(cursor: &mut Cursor<'_>) -> Result<String, FormatError> {
    let offset = cursor.offset();
    let len = cursor.u64("key length")?;
    layout::check_key_len(len, offset)?;
    let key = text(cursor, "key", len)?;
    layout::check_key(&key, offset)?;
    Ok(key)
}

/// A copy of the next `len` bytes, which must be UTF-8. It is the copy that is checked: a map could change after.
fn text(cursor: &mut Cursor<'_>, what: &'static str, len: u64) -> Result<String, FormatError> {
    let offset = cursor.offset();
    let bytes = cursor.take(what, len)?;
    let mut text = with_room(what, bytes.len())?;
    text.extend_from_slice(bytes);
    String::from_utf8(text).map_err(|_| FormatError::NotUtf8 { what, offset })
}

/// Descriptions and data of all tensors: the data one after the other, each at the next aligned offset, with
/// nothing after the last but the bytes that fill it up.
fn tensors(file: &Bytes, cursor: Cursor<'_>, count: u64, alignment: usize) -> Result<Vec<Tensor>, FormatError> {
    let capacity = cursor.room_for("tensor descriptions", count, MIN_TENSOR_BYTES)?;
    // The data starts where the descriptions end, so they are walked once to find that and once to be kept.
    let mut walk = cursor;
    for _ in 0..count {
        description(&mut walk)?;
    }
    // All sums stay far from overflow: `end` is at most the length of a slice, `alignment` at most 1 MiB.
    let (have, mut end) = (file.len(), walk.at());
    let data_start = end.next_multiple_of(alignment);

    let mut cursor = cursor;
    let mut tensors = with_room("tensor descriptions", capacity)?;
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
        tensors.push(Tensor { name: tensor, dims, ty, data: file.slice(start..end)?, packed: None });
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
    let tensor = text(&mut fields, "tensor name", name_len)?;
    layout::check_tensor_name(&tensor, offset)?;
    let rank_offset = fields.offset();
    let rank = layout::in_range("tensor rank", rank_offset, fields.u32("tensor rank")?.into(), 1, MAX_RANK)?;
    let dims = (0..rank).map(|_| dimension(&mut fields)).collect::<Result<Vec<_>, _>>()?;
    let type_offset = fields.offset();
    let ty = layout::tensor_type(&tensor, fields.u32("tensor type")?, type_offset)?;
    fields.u64("tensor offset")?;
    let bytes = layout::tensor_bytes(&tensor, &dims, ty, offset)?;

    let refused = |source| FormatError::Library { what: "tensor description", offset, source: Box::new(source) };
    let info = TensorInfo::read_from(&mut cursor.take("tensor description", fields.offset() - offset)?);
    let data_offset = info.map_err(refused)?.offset;
    Ok(Description { offset, tensor, dims, ty, bytes, data_offset })
}

fn dimension(fields: &mut Cursor<'_>) -> Result<usize, FormatError> {
    let offset = fields.offset();
    let what = "tensor dimension";
    let found = fields.u64(what)?;
    usize::try_from(found).map_err(|_| FormatError::OutOfRange { what, offset, found, min: 1, max: usize::MAX as u64 })
}
