//! The tensors of a checkpoint: all shards mapped, one table from name to shape and bytes.
//!
//! Headers are read and validated by the `safetensors` crate. An architecture takes the tensors it knows out of the
//! table; what is left in the end has no place in the model and is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use super::document::{Document, excerpt};
use crate::{Bytes, FormatError, QuantType, gguf::Load, map};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A tensor as stored: rows one after another, the last extent contiguous.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// Extents, the contiguous one **last**.
    pub(super) shape: Vec<usize>,
    pub(super) dtype: Dtype,
    pub(super) data: Bytes,
}

/// All tensors nobody has taken yet.
#[derive(Debug)]
pub(super) struct Weights {
    tensors: BTreeMap<String, Stored>,
}

impl Weights {
    /// Maps the weights of the checkpoint in `dir`.
    pub(super) fn open(dir: &Path) -> Result<Self, FormatError> {
        let mut weights = Self { tensors: BTreeMap::new() };
        let Some(index) = Document::open_if_present(&dir.join(INDEX))? else {
            weights.add_shard(&dir.join(SINGLE))?;
            return Ok(weights);
        };
        let places = index.map("weight_map")?;
        let mut shards = BTreeSet::new();
        for (tensor, shard) in places {
            // A path with separators could lead out of the directory.
            let name = shard.as_str().filter(|name| !name.contains(['/', '\\']) && name.ends_with(".safetensors"));
            let field = || format!("weight_map.{tensor}");
            let wrong = || index.wrong_at(field(), excerpt(shard), "the name of a .safetensors file beside it");
            shards.insert(name.ok_or_else(wrong)?);
        }
        for shard in shards {
            weights.add_shard(&dir.join(shard))?;
        }
        match places.keys().find(|tensor| !weights.contains(tensor)) {
            Some(tensor) => Err(FormatError::MissingTensor { tensor: tensor.clone() }),
            None => Ok(weights),
        }
    }

    fn add_shard(&mut self, path: &Path) -> Result<(), FormatError> {
        let bytes = map::load(path, Load::Map)?;
        let malformed = |source: safetensors::SafeTensorError| FormatError::Safetensors {
            path: path.to_owned(),
            source: Box::new(source),
        };
        let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(malformed)?;
        // The data begins after the eight bytes of the header's length and the header; both lie inside the file.
        let data = bytes.slice(8 + header..bytes.len())?;
        for (tensor, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let stored = Stored { shape: info.shape.clone(), dtype: info.dtype, data: data.slice(start..end)? };
            if self.tensors.insert(tensor.clone(), stored).is_some() {
                return Err(FormatError::DuplicateTensor { tensor });
            }
        }
        Ok(())
    }

    /// Whether `tensor` is there and not taken.
    pub(super) fn contains(&self, tensor: &str) -> bool {
        self.tensors.contains_key(tensor)
    }

    /// Hands out `tensor`, which must have the extents `shape`, the contiguous one last, and a float type.
    pub(super) fn take(&mut self, tensor: &str, shape: &[usize]) -> Result<Stored, FormatError> {
        let missing = || FormatError::MissingTensor { tensor: tensor.to_owned() };
        let stored = self.tensors.remove(tensor).ok_or_else(missing)?;
        if stored.shape != shape {
            let (tensor, expected) = (tensor.to_owned(), shape.to_vec());
            return Err(FormatError::TensorShape { tensor, expected, found: stored.shape });
        }
        if stored.quant_type().is_none() {
            let found = format!("{:?}", stored.dtype);
            return Err(FormatError::TensorElement { tensor: tensor.to_owned(), found });
        }
        Ok(stored)
    }

    /// Drops the tensors that `unneeded` picks.
    pub(super) fn discard(&mut self, unneeded: impl Fn(&str) -> bool) {
        self.tensors.retain(|tensor, _| !unneeded(tensor));
    }

    /// Checks that every tensor was taken.
    pub(super) fn finish(self) -> Result<(), FormatError> {
        let count = self.tensors.len();
        match self.tensors.into_keys().next() {
            Some(first) => Err(FormatError::UnusedTensors { first, count }),
            None => Ok(()),
        }
    }
}

impl Stored {
    /// A vector that is no tensor in the checkpoint.
    pub(super) fn vector(values: &[f32]) -> Self {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { shape: vec![values.len()], dtype: Dtype::F32, data: data.into() }
    }

    /// The element type, `None` if it is not one of the floats checkpoints use.
    pub(super) fn quant_type(&self) -> Option<QuantType> {
        match self.dtype {
            Dtype::F32 => Some(QuantType::F32),
            Dtype::F16 => Some(QuantType::F16),
            Dtype::BF16 => Some(QuantType::BF16),
            _ => None,
        }
    }
}
