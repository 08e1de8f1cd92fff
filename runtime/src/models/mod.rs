//! The graphs: one file a model family, one line each in [`FAMILIES`].

mod mimo;

use halfbyte_formats::gguf::Gguf;
use halfbyte_kernels::Kernels;

use crate::{
    RuntimeError,
    config::ModelConfig,
    exec::Scratch,
    kv::KvCache,
    layers::{Exec, Want},
};

/// What a session asks of a loaded model; it holds no state of any sequence.
pub(crate) trait Graph: Send + Sync {
    /// Runs `tokens` at positions `cache.len()..`, leaves their keys and values in `cache` (uncommitted) and their
    /// residual stream, before the final norm, in `scratch.x`. At most `scratch.batch` tokens.
    fn forward(
        &self,
        exec: Exec<'_>,
        scratch: &mut Scratch,
        cache: &mut KvCache,
        tokens: &[u32],
        want: &mut Want<'_>,
    ) -> Result<(), RuntimeError>;

    /// Runs the multi-token-prediction layer over the tokens of the last [`Graph::forward`]: the row of position `q`
    /// joins the residual stream of `q - 1` with token `q` and predicts `q + 1`; position 0 has none. `each` gets the
    /// index in `tokens` and the logits. `carry: (hidden)` is the residual stream of the position before `tokens`
    /// and becomes that of their last one.
    fn mtp(
        &self,
        exec: Exec<'_>,
        scratch: &mut Scratch,
        cache: &mut KvCache,
        tokens: &[u32],
        carry: &mut [f32],
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), RuntimeError>;

    /// Rows of the embedding and of the head.
    fn vocab(&self) -> usize;

    /// Bytes of weights that one decoded token reads.
    fn decode_bytes(&self) -> usize;
}

/// A family: its `general.architecture` and how to load it from its file and, if there is one, its MTP sidecar.
pub(crate) struct Family {
    pub(crate) architecture: &'static str,
    pub(crate) load: Load,
}

/// Loads a graph from its file and its MTP sidecar; notes in the hyperparameters what the sidecar added.
type Load = fn(&Gguf, Option<&Gguf>, &mut ModelConfig, Kernels) -> Result<Box<dyn Graph>, RuntimeError>;

/// Every family this crate runs.
pub(crate) const FAMILIES: &[Family] = &[Family { architecture: "qwen2", load: mimo::load }];

/// Picks the family by architecture and loads its graph.
pub(crate) fn load(
    file: &Gguf,
    sidecar: Option<&Gguf>,
    config: &mut ModelConfig,
    kernels: Kernels,
) -> Result<Box<dyn Graph>, RuntimeError> {
    let family = FAMILIES.iter().find(|family| family.architecture == config.architecture);
    let family = family.ok_or_else(|| RuntimeError::UnsupportedArchitecture {
        found: config.architecture.clone(),
        supported: FAMILIES.iter().map(|family| family.architecture).collect::<Vec<_>>().join(", "),
    })?;
    (family.load)(file, sidecar, config, kernels)
}
