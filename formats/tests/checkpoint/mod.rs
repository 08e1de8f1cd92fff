//! Checkpoints that tests build in memory, spoil at will, write to a directory and import.

pub(crate) mod phi;
#[path = "../scratch/mod.rs"]
mod scratch;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use halfbyte_formats::FormatError;
use halfbyte_formats::gguf::{Gguf, Tensor};
use halfbyte_formats::import::Checkpoint;
use halfbyte_formats::quant::{self, Mix};
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Value, json};

/// A tensor as (element type, shape, bytes).
pub(crate) type Raw = (Dtype, Vec<usize>, Vec<u8>);

/// A checkpoint in memory, to be spoilt at will before it is written.
pub(crate) struct Fixture {
    pub(crate) config: Value,
    pub(crate) tokenizer: Value,
    pub(crate) settings: Value,
    pub(crate) tensors: BTreeMap<String, Raw>,
}

/// A directory that is removed with its owner.
pub(crate) struct Dir(pub(crate) PathBuf);

impl Dir {
    pub(crate) fn new(name: &str) -> Self {
        let path = scratch::scratch().join(format!("import-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Values that BF16 holds exactly, different for every name and place.
pub(crate) fn values(name: &str, len: usize) -> Vec<f32> {
    let mut state = name.bytes().fold(17u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 56) as f32 - 127.5) / 128.0
    };
    (0..len).map(|_| next()).collect()
}

pub(crate) fn bf16(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| ((x.to_bits() >> 16) as u16).to_le_bytes()).collect()
}

impl Fixture {
    pub(crate) fn add(&mut self, name: &str, shape: &[usize]) {
        let data = bf16(&values(name, shape.iter().product()));
        self.tensors.insert(name.to_owned(), (Dtype::BF16, shape.to_vec(), data));
    }

    /// The bytes of a safetensors file with the tensors that `pick` chooses.
    pub(crate) fn shard(&self, pick: impl Fn(&str) -> bool) -> Vec<u8> {
        let views =
            self.tensors.iter().filter(|(name, _)| pick(name)).map(|(name, (dtype, shape, data))| {
                (name.as_str(), TensorView::new(*dtype, shape.clone(), data).unwrap())
            });
        serialize(views, None).unwrap()
    }

    pub(crate) fn write_texts(&self, dir: &Dir) {
        fs::write(dir.file("config.json"), self.config.to_string()).unwrap();
        fs::write(dir.file("tokenizer.json"), self.tokenizer.to_string()).unwrap();
        fs::write(dir.file("tokenizer_config.json"), self.settings.to_string()).unwrap();
    }

    pub(crate) fn write(&self, dir: &Dir) {
        self.write_texts(dir);
        fs::write(dir.file("model.safetensors"), self.shard(|_| true)).unwrap();
    }

    /// Writes two shards, the first one with the tensors of layer 0, and their index.
    pub(crate) fn write_sharded(&self, dir: &Dir) {
        self.write_texts(dir);
        let first = |name: &str| name.contains("layers.0");
        fs::write(dir.file("model-00001-of-00002.safetensors"), self.shard(first)).unwrap();
        fs::write(dir.file("model-00002-of-00002.safetensors"), self.shard(|name| !first(name))).unwrap();
        let place = |name: &String| format!("model-0000{}-of-00002.safetensors", if first(name) { 1 } else { 2 });
        let places: BTreeMap<_, _> = self.tensors.keys().map(|name| (name.clone(), place(name))).collect();
        fs::write(dir.file("model.safetensors.index.json"), json!({ "weight_map": places }).to_string()).unwrap();
    }

    pub(crate) fn import(&self, test: &str, mix: Mix) -> (Gguf, Option<Gguf>) {
        let dir = Dir::new(test);
        self.write(&dir);
        let checkpoint = Checkpoint::open(&dir.0).unwrap();
        checkpoint.write(dir.file("model.gguf"), mix, |_| {}).unwrap();
        let trunk = fs::read(dir.file("model.gguf")).unwrap();
        let mtp = checkpoint.has_mtp().then(|| {
            checkpoint.write_mtp(dir.file("mtp-model.gguf"), mix, |_| {}).unwrap();
            Gguf::from_bytes(fs::read(dir.file("mtp-model.gguf")).unwrap()).unwrap()
        });
        (Gguf::from_bytes(trunk).unwrap(), mtp)
    }

    /// The error of opening this checkpoint.
    pub(crate) fn refusal(&self, test: &str) -> FormatError {
        let dir = Dir::new(test);
        self.write(&dir);
        Checkpoint::open(&dir.0).unwrap_err()
    }
}

pub(crate) fn decoded(tensor: &Tensor) -> Vec<f32> {
    let mut values = vec![0.0; tensor.dims.iter().product()];
    quant::decode(tensor.ty, &tensor.data, &mut values).unwrap();
    values
}

pub(crate) fn tensor<'a>(file: &'a Gguf, name: &str) -> &'a Tensor {
    file.tensor(name).unwrap_or_else(|| panic!("{name} is missing"))
}

/// Checks that the error is about `field` and says what was found.
pub(crate) fn assert_field(error: &FormatError, field: &str, found: &str, case: &str) {
    match error {
        FormatError::CheckpointField { field: f, found: v, .. } => {
            assert_eq!((f.as_str(), v.as_str()), (field, found), "{case}")
        }
        other => panic!("{case}: {other:?}"),
    }
}
