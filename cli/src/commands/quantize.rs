//! `halfbyte quantize`: a GGUF file with its weights in another number format.
//!
//! Every tensor is decoded to f32 and encoded again, unless it has the wanted format already. Metadata is kept, in
//! order, but for the two keys that describe the format. Memory does not depend on the size of the model.

use anyhow::{Context, bail};
use halfbyte_formats::{
    QuantType,
    gguf::{Gguf, GgufWriter, Metadata, Tensor, Value},
    quant::{self, Mix, ModelTraits},
};

use crate::{
    console,
    output::{self, OutputArgs, Rows, Written},
    source::Source,
};

const FILE_TYPE: &str = "general.file_type";
const QUANTIZATION_VERSION: &str = "general.quantization_version";
/// Layout of the block formats; ggml is at its second.
const VERSION: u32 = 2;

const EXAMPLES: &str = "Number formats, bytes for a billion weights:
  f32 4.0 GB, f16 and bf16 2.0, q8_0 1.06, q6_k 0.82, q5_0 0.69, q4_k_m and q4_mixed about 0.6, q4_0 0.56

Three are mixes, all with the output head in q6_k:
  q4_0      nothing else, as llama-quantize does it
  q4_k_m    q4_k, with half of the value and down projections in q6_k, as llama-quantize does it
  q4_mixed  q4_0, with more bits where the family needs them: attention keys, values and outputs in q6_k; all of
            attention in q6_k in Phi-MoE; down projections in q8_0 in Phi-4-mini, which repeats itself otherwise
Norms and biases stay as they are, routers are f32. Rows that are no whole blocks of a format take a finer one.

Examples:
  halfbyte quantize phi-4-mini-f16.gguf phi-4-mini-q4.gguf
  halfbyte quantize model-f16.gguf model-q4_0.gguf q4_0
  halfbyte quantize mtp-model-f16.gguf mtp-model-q4_0.gguf q4_0";

/// Arguments of `quantize`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The model to read: a GGUF file in any number format, or the name of a bundled model
    #[arg(value_name = "IN")]
    input: Source,
    #[command(flatten)]
    output: OutputArgs,
    /// Number format
    #[arg(value_name = "TYPE", default_value = "q4_mixed", value_parser = output::mix(), ignore_case = true)]
    mix: Mix,
}

/// Runs `quantize`.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let Args { input, output, mix } = args;
    if let Source::File(path) = &input {
        output.check_not(path)?;
    }
    output.check(None)?;
    let file = input.gguf()?;
    if file.is_packed() {
        bail!("{input} is packed: quantize the file it was made from");
    }

    let mut writer = GgufWriter::new();
    for (key, value) in metadata(file.metadata(), mix) {
        writer.put(&key, value)?;
    }
    let rule = Rule::new(&file, mix)?;
    let (mut total, mut again) = (0, 0);
    for tensor in file.tensors() {
        let ty = rule.ty(tensor);
        again += usize::from(tensor.ty != ty && is_quantised(tensor));
        writer.declare(&tensor.name, &tensor.dims, ty)?;
        total += Rows::new(&tensor.dims, ty)?.bytes();
    }
    if again > 0 {
        console::note(&format!(
            "note: {again} matrices of {input} are quantised already, and what they lost stays lost: \
             quantising the original is better"
        ));
    }
    let (out, _) = output.begin(None)?;
    let mut target = writer.create(&out)?;
    let mut written = Written::new(total);
    for tensor in file.tensors() {
        let to = rule.ty(tensor);
        let (old, new) = (Rows::new(&tensor.dims, tensor.ty)?, Rows::new(&tensor.dims, to)?);
        let data: &[u8] = &tensor.data;
        output::write_rows(&mut target, &tensor.name, new, &mut written, |row, bytes| {
            let source = &data[row * old.row_bytes..][..old.row_bytes];
            if tensor.ty == to {
                bytes.copy_from_slice(source);
                return Ok(());
            }
            let mut values = vec![0.0; tensor.dims.first().copied().unwrap_or(1)];
            quant::decode(tensor.ty, source, &mut values)?;
            quant::encode(to, &values, bytes)
        })?;
    }
    target.finish()?;
    written.finish(&out)?;
    Ok(())
}

/// Whether numbers of a matrix have been rounded to fewer bits than those a model is trained with.
fn is_quantised(tensor: &Tensor) -> bool {
    tensor.dims.len() > 1 && !matches!(tensor.ty, QuantType::F32 | QuantType::F16 | QuantType::BF16)
}

/// Everything `found` says, with what it says about number formats replaced.
fn metadata(found: &Metadata, mix: Mix) -> Vec<(String, Value)> {
    // All shards of a split file become one.
    let kept = found.iter().filter(|(key, _)| !key.starts_with("split."));
    let mut entries: Vec<_> = kept.map(|(key, value)| (key.to_owned(), value.clone())).collect();
    for (key, value) in [(FILE_TYPE, mix.file_type()), (QUANTIZATION_VERSION, Some(VERSION))] {
        let Some(value) = value else { continue };
        match entries.iter_mut().find(|(found, _)| found == key) {
            Some((_, found)) => *found = value.into(),
            None => entries.push((key.to_owned(), value.into())),
        }
    }
    entries
}

/// Which format each tensor gets.
struct Rule<'a> {
    mix: Mix,
    model: ModelTraits<'a>,
}

impl<'a> Rule<'a> {
    fn new(file: &'a Gguf, mix: Mix) -> anyhow::Result<Self> {
        let metadata = file.metadata();
        let architecture = metadata.str("general.architecture")?.context("general.architecture is missing")?;
        let count = |name: &str| metadata.usize(&format!("{architecture}.{name}"));
        // Multi-token-prediction layers are counted as blocks, but are no part of the trunk that a mix divides up.
        let blocks = count("block_count")?.unwrap_or(0);
        let layers = blocks.saturating_sub(count("nextn_predict_layers")?.unwrap_or(0));
        let tied = file.tensor("output.weight").is_none();
        Ok(Self { mix, model: ModelTraits { architecture, layers, tied } })
    }

    fn ty(&self, tensor: &Tensor) -> QuantType {
        match tensor.dims.len() {
            // Norms and biases stay what they are.
            0 | 1 => tensor.ty,
            _ => self.mix.tensor_type(&tensor.name, &tensor.dims, self.model),
        }
    }
}
