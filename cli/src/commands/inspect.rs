//! `halfbyte inspect`: what is in a model file, without loading the model.
//!
//! Names and texts come from the file, which may be anybody's: control characters are printed escaped.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Write as _},
};

use halfbyte_formats::{
    QuantType,
    gguf::{Array, Gguf, Tensor, Value},
};
use serde_json::json;

use crate::args::ModelArg;

/// Elements of an array that are shown.
const SHOWN: usize = 4;
/// Characters of a text that are shown, except as JSON.
const SHOWN_CHARS: usize = 72;

const EXAMPLES: &str = "Examples:
  halfbyte inspect model.gguf
  halfbyte inspect tiny-mimo --json | jq .totals

Shapes are in file order: the extent that is contiguous in memory comes first.
Only the first elements of arrays are shown. Tensors of a packed file have the shape
of the matrix they hold, and \"(packed)\" after the type.

--json prints one object:
  {\"version\", \"metadata\": {key: value}, \"tensors\": [{\"name\", \"shape\", \"type\",
   \"bytes\"}], \"totals\": {type: {\"tensors\", \"parameters\", \"bytes\"}}, \"parameters\",
   \"bytes\", \"bits_per_weight\", \"file_type\": {\"id\", \"name\"}}
where an array is {\"kind\", \"len\", \"first\": […]}.";

/// Which file.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArg,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let file = args.model.model.gguf()?;
    let text = if args.json { format!("{}\n", as_json(&file)) } else { as_text(&file)? };
    Ok(io::stdout().write_all(text.as_bytes())?)
}

/// Tensors of one type together.
#[derive(Default)]
struct Total {
    tensors: usize,
    parameters: usize,
    bytes: usize,
}

impl Total {
    fn add(&mut self, tensor: &Tensor) {
        self.tensors += 1;
        self.parameters += parameters(tensor);
        self.bytes += tensor.data.len();
    }

    fn bits_per_weight(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.parameters.max(1) as f64
    }
}

/// The reader has checked that this product exists.
fn parameters(tensor: &Tensor) -> usize {
    tensor.shape().iter().product()
}

fn totals(file: &Gguf) -> (BTreeMap<String, Total>, Total) {
    let (mut by_type, mut all) = (BTreeMap::<_, Total>::new(), Total::default());
    for tensor in file.tensors() {
        by_type.entry(type_name(tensor)).or_default().add(tensor);
        all.add(tensor);
    }
    (by_type, all)
}

/// How a tensor is stored.
pub(super) fn type_name(tensor: &Tensor) -> String {
    tensor.panels().map_or_else(|| tensor.ty.name().to_owned(), |ty| format!("{} (packed)", ty.name()))
}

/// The name behind `general.file_type`: `enum llama_ftype` in llama.cpp's `include/llama.h`.
fn file_type(file: &Gguf) -> Option<(usize, &'static str)> {
    let id = file.metadata().usize("general.file_type").ok().flatten()?;
    let name = match id {
        0 => QuantType::F32.name(),
        1 => QuantType::F16.name(),
        2 => QuantType::Q4_0.name(),
        3 => QuantType::Q4_1.name(),
        7 => QuantType::Q8_0.name(),
        8 => QuantType::Q5_0.name(),
        9 => QuantType::Q5_1.name(),
        10 => QuantType::Q2_K.name(),
        11 => "q3_k_s",
        12 => "q3_k_m",
        13 => "q3_k_l",
        14 => "q4_k_s",
        15 => "q4_k_m",
        16 => "q5_k_s",
        17 => "q5_k_m",
        18 => QuantType::Q6_K.name(),
        21 => "q2_k_s",
        25 => QuantType::IQ4_NL.name(),
        30 => QuantType::IQ4_XS.name(),
        32 => QuantType::BF16.name(),
        38 => "mxfp4_moe",
        _ => "unknown",
    };
    Some((id, name))
}

fn as_text(file: &Gguf) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    writeln!(out, "GGUF version {}, {} metadata entries:", file.version(), file.metadata().len())?;
    let width = file.metadata().iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    for (key, value) in file.metadata().iter() {
        writeln!(out, "  {key:width$}  {}", shown(value))?;
    }
    writeln!(out, "{} tensors:", file.tensors().len())?;
    let width = file.tensors().iter().map(|tensor| tensor.name.len()).max().unwrap_or(0);
    let (by_type, all) = totals(file);
    let ty_width = by_type.keys().map(String::len).max().unwrap_or(0).max(6);
    for tensor in file.tensors() {
        let shape = tensor.shape().iter().map(usize::to_string).collect::<Vec<_>>().join(" x ");
        let name = tensor.name.escape_debug().to_string();
        writeln!(out, "  {name:width$}  {:ty_width$} {shape:18} {:>12} bytes", type_name(tensor), tensor.data.len())?;
    }
    writeln!(out, "totals:")?;
    for (name, total) in &by_type {
        let Total { tensors, parameters, bytes } = total;
        writeln!(out, "  {name:ty_width$} {tensors:>6} tensors {parameters:>14} parameters {bytes:>14} bytes")?;
    }
    let Total { parameters, bytes, .. } = all;
    writeln!(out, "  {parameters} parameters, {bytes} bytes, {:.3} bits per weight", all.bits_per_weight())?;
    match file_type(file) {
        Some((id, name)) => writeln!(out, "  file type {id} ({name})")?,
        None => writeln!(out, "  file type not given")?,
    }
    Ok(out)
}

/// A value on one line, shortened.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(array) => {
            let first: Vec<String> = first(array)
                .iter()
                .map(|element| element.as_str().map_or_else(|| element.to_string(), quoted))
                .collect();
            let more = if array.len() > SHOWN { ", …" } else { "" };
            format!("[{}{more}]  ({}, {} elements)", first.join(", "), array.kind(), array.len())
        }
        scalar => scalar_json(scalar).to_string(),
    }
}

fn quoted(text: &str) -> String {
    let start: String = text.chars().take(SHOWN_CHARS).collect();
    if start.len() == text.len() { format!("{start:?}") } else { format!("{start:?}… ({} bytes)", text.len()) }
}

fn as_json(file: &Gguf) -> serde_json::Value {
    let metadata: serde_json::Map<_, _> = file
        .metadata()
        .iter()
        .map(|(key, value)| {
            let value = match value {
                Value::Array(array) => json!({ "kind": array.kind(), "len": array.len(), "first": first(array) }),
                scalar => scalar_json(scalar),
            };
            (key.to_owned(), value)
        })
        .collect();
    let tensors: Vec<_> = file
        .tensors()
        .iter()
        .map(|t| json!({ "name": t.name, "shape": t.shape(), "type": type_name(t), "bytes": t.data.len() }))
        .collect();
    let (by_type, all) = totals(file);
    let totals: serde_json::Map<_, _> = by_type
        .into_iter()
        .map(|(name, t)| (name, json!({ "tensors": t.tensors, "parameters": t.parameters, "bytes": t.bytes })))
        .collect();
    json!({
        "version": file.version(),
        "metadata": metadata,
        "tensors": tensors,
        "totals": totals,
        "parameters": all.parameters,
        "bytes": all.bytes,
        "bits_per_weight": all.bits_per_weight(),
        "file_type": file_type(file).map(|(id, name)| json!({ "id": id, "name": name })),
    })
}

/// JSON has no NaN and no infinity: these become text.
fn float(value: f64) -> serde_json::Value {
    serde_json::Number::from_f64(value).map_or_else(|| json!(value.to_string()), serde_json::Value::Number)
}

/// As a decimal that reads back as the same `f32`, not as the 17 digits of its `f64`.
fn single(value: f32) -> serde_json::Value {
    value.to_string().parse().map_or_else(|_| float(value.into()), float)
}

fn scalar_json(value: &Value) -> serde_json::Value {
    match value {
        Value::F32(value) => single(*value),
        Value::F64(value) => float(*value),
        Value::Bool(value) => json!(value),
        Value::String(value) => json!(value),
        Value::U64(value) => json!(value),
        // Every other integer fits.
        other => other
            .integer()
            .and_then(|value| i64::try_from(value).ok())
            .map_or_else(|| json!(other.kind()), |v| json!(v)),
    }
}

/// The first elements.
fn first(array: &Array) -> Vec<serde_json::Value> {
    match array {
        Array::U8(values) => head(values, |v| json!(v)),
        Array::I8(values) => head(values, |v| json!(v)),
        Array::U16(values) => head(values, |v| json!(v)),
        Array::I16(values) => head(values, |v| json!(v)),
        Array::U32(values) => head(values, |v| json!(v)),
        Array::I32(values) => head(values, |v| json!(v)),
        Array::U64(values) => head(values, |v| json!(v)),
        Array::I64(values) => head(values, |v| json!(v)),
        Array::F32(values) => head(values, |v| single(*v)),
        Array::F64(values) => head(values, |v| float(*v)),
        Array::Bool(values) => head(values, |v| json!(v)),
        Array::String(values) => values.iter().take(SHOWN).map(|text| json!(text)).collect(),
        // A kind this program does not know yet.
        _ => Vec::new(),
    }
}

fn head<T>(values: &[T], json: impl Fn(&T) -> serde_json::Value) -> Vec<serde_json::Value> {
    values.iter().take(SHOWN).map(json).collect()
}
