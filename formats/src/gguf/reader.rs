//! Reading.

use std::path::Path;

use super::Metadata;
use crate::{Bytes, FormatError, QuantType};

/// One tensor of a file: a checked shape and a view of its data.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Name, as stored.
    pub name: String,
    /// Extents, the contiguous one first.
    pub dims: Vec<usize>,
    /// Storage format.
    pub ty: QuantType,
    /// The stored bytes, exactly as long as the shape demands.
    pub data: Bytes,
}

/// An open GGUF file (or all shards of a split one), validated.
#[derive(Clone, Debug)]
pub struct Gguf {
    metadata: Metadata,
    tensors: Vec<Tensor>,
}

impl Gguf {
    /// Maps the file at `path`, following its other shards if it is split.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, FormatError> {
        let _ = path;
        todo!()
    }
    /// Reads a whole file from memory.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Result<Self, FormatError> {
        let _ = bytes.into();
        todo!()
    }
    /// The metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }
    /// All tensors, in file order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }
    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|t| t.name == name)
    }
}
