//! The graphs: one file a model family, one line each in [`FAMILIES`].

mod mimo;
mod phi3;
mod phimoe;
#[cfg(test)]
pub(crate) mod tests;
mod trunk;

use halfbyte_formats::gguf::Gguf;
use halfbyte_kernels::Kernels;

use crate::{
    RuntimeError,
    compat::Semantics,
    config::ModelConfig,
    exec::{Rotations, Scratch},
    kv::KvCache,
    layers::{Exec, Want},
};

/// What a session asks of a loaded model; it holds no state of any sequence.
pub(crate) trait Graph: Send + Sync {
    /// Runs `tokens` at positions `cache.len()..`, leaves their keys and values in `cache` (uncommitted) and what
    /// `want` says in `scratch`. At most `scratch.batch` tokens.
    fn forward(
        &self,
        exec: Exec<'_>,
        scratch: &mut Scratch,
        cache: &mut KvCache,
        tokens: &[u32],
        want: &mut Want<'_>,
    ) -> Result<(), RuntimeError>;

    /// Runs tokens of several sequences: the first token is the next one of the first cache, and so on; the last cache
    /// gets all that are left, one at least. Keys and values stay in the caches (uncommitted). `each` gets the number
    /// of a sequence and the logits after its last token; those of the last one only if `last`. The bits are those of a
    /// pass for each.
    fn forward_many(
        &self,
        exec: Exec<'_>,
        scratch: &mut Scratch,
        caches: &mut [&mut KvCache],
        tokens: &[u32],
        last: bool,
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), RuntimeError>;

    /// Runs the multi-token-prediction layer over the tokens of the last [`Graph::forward`]: the row of position `q`
    /// joins the residual stream of `q - 1` with token `q` and predicts `q + 1`; position 0 has none. `each` gets the
    /// index in `tokens` and the logits. `carry: (hidden)` is the residual stream of the position before `tokens`
    /// and becomes that of their last one. Models without such a layer refuse.
    fn mtp(
        &self,
        _exec: Exec<'_>,
        _scratch: &mut Scratch,
        _cache: &mut KvCache,
        _tokens: &[u32],
        _carry: &mut [f32],
        _each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), RuntimeError> {
        Err(RuntimeError::NoMtp)
    }

    /// Rows of the embedding and of the head.
    fn vocab(&self) -> usize;

    /// How queries and keys are rotated.
    fn rotations(&self) -> &Rotations;

    /// Whether the middle of a feed-forward layer, or the inputs of experts, are needed as f32.
    fn has_float_middle(&self) -> bool;

    /// Bytes of weights that one decoded token reads.
    fn decode_bytes(&self) -> usize;
}

/// What a model is made from.
pub(crate) struct Input<'a> {
    pub(crate) file: &'a Gguf,
    /// The file of its MTP layer, if that is not inside its own.
    pub(crate) sidecar: Option<&'a Gguf>,
    pub(crate) kernels: Kernels,
    pub(crate) semantics: Semantics,
}

impl Input<'_> {
    /// Fails if there is a multi-token-prediction layer, for a family without.
    fn without_mtp(&self, config: &ModelConfig) -> Result<(), RuntimeError> {
        let expected = format!("none: models of architecture {} have no such layer", config.architecture);
        if self.sidecar.is_some() {
            return Err(RuntimeError::InvalidOption { option: "mtp", found: "a file".to_owned(), expected });
        }
        if config.mtp_layers > 0 {
            return Err(RuntimeError::InvalidKey {
                key: format!("{}.nextn_predict_layers", config.architecture),
                found: config.mtp_layers.to_string(),
                expected,
            });
        }
        Ok(())
    }
}

/// A family: its `general.architecture` and how to load it.
pub(crate) struct Family {
    pub(crate) architecture: &'static str,
    pub(crate) load: Load,
}

/// Loads a graph; completes the hyperparameters by what tensors, sidecar and semantics say.
type Load = fn(&Input<'_>, &mut ModelConfig) -> Result<Box<dyn Graph>, RuntimeError>;

/// Every family this crate runs.
pub(crate) const FAMILIES: &[Family] = &[
    Family { architecture: "qwen2", load: mimo::load },
    Family { architecture: "phi3", load: phi3::load },
    Family { architecture: "phimoe", load: phimoe::load },
];

/// Picks the family by architecture and loads its graph.
pub(crate) fn load(input: &Input<'_>, config: &mut ModelConfig) -> Result<Box<dyn Graph>, RuntimeError> {
    let family = FAMILIES.iter().find(|family| family.architecture == config.architecture);
    let family = family.ok_or_else(|| RuntimeError::UnsupportedArchitecture {
        found: config.architecture.clone(),
        supported: FAMILIES.iter().map(|family| family.architecture).collect::<Vec<_>>().join(", "),
    })?;
    (family.load)(input, config)
}
