//! What a GGUF file will hold, and the loop that writes it.

use std::path::Path;

use super::Progress;
use super::weights::{Stored, Weights};
use crate::gguf::{GgufFile, GgufWriter, Value};
use crate::quant::{self, Mix, ModelTraits};
use crate::{FormatError, QuantType};

/// Weights decoded at a time: 4 MiB of `f32`, small beside any model and large beside a row.
const CHUNK: usize = 1 << 20;

/// A GGUF file to be: metadata and tensors in order.
#[derive(Debug)]
pub(super) struct Plan {
    architecture: &'static str,
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
    name: String,
    /// Its extents, the contiguous one **last**.
    shape: Vec<usize>,
    /// What it is made of: one tensor, or several of one shape, one after another.
    parts: Vec<Stored>,
    columns: Columns,
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
    /// A file without tensors for a model of `layers` layers.
    pub(super) fn new(architecture: &'static str, layers: usize, tied: bool) -> Self {
        let mut plan = Self { architecture, metadata: Vec::new(), tensors: Vec::new(), layers, tied };
        plan.put("general.architecture", architecture);
        plan.put("general.type", "model");
        plan
    }

    /// `general.architecture`.
    pub(super) fn architecture(&self) -> &'static str {
        self.architecture
    }

    /// Adds a metadata entry.
    pub(super) fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.metadata.push((key.to_owned(), value.into()));
    }

    /// Adds a hyperparameter: the architecture's name and a dot go before `name`.
    pub(super) fn put_own(&mut self, name: &str, value: impl Into<Value>) {
        self.put(&format!("{}.{name}", self.architecture), value);
    }

    /// Adds a hyperparameter that is a count, far below 2^32: every field has a bound.
    pub(super) fn put_count(&mut self, name: &str, count: usize) {
        self.put_own(name, u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// Adds a tensor.
    pub(super) fn add(&mut self, planned: Planned) {
        self.tensors.push(planned);
    }

    /// Adds the checkpoint's tensor `source`, of extents `shape`, as it is under the name `name`.
    pub(super) fn take(
        &mut self,
        weights: &mut Weights,
        name: &str,
        source: &str,
        shape: &[usize],
    ) -> Result<(), FormatError> {
        self.add(Planned::new(name.to_owned(), weights.take(source, shape)?));
        Ok(())
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
        let model = ModelTraits { architecture: self.architecture, layers: self.layers, tied: self.tied };
        let types = self.tensors.iter().map(|tensor| {
            let dims: Vec<_> = tensor.shape.iter().rev().copied().collect();
            let ty = mix.tensor_type(&tensor.name, &dims, model);
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
    /// A tensor as it is stored.
    pub(super) fn new(name: String, stored: Stored) -> Self {
        Self { name, shape: stored.shape.clone(), parts: vec![stored], columns: Columns::Keep }
    }

    /// Tensors of one shape, one after another: the number of them becomes the first extent.
    pub(super) fn stacked(name: String, parts: Vec<Stored>) -> Self {
        let extents = parts.first().map_or(&[][..], |part| &part.shape);
        let shape = [&[parts.len()], extents].concat();
        Self { name, shape, parts, columns: Columns::Keep }
    }

    /// The same, its columns in another order.
    pub(super) fn with_columns(self, columns: Columns) -> Self {
        Self { columns, ..self }
    }

    fn write(&self, ty: QuantType, file: &mut GgufFile) -> Result<(), FormatError> {
        let columns = self.shape.last().copied().unwrap_or(1).max(1);
        let rows = (CHUNK / columns).max(1);
        let mut values = Vec::new();
        let mut encoded = Vec::new();
        for stored in &self.parts {
            let found = || format!("{:?}", stored.dtype);
            let source = stored.quant_type();
            let source =
                source.ok_or_else(|| FormatError::TensorElement { tensor: self.name.clone(), found: found() })?;
            // Shape and length agree (the header was validated), so only the last chunk is short, by whole rows.
            for part in stored.data.chunks(source.row_bytes(rows * columns)?) {
                values.resize(part.len() / source.block_bytes(), 0.0);
                quant::decode(source, part, &mut values)?;
                if self.columns == Columns::SwapHalves {
                    values.chunks_exact_mut(columns).for_each(|row| row.rotate_left(columns / 2));
                }
                encoded.resize(ty.row_bytes(values.len())?, 0);
                quant::encode(ty, &values, &mut encoded)?;
                file.write_part(&self.name, &encoded)?;
            }
        }
        Ok(())
    }
}
