//! Packing: a model file written again with its matrices in panels of 16 rows, which kernels read as they are.
//!
//! The tensors of the packed file have the names and the values they had; a matrix that has no panels stays as it is.
//! Which ones have is decided here, where it is known how a graph cuts stacked tensors ([`weights`](crate::weights)): a
//! cut must fall between two panels. Layout and description are in `docs/packing.md`.

use std::io::Write;

use halfbyte_formats::{
    gguf::{Gguf, GgufWriter, PACK_ALIGNMENT, Tensor},
    quant::{PANEL_ROWS, PanelType},
};
use halfbyte_kernels::pack_rows;

use crate::{ModelConfig, RuntimeError};

/// The metadata key that sets the alignment of tensor data.
const ALIGNMENT_KEY: &str = "general.alignment";

/// What becomes of each tensor of a model file when it is packed.
///
/// ```no_run
/// # fn main() -> Result<(), halfbyte::RuntimeError> {
/// use halfbyte::{Gguf, PackPlan};
///
/// let file = Gguf::open("model.gguf")?;
/// let packed: Vec<u8> = PackPlan::new(&file)?.write_to(Vec::new())?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PackPlan<'a> {
    file: &'a Gguf,
    steps: Vec<PackStep<'a>>,
}

/// One tensor of a [`PackPlan`].
#[derive(Clone, Copy, Debug)]
pub struct PackStep<'a> {
    tensor: &'a Tensor,
    /// `None` if it is copied.
    panels: Option<PanelType>,
    /// How many pieces of equal size become of it.
    count: usize,
    /// Bytes of each.
    len_bytes: usize,
}

impl<'a> PackPlan<'a> {
    /// The plan for a model, or for the file of a multi-token-prediction layer.
    ///
    /// # Errors
    /// [`RuntimeError::AlreadyPacked`]; those of [`ModelConfig::from_metadata`] if the file is not of a model.
    pub fn new(file: &'a Gguf) -> Result<Self, RuntimeError> {
        if file.is_packed() {
            return Err(RuntimeError::AlreadyPacked);
        }
        let config = ModelConfig::from_metadata(file.metadata())?;
        let steps = file.tensors().iter().map(|tensor| PackStep::new(file, &config, tensor));
        Ok(Self { file, steps: steps.collect::<Result<_, _>>()? })
    }

    /// The tensors, in file order.
    #[must_use]
    pub fn steps(&self) -> &[PackStep<'a>] {
        &self.steps
    }

    /// The head of the packed file: all metadata, aligned tensors, and the description of those that are packed. What
    /// is then to be written are the pieces of each step in turn.
    ///
    /// # Errors
    /// [`RuntimeError::Format`] if a rule of the format is broken, by the metadata of the original for instance.
    pub fn head(&self) -> Result<GgufWriter, RuntimeError> {
        let mut writer = GgufWriter::new();
        // All shards of a split file become one.
        let kept = |key: &str| key != ALIGNMENT_KEY && !key.starts_with("split.");
        for (key, value) in self.file.metadata().iter().filter(|(key, _)| kept(key)) {
            writer.put(key, value.clone())?;
        }
        writer.put(ALIGNMENT_KEY, PACK_ALIGNMENT)?;
        for PackStep { tensor, panels, .. } in &self.steps {
            match panels {
                Some(ty) => writer.declare_packed(&tensor.name, &tensor.dims, *ty)?,
                None => writer.declare(&tensor.name, &tensor.dims, tensor.ty)?,
            }
        }
        Ok(writer)
    }

    /// Writes the packed file into any `sink`, piece by piece.
    ///
    /// # Errors
    /// As [`head`](Self::head), and what the sink reports.
    pub fn write_to<W: Write>(&self, sink: W) -> Result<W, RuntimeError> {
        let mut stream = self.head()?.write_to(sink)?;
        let mut piece = Vec::new();
        for step in &self.steps {
            piece.resize(step.len_bytes, 0);
            for number in 0..step.count {
                step.fill(number, &mut piece)?;
                stream.write_part(step.name(), &piece)?;
            }
        }
        Ok(stream.finish()?)
    }
}

impl<'a> PackStep<'a> {
    fn new(file: &Gguf, config: &ModelConfig, tensor: &'a Tensor) -> Result<Self, RuntimeError> {
        let depth = tensor.dims.first().copied().unwrap_or(1);
        let rows: usize = tensor.dims.iter().skip(1).product();
        let panels = panels(file, config, tensor);
        let (count, len_bytes) = match panels {
            Some(ty) => (rows.div_ceil(PANEL_ROWS), ty.matrix_bytes(1, depth)?),
            None => (rows, tensor.ty.row_bytes(depth)?),
        };
        Ok(Self { tensor, panels, count, len_bytes })
    }

    /// The tensor's name.
    #[must_use]
    pub fn name(&self) -> &'a str {
        &self.tensor.name
    }

    /// What it is packed as; `None` if it is copied.
    #[must_use]
    pub fn panels(&self) -> Option<PanelType> {
        self.panels
    }

    /// How many pieces its data is written in: panels, or rows.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes of each piece.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Makes piece `number < count()` of `out.len() == len_bytes()` bytes.
    ///
    /// # Errors
    /// [`RuntimeError::Kernel`] or [`RuntimeError::Format`] for another length or number.
    pub fn fill(&self, number: usize, out: &mut [u8]) -> Result<(), RuntimeError> {
        let Self { tensor, panels, len_bytes, .. } = *self;
        let data = &tensor.data;
        if panels.is_none() {
            let start = number.saturating_mul(len_bytes);
            let piece = data.slice(start..start.saturating_add(out.len()))?;
            out.copy_from_slice(&piece);
            return Ok(());
        }
        let depth = tensor.dims.first().copied().unwrap_or(1);
        let rows = tensor.ty.row_bytes(depth)?.saturating_mul(PANEL_ROWS);
        let start = number.saturating_mul(rows);
        let rows = data.slice(start..start.saturating_add(rows).min(data.len()))?;
        Ok(pack_rows(tensor.ty, depth, &rows, out)?)
    }
}

/// The format of the panels that a tensor becomes, if it does.
fn panels(file: &Gguf, config: &ModelConfig, tensor: &Tensor) -> Option<PanelType> {
    let ty = PanelType::of(tensor.ty)?;
    let (depth, rows, count) = match *tensor.dims {
        [depth, rows] => (depth, rows, 1),
        [depth, rows, count] => (depth, rows, count),
        _ => return None,
    };
    // Of an embedding that is not the head too, single rows are read, which lie together as they are.
    let looked_up = tensor.name == "token_embd.weight" && file.tensor("output.weight").is_some();
    let router = tensor.name.ends_with(".ffn_gate_inp.weight");
    let fits = depth.is_multiple_of(ty.unit_len()) && (count == 1 || rows.is_multiple_of(PANEL_ROWS));
    let between = cuts(file, config, &tensor.name, rows).iter().all(|row| row.is_multiple_of(PANEL_ROWS));
    (fits && between && !looked_up && !router).then_some(ty)
}

/// The rows at which a graph may cut a tensor of `rows` rows.
fn cuts(file: &Gguf, config: &ModelConfig, name: &str, rows: usize) -> Vec<usize> {
    let Some((layer, part)) = name.rsplit_once(".weight").and_then(|(name, _)| name.rsplit_once('.')) else {
        return Vec::new();
    };
    match part {
        "attn_qkv" => {
            // Not the head size of the metadata: some files have another one.
            let head = rows / (config.heads + 2 * config.kv_heads);
            vec![config.heads * head, (config.heads + config.kv_heads) * head]
        }
        "ffn_gate_up_exps" => vec![rows / 2],
        "ffn_up" if file.tensor(&format!("{layer}.ffn_gate.weight")).is_none() => vec![rows / 2],
        _ => Vec::new(),
    }
}
