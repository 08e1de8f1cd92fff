//! Packed files: which tensors are panels of 16 rows, and of what.
//!
//! A packed file is a GGUF file like any other to who does not know it: packed tensors are one-dimensional I8 tensors
//! under their own names. Four metadata entries say what is in them:
//!
//! ```text
//! halfbyte.pack.version   u32                        1
//! halfbyte.pack.names     array of n strings         tensors
//! halfbyte.pack.types     array of n strings         PanelType::name of each
//! halfbyte.pack.shapes    array of 3 n u64           depth, rows, count of each: a stack of `count` matrices
//! ```
//! The matrices of a stack lie one after the other, each in whole panels. `general.alignment` is [`PACK_ALIGNMENT`], so
//! that data can be mapped, and used, as it is.

use super::{Array, Metadata, Strings, Tensor, Value, index::NameIndex};
use crate::{
    FormatError, QuantType,
    quant::{PANEL_ROWS, PanelType},
};

/// Alignment of tensor data in packed files, in bytes: a page, on machines with large ones too.
pub const PACK_ALIGNMENT: u32 = 1 << 16;
/// The version written, and the only one read.
const VERSION: u32 = 1;

const VERSION_KEY: &str = "halfbyte.pack.version";
const NAMES_KEY: &str = "halfbyte.pack.names";
const TYPES_KEY: &str = "halfbyte.pack.types";
const SHAPES_KEY: &str = "halfbyte.pack.shapes";

/// What a packed tensor holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packed {
    pub(super) ty: PanelType,
    /// Depth, rows, count.
    shape: [usize; 3],
}

impl Packed {
    /// Checks extents, the contiguous one first; `None` for a shape that has no panels.
    pub(super) fn new(ty: PanelType, dims: &[usize]) -> Option<(Self, usize)> {
        let shape = match *dims {
            [depth, rows] => [depth, rows, 1],
            [depth, rows, count] => [depth, rows, count],
            _ => return None,
        };
        let [depth, rows, count] = shape;
        let whole = count == 1 || rows.is_multiple_of(PANEL_ROWS);
        let bytes = ty.matrix_bytes(rows.checked_mul(count)?, depth).ok().filter(|bytes| whole && *bytes > 0)?;
        Some((Self { ty, shape }, bytes))
    }

    /// Extents, the contiguous one first.
    pub(super) fn dims(&self) -> &[usize] {
        match &self.shape {
            [dims @ .., 1] => dims,
            dims => dims,
        }
    }
}

/// Whether there is a description.
pub(super) fn is_described(metadata: &Metadata) -> bool {
    metadata.value(VERSION_KEY).is_some()
}

/// Reads the description, if there is one, and notes in the tensors what they hold.
pub(super) fn describe(metadata: &Metadata, index: &NameIndex, tensors: &mut [Tensor]) -> Result<(), FormatError> {
    let Some(version) = metadata.usize(VERSION_KEY)? else {
        let stray = [NAMES_KEY, TYPES_KEY, SHAPES_KEY].iter().any(|key| metadata.value(key).is_some());
        return if stray { Err(FormatError::MissingMetadata { key: VERSION_KEY }) } else { Ok(()) };
    };
    if version != VERSION as usize {
        return Err(FormatError::PackVersion { found: version, known: VERSION });
    }
    let missing = |key| FormatError::MissingMetadata { key };
    let names = metadata.strings(NAMES_KEY)?.ok_or(missing(NAMES_KEY))?;
    let types = metadata.strings(TYPES_KEY)?.ok_or(missing(TYPES_KEY))?;
    // As it is stored: a copy in another width might be too large.
    let shapes = match metadata.value(SHAPES_KEY).ok_or(missing(SHAPES_KEY))? {
        Value::Array(Array::U64(shapes)) => shapes,
        other => {
            let (key, expected, found) = (SHAPES_KEY.to_owned(), "an array of u64", other.kind());
            return Err(FormatError::MetadataKind { key, expected, found });
        }
    };
    for (key, found, each) in [(TYPES_KEY, types.len(), 1), (SHAPES_KEY, shapes.len(), 3)] {
        let expected = names.len().saturating_mul(each);
        if found != expected {
            return Err(FormatError::PackLength { key, found, expected });
        }
    }
    for (number, ((name, ty), shape)) in names.iter().zip(types.iter()).zip(shapes.as_chunks::<3>().0).enumerate() {
        let tensor = || name.to_owned();
        let at = index.find(name, |at| tensors.get(at).map(|tensor| tensor.name.as_str()));
        let Some(found) = at.and_then(|at| tensors.get_mut(at)) else {
            return Err(FormatError::PackMissing { index: number, tensor: tensor() });
        };
        if found.packed.is_some() {
            return Err(FormatError::PackTwice { index: number, tensor: tensor() });
        }
        if found.ty != QuantType::I8 || found.dims.len() != 1 {
            let (ty, dims) = (found.ty, found.dims.clone());
            return Err(FormatError::PackStored { index: number, tensor: tensor(), ty, dims });
        }
        let ty = PanelType::from_name(ty).ok_or_else(|| FormatError::PackType {
            index: number,
            tensor: tensor(),
            found: ty.to_owned(),
        })?;
        // More than a `usize` is more than there are bytes.
        let dims = shape.map(|dim| usize::try_from(dim).unwrap_or(usize::MAX));
        let packed = Packed::new(ty, &dims).filter(|(_, bytes)| *bytes == found.data.len());
        let Some((packed, _)) = packed else {
            let (shape, bytes) = (*shape, found.data.len());
            return Err(FormatError::PackShape { index: number, tensor: tensor(), ty, shape, bytes });
        };
        found.packed = Some(Box::new(packed));
    }
    Ok(())
}

/// The description of tensors, as metadata.
pub(super) fn entries(tensors: &[(String, Packed)]) -> [(&'static str, Value); 4] {
    let names: Strings = tensors.iter().map(|(name, _)| name).collect();
    let types: Strings = tensors.iter().map(|(_, packed)| packed.ty.name()).collect();
    let shapes: Vec<u64> = tensors.iter().flat_map(|(_, packed)| packed.shape.map(|dim| dim as u64)).collect();
    [(VERSION_KEY, VERSION.into()), (NAMES_KEY, names.into()), (TYPES_KEY, types.into()), (SHAPES_KEY, shapes.into())]
}
