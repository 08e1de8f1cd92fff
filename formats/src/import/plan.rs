//! What a GGUF file will hold, and the loop that writes it.

use std::path::Path;

use super::Progress;
use super::weights::Stored;
use crate::gguf::{GgufFile, GgufWriter, Value};
use crate::quant::{self, Mix};
use crate::{FormatError, QuantType};

/// Weights decoded at a time: 4 MiB of `f32`, small beside any model and large beside a row.
const CHUNK: usize = 1 << 20;

/// A GGUF file to be: metadata and tensors in order.
#[derive(Debug)]
pub(super) struct Plan {
    metadata: Vec<(String, Value)>,
    tensors: Vec<Planned>,
    /// Layers that a mix counts.
    layers: usize,
    /// Whether the token embedding is also the head.
    tied: bool,
}

/// A tensor's way from checkpoint to file.
#[derive(Debug)]
pub(super) struct Planned {
    /// Its name in the file.
    pub(super) name: String,
    pub(super) stored: Stored,
    pub(super) columns: Columns,
}

/// What becomes of the columns of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Columns {
    /// They stay.
    Keep,
    /// Their first and second half change places.
    SwapHalves,
}

impl Plan {
    /// An empty file for a model of `layers` layers.
    pub(super) fn new(layers: usize, tied: bool) -> Self {
        Self { metadata: Vec::new(), tensors: Vec::new(), layers, tied }
    }

    /// Adds a metadata entry.
    pub(super) fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.metadata.push((key.to_owned(), value.into()));
    }

    /// Adds a tensor.
    pub(super) fn push(&mut self, planned: Planned) {
        self.tensors.push(planned);
    }

    /// Writes the file, see [`Checkpoint::write`](super::Checkpoint::write).
    pub(super) fn write(
        &self,
        path: &Path,
        mix: Mix,
        mut progress: impl FnMut(Progress<'_>),
    ) -> Result<(), FormatError> {
        let mut writer = GgufWriter::new();
        for (key, value) in &self.metadata {
            writer.put(key, value.clone())?;
        }
        if let Some(number) = mix.file_type() {
            writer.put("general.file_type", number)?;
        }
        writer.put("general.quantization_version", 2u32)?;
        let types = self.tensors.iter().map(|tensor| {
            let dims: Vec<_> = tensor.stored.shape.iter().rev().copied().collect();
            let ty = mix.tensor_type(&tensor.name, &dims, self.layers, self.tied);
            writer.declare(&tensor.name, &dims, ty).map(|()| ty)
        });
        let types = types.collect::<Result<Vec<_>, _>>()?;
        let mut file = writer.create(path)?;
        let total = self.tensors.len();
        for ((tensor, ty), done) in self.tensors.iter().zip(types).zip(1..) {
            let named = |source| FormatError::InTensor { tensor: tensor.name.clone(), source: Box::new(source) };
            tensor.write(ty, &mut file).map_err(named)?;
            progress(Progress { tensor: &tensor.name, done, total });
        }
        file.finish()
    }
}

impl Planned {
    fn write(&self, ty: QuantType, file: &mut GgufFile) -> Result<(), FormatError> {
        let found = || format!("{:?}", self.stored.dtype);
        let source = self.stored.quant_type();
        let source = source.ok_or_else(|| FormatError::TensorElement { tensor: self.name.clone(), found: found() })?;
        let columns = self.stored.shape.last().copied().unwrap_or(1).max(1);
        let rows = (CHUNK / columns).max(1);
        let mut values = Vec::new();
        let mut encoded = Vec::new();
        // Shape and length agree (the header was validated), so only the last chunk is short, by whole rows.
        for part in self.stored.data.chunks(source.row_bytes(rows * columns)?) {
            values.resize(part.len() / source.block_bytes(), 0.0);
            quant::decode(source, part, &mut values)?;
            if self.columns == Columns::SwapHalves {
                values.chunks_exact_mut(columns).for_each(|row| row.rotate_left(columns / 2));
            }
            encoded.resize(ty.row_bytes(values.len())?, 0);
            quant::encode(ty, &values, &mut encoded)?;
            file.write_part(&self.name, &encoded)?;
        }
        Ok(())
    }
}
