//! From named tensors to checked weights: a graph asks by name and shape, and what it never asked for is an error.

use std::collections::HashSet;

use halfbyte_formats::{
    Bytes, QuantType,
    gguf::{Gguf, Tensor},
    quant::{self, PANEL_ROWS},
};
use halfbyte_kernels::{KernelError, Kernels, PackedMatrix};

use crate::{
    RuntimeError,
    memory::{push, with_room},
};

/// Names listed in [`RuntimeError::UnexpectedTensors`].
const LISTED: usize = 8;

/// The tensors of one file while a graph takes what it needs.
pub(crate) struct Weights<'a> {
    file: &'a Gguf,
    kernels: Kernels,
    taken: HashSet<&'a str>,
}

impl<'a> Weights<'a> {
    /// # Errors
    /// [`RuntimeError::OutOfMemory`].
    pub(crate) fn new(file: &'a Gguf, kernels: Kernels) -> Result<Self, RuntimeError> {
        let (mut taken, tensors) = (HashSet::new(), file.tensors().len());
        let bytes = tensors.saturating_mul(size_of::<&str>());
        taken.try_reserve(tensors).map_err(|_| RuntimeError::OutOfMemory { what: "names of tensors", bytes })?;
        Ok(Self { file, kernels, taken })
    }

    fn optional(&mut self, name: &str) -> Option<&'a Tensor> {
        let tensor = self.file.tensor(name)?;
        self.taken.insert(&tensor.name);
        Some(tensor)
    }

    fn tensor(&mut self, name: &str, dims: &[usize]) -> Result<&'a Tensor, RuntimeError> {
        let tensor = self.optional(name).ok_or_else(|| RuntimeError::MissingTensor { name: name.to_owned() })?;
        // GGUF drops trailing extents of 1.
        let shape = tensor.shape();
        let found = shape.iter().copied().chain(std::iter::repeat(1));
        let expected = dims.iter().copied().chain(std::iter::repeat(1));
        if found.zip(expected).take(shape.len().max(dims.len())).all(|(a, b)| a == b) {
            return Ok(tensor);
        }
        Err(RuntimeError::TensorShape { name: name.to_owned(), expected: dims.to_vec(), found: shape.to_vec() })
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.file.tensor(name).is_some()
    }

    /// Rows of the matrix called `name`, if it is there.
    pub(crate) fn rows(&self, name: &str) -> Option<usize> {
        self.file.tensor(name)?.shape().get(1).copied()
    }

    /// Leaves `name` out of [`Weights::finish`]'s complaint.
    pub(crate) fn ignore(&mut self, name: &str) {
        self.optional(name);
    }

    /// A vector of `len` elements, decoded: norms and biases are small and read in every step.
    pub(crate) fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, RuntimeError> {
        let tensor = self.tensor(name, &[len])?;
        if !matches!(tensor.ty, QuantType::F32 | QuantType::F16 | QuantType::BF16) {
            return Err(RuntimeError::TensorType {
                name: name.to_owned(),
                expected: "f32, f16 or bf16",
                found: tensor.ty,
            });
        }
        let mut out = with_room("a vector", len)?;
        out.resize(len, 0.0);
        quant::decode(tensor.ty, &tensor.data, &mut out)?;
        Ok(out)
    }

    /// A linear map: `(rows, depth)`, stored in the file as `{depth, rows}`.
    pub(crate) fn matrix(&mut self, name: &str, rows: usize, depth: usize) -> Result<PackedMatrix, RuntimeError> {
        let tensor = self.tensor(name, &[depth, rows])?;
        self.pack(name, tensor, rows, depth, tensor.data.clone())
    }

    /// Linear maps over the same input, as tensors of their own or stacked in one called `fused`.
    pub(crate) fn stacked<const N: usize>(
        &mut self,
        fused: &str,
        names: [&str; N],
        rows: [usize; N],
        depth: usize,
    ) -> Result<[PackedMatrix; N], RuntimeError> {
        let parts = if self.contains(fused) {
            let tensor = self.tensor(fused, &[depth, rows.iter().sum()])?;
            self.runs(fused, tensor, rows.into_iter(), depth)?
        } else {
            names.iter().zip(rows).map(|(name, part)| self.matrix(name, part, depth)).collect::<Result<_, _>>()?
        };
        parts.try_into().map_err(|_| RuntimeError::MissingTensor { name: fused.to_owned() })
    }

    /// The maps of `count` experts: `N` of them side by side in a tensor `{depth, rows of all, count}` called `stack`
    /// or, for `N` = 1 in old files, each expert's in a tensor of its own, of which `single` gives the name.
    pub(crate) fn experts<const N: usize>(
        &mut self,
        stack: &str,
        single: impl Fn(usize) -> String,
        count: usize,
        rows: [usize; N],
        depth: usize,
    ) -> Result<Vec<[PackedMatrix; N]>, RuntimeError> {
        let all = if N == 1 && !self.contains(stack) && self.contains(&single(0)) {
            let mut all = Vec::new();
            for expert in 0..count {
                push("experts", &mut all, self.matrix(&single(expert), rows[0], depth)?)?;
            }
            all
        } else {
            let tensor = self.tensor(stack, &[depth, rows.iter().sum(), count])?;
            self.runs(stack, tensor, rows.into_iter().cycle().take(N * count), depth)?
        };
        if let Some(one) = all.first() {
            one.storage().read_sparsely();
        }
        let mut each = with_room("experts", count)?;
        each.extend_from_slice(all.as_chunks().0);
        Ok(each)
    }

    /// Cuts a tensor into matrices of so many rows each; a packed one between panels.
    fn runs(
        &self,
        name: &str,
        tensor: &Tensor,
        rows: impl Iterator<Item = usize>,
        depth: usize,
    ) -> Result<Vec<PackedMatrix>, RuntimeError> {
        // Rows that lie together, and their bytes.
        let (together, bytes) = match tensor.panels() {
            Some(ty) => (PANEL_ROWS, ty.matrix_bytes(1, depth)?),
            None => (1, tensor.ty.row_bytes(depth)?),
        };
        let (mut matrices, mut end) = (Vec::new(), 0);
        for rows in rows {
            let start = end;
            end += rows;
            if !start.is_multiple_of(together) {
                return Err(RuntimeError::PackedCut { name: name.to_owned(), row: start });
            }
            let bytes = start / together * bytes..end.div_ceil(together) * bytes;
            let matrix = self.pack(name, tensor, rows, depth, tensor.data.slice(bytes)?)?;
            push("matrices of a tensor", &mut matrices, matrix)?;
        }
        Ok(matrices)
    }

    /// Biases over the same input, as vectors of their own or stacked in one called `fused`.
    pub(crate) fn stacked_vectors<const N: usize>(
        &mut self,
        fused: &str,
        names: [&str; N],
        rows: [usize; N],
    ) -> Result<[Vec<f32>; N], RuntimeError> {
        let mut parts = Vec::with_capacity(N);
        if self.contains(fused) {
            let all = self.vector(fused, rows.iter().sum())?;
            let mut start = 0;
            for len in rows {
                let mut part = with_room("a vector", len)?;
                part.extend_from_slice(&all[start..start + len]);
                parts.push(part);
                start += len;
            }
        } else {
            for (name, part) in names.iter().zip(rows) {
                parts.push(self.vector(name, part)?);
            }
        }
        parts.try_into().map_err(|_| RuntimeError::MissingTensor { name: fused.to_owned() })
    }

    fn pack(
        &self,
        name: &str,
        tensor: &Tensor,
        rows: usize,
        depth: usize,
        data: Bytes,
    ) -> Result<PackedMatrix, RuntimeError> {
        if let Some(ty) = tensor.panels() {
            return Ok(self.kernels.packed(ty, rows, depth, data)?);
        }
        self.kernels.pack(tensor.ty, rows, depth, data).map_err(|error| match error {
            KernelError::UnsupportedType { ty } => RuntimeError::TensorType {
                name: name.to_owned(),
                expected: "a format this machine has a kernel for",
                found: ty,
            },
            other => other.into(),
        })
    }

    /// Ends the loading of a file.
    ///
    /// # Errors
    /// [`RuntimeError::UnexpectedTensors`] if the file holds tensors that nothing asked for.
    pub(crate) fn finish(self) -> Result<(), RuntimeError> {
        let unused: Vec<&str> = self
            .file
            .tensors()
            .iter()
            .map(|tensor| tensor.name.as_str())
            .filter(|name| !self.taken.contains(name))
            .collect();
        if unused.is_empty() {
            return Ok(());
        }
        let mut names = unused.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
        if unused.len() > LISTED {
            names.push_str(", …");
        }
        Err(RuntimeError::UnexpectedTensors { count: unused.len(), names })
    }
}
