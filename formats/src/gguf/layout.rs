//! The rules of a GGUF file that reader and writer share: limits, names, shapes, alignment.
//!
//! What the writer accepts, the reader accepts; a rule is written once.

use gguf_rs_lib::format::types::GGUFTensorType;

use super::Value;
use crate::{FormatError, QuantType};

/// Entries of metadata, and tensors, in one file.
pub(super) const MAX_COUNT: u64 = 65_536;
/// Bytes of metadata in one file, all entries together.
const MAX_METADATA_BYTES: u64 = 256 << 20;
/// Bytes of a metadata key.
const MAX_KEY_LEN: u64 = 65_535;
/// Bytes of a tensor name: ggml keeps 64 with the final NUL.
const MAX_TENSOR_NAME_LEN: u64 = 63;
/// Dimensions of a tensor.
pub(super) const MAX_RANK: u64 = 4;
/// Alignment of tensor data if the file names none, in bytes.
const DEFAULT_ALIGNMENT: usize = 32;
/// Largest alignment of tensor data, in bytes.
const MAX_ALIGNMENT: usize = 1 << 20;

/// The metadata key that sets the alignment of tensor data.
pub(super) const ALIGNMENT_KEY: &str = "general.alignment";

/// Demands that the number in a field lies in `min..=max`.
pub(super) fn in_range(what: &'static str, offset: u64, found: u64, min: u64, max: u64) -> Result<u64, FormatError> {
    if (min..=max).contains(&found) {
        return Ok(found);
    }
    Err(FormatError::OutOfRange { what, offset, found, min, max })
}

/// Demands that there is room for one more than `len` entries or tensors.
pub(super) fn check_count(what: &'static str, len: usize) -> Result<(), FormatError> {
    in_range(what, 0, (len as u64).saturating_add(1), 0, MAX_COUNT).map(drop)
}

/// The budget that all metadata of a file share: the place where an entry ends, in bytes from the start of the file.
pub(super) fn check_metadata_end(at: u64) -> Result<(), FormatError> {
    in_range("end of metadata", at, at, 0, MAX_METADATA_BYTES).map(drop)
}

/// Checks the length of a key before it is read.
pub(super) fn check_key_len(len: u64, offset: u64) -> Result<(), FormatError> {
    in_range("key length", offset, len, 1, MAX_KEY_LEN).map(drop)
}

/// A metadata key: printable ASCII. Hyphens are common (`gpt-oss.block_count`), so are capitals.
pub(super) fn check_key(key: &str, offset: u64) -> Result<(), FormatError> {
    let bad = key.chars().find(|c| !matches!(c, ' '..='~'));
    bad.map_or(Ok(()), |found| Err(FormatError::InvalidCharacter { what: "key", offset, found }))
}

/// Checks the length of a tensor name before it is read.
pub(super) fn check_tensor_name_len(len: u64, offset: u64) -> Result<(), FormatError> {
    in_range("tensor name length", offset, len, 1, MAX_TENSOR_NAME_LEN).map(drop)
}

/// A tensor name: anything but control characters.
pub(super) fn check_tensor_name(name: &str, offset: u64) -> Result<(), FormatError> {
    let bad = name.chars().find(|c| c.is_control());
    bad.map_or(Ok(()), |found| Err(FormatError::InvalidCharacter { what: "tensor name", offset, found }))
}

/// The format behind a GGUF type number; `offset` is where the number stands.
pub(super) fn tensor_type(tensor: &str, id: u32, offset: u64) -> Result<QuantType, FormatError> {
    QuantType::from_ggml_id(id).ok_or_else(|| FormatError::UnsupportedTensorType {
        tensor: tensor.to_owned(),
        name: type_name(id),
        id,
        offset,
    })
}

/// Bytes of tensor data of this shape; `offset` is where the description starts.
pub(super) fn tensor_bytes(tensor: &str, dims: &[usize], ty: QuantType, offset: u64) -> Result<usize, FormatError> {
    in_range("tensor rank", offset, dims.len() as u64, 1, MAX_RANK)?;
    for &dim in dims {
        in_range("tensor dimension", offset, dim as u64, 1, usize::MAX as u64)?;
    }
    let (len, block) = (dims.first().copied().unwrap_or(1), ty.block_len());
    if !len.is_multiple_of(block) {
        return Err(FormatError::PartialBlock { tensor: tensor.to_owned(), offset, ty, len, block });
    }
    let size = || {
        let elements = dims.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim))?;
        let geometry = GGUFTensorType::from_u32(ty.ggml_id()).ok()?;
        usize::try_from(geometry.checked_calculate_size(elements as u64)?).ok()
    };
    size().ok_or_else(|| FormatError::SizeOverflow { tensor: tensor.to_owned(), offset })
}

/// The alignment of tensor data, in bytes, given the value of [`ALIGNMENT_KEY`].
pub(super) fn alignment(value: Option<&Value>) -> Result<usize, FormatError> {
    let found = match value {
        None => return Ok(DEFAULT_ALIGNMENT),
        Some(Value::U32(found)) => *found,
        Some(other) => {
            let (expected, found) = ("u32", other.kind());
            return Err(FormatError::MetadataKind { key: ALIGNMENT_KEY.to_owned(), expected, found });
        }
    };
    let usable = usize::try_from(found).ok().filter(|&bytes| bytes.is_power_of_two() && bytes <= MAX_ALIGNMENT);
    usable.ok_or(FormatError::InvalidAlignment { found, limit: MAX_ALIGNMENT })
}

/// What people call a type number.
fn type_name(id: u32) -> &'static str {
    // Numbers that ggml gave out and took back.
    match id {
        4 => return "Q4_2",
        5 => return "Q4_3",
        31 => return "Q4_0_4_4",
        32 => return "Q4_0_4_8",
        33 => return "Q4_0_8_8",
        36 => return "IQ4_NL_4_4",
        37 => return "IQ4_NL_4_8",
        38 => return "IQ4_NL_8_8",
        _ => {}
    }
    GGUFTensorType::from_u32(id).map_or("unknown", GGUFTensorType::name)
}
