//! `phi3`: Microsoft Phi-4, Phi-4-mini and Phi-3.
//!
//! A pre-norm transformer with grouped-query attention, RMSNorm, SwiGLU and no biases. Phi-4-mini rotates three
//! quarters of each head, by LongRoPE's frequencies, and its head is the embedding. The reference is transformers'
//! `modeling_phi3.py`. Files stack q, k, v and gate, up; both forms are read.

use halfbyte_formats::gguf::longrope_attn_factor;

use super::{
    Graph, Input,
    trunk::{self, Biases, Block, FeedForward, OUTPUT_NORM, Trunk},
};
use crate::{
    Compat, RuntimeError,
    config::{ModelConfig, positive},
    exec::Rotations,
    layers::Norm,
    weights::Weights,
};

/// Loads the model.
pub(super) fn load(input: &Input<'_>, config: &mut ModelConfig) -> Result<Box<dyn Graph>, RuntimeError> {
    input.without_mtp(config)?;
    let Input { file, semantics, .. } = *input;
    if semantics.compat == Compat::LlamaCpp {
        config.window = None;
    }
    let config = &*config;
    let mut weights = Weights::new(file, input.kernels)?;
    let norm = |weights: &mut Weights<'_>, name: &str| {
        Ok::<_, RuntimeError>(Norm::rms(weights.vector(name, config.hidden)?, config.norm_eps))
    };
    let (embed, output) = trunk::embedding_and_head(file, &mut weights, config)?;
    let blocks = trunk::blocks(config, |n| {
        Ok(Block {
            attn_norm: norm(&mut weights, &format!("blk.{n}.attn_norm.weight"))?,
            attention: trunk::attention(&mut weights, config, n, Biases::None)?,
            ffn_norm: norm(&mut weights, &format!("blk.{n}.ffn_norm.weight"))?,
            ffn: FeedForward::Mlp(trunk::mlp(&mut weights, config, n)?),
        })
    })?;
    // Without the key, llama.cpp multiplies by nothing; the reference computes the factor.
    let magnitude = || {
        let computed = longrope_attn_factor(config.context, config.original_context);
        let default = if semantics.compat == Compat::LlamaCpp { 1.0 } else { computed };
        Ok(positive(file.metadata(), &config.architecture, "rope.scaling.attn_factor")?.unwrap_or(default))
    };
    let rotations = Rotations::load(file, &mut weights, config, semantics, magnitude)?;
    let norm = norm(&mut weights, OUTPUT_NORM)?;
    weights.finish()?;
    Ok(Box::new(Trunk { config: config.clone(), embed, rotations, blocks, norm, output: output.into() }))
}
