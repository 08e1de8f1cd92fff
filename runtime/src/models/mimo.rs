//! `qwen2`: Xiaomi MiMo-7B and Qwen2, with MiMo's multi-token-prediction layer.
//!
//! A pre-norm transformer with grouped-query attention, biases on q, k and v only, NEOX rotations and SwiGLU. The
//! reference is transformers' `modeling_qwen2.py`; the MTP layer follows `mimo_mtp.py` of Xiaomi's vLLM fork. The MTP
//! tensors lie in the same file after the trunk's layers, or in a sidecar file.

use halfbyte_formats::gguf::Gguf;

use super::{
    Graph, Input,
    trunk::{self, Biases, Block, FeedForward, OUTPUT, OUTPUT_NORM, TOKEN_EMBD, Trunk},
};
use crate::{
    RuntimeError,
    config::ModelConfig,
    exec::{Rotations, Scratch},
    kv::{KvCache, LayerKv},
    layers::{Exec, Linear, Norm, Store, Want, embed, head},
    weights::Weights,
};

/// Says in which order the columns of `eh_proj` are; only this one is the convention of NextN files.
const CONCAT_ORDER: (&str, &str) = ("mimo.mtp.concat_order", "token_hidden");

/// A loaded model.
struct Mimo {
    trunk: Trunk,
    mtp: Option<Mtp>,
}

/// The multi-token-prediction layer: joins a hidden state with the token after it, then one ordinary block.
struct Mtp {
    /// Norm of the token's embedding.
    token_norm: Norm,
    /// Norm of the trunk's residual stream.
    hidden_norm: Norm,
    /// (hidden, 2 × hidden), columns (token, hidden).
    input: Linear,
    block: Block,
    norm: Norm,
}

/// Loads the trunk from its file, and the MTP layer from the sidecar or from the same file.
pub(super) fn load(input: &Input<'_>, config: &mut ModelConfig) -> Result<Box<dyn Graph>, RuntimeError> {
    let Input { file, sidecar, kernels, semantics } = *input;
    let mut weights = Weights::new(file, kernels)?;
    let (embed, output) = trunk::embedding_and_head(file, &mut weights, config)?;
    let norm = norm(&mut weights, config, OUTPUT_NORM)?;
    let blocks = trunk::blocks(config, |n| block(&mut weights, config, n))?;
    let rotations = Rotations::plain(config, semantics)?;

    let mtp = match sidecar {
        Some(sidecar) => {
            let theirs = ModelConfig::from_metadata(sidecar.metadata())?;
            if theirs.architecture != config.architecture {
                return Err(disagreement("general.architecture", theirs.architecture, config.architecture.clone()));
            }
            config.mtp_layers = 1;
            // A sidecar may be named otherwise; all that the graph depends on has to agree.
            if let Some((key, [expected, found])) = config.difference(&theirs) {
                return Err(disagreement(&format!("{}.{key}", config.architecture), found, expected));
            }
            let mut weights = Weights::new(sidecar, kernels)?;
            // Exports of this kind by llama.cpp repeat what the trunk already has.
            for name in [TOKEN_EMBD, OUTPUT_NORM, OUTPUT] {
                weights.ignore(name);
            }
            let mtp = mtp(&mut weights, sidecar, config)?;
            weights.finish()?;
            Some(mtp)
        }
        None if config.mtp_layers == 0 => None,
        None if config.mtp_layers == 1 => Some(mtp(&mut weights, file, config)?),
        None => {
            return Err(RuntimeError::InvalidKey {
                key: "qwen2.nextn_predict_layers".to_owned(),
                found: config.mtp_layers.to_string(),
                expected: "0 or 1".to_owned(),
            });
        }
    };
    weights.finish()?;
    let trunk = Trunk { config: config.clone(), embed, rotations, blocks, norm, output: output.into() };
    Ok(Box::new(Mimo { trunk, mtp }))
}

/// The sidecar says otherwise than the model.
fn disagreement(key: &str, found: String, expected: String) -> RuntimeError {
    RuntimeError::InvalidKey {
        key: format!("{key} of the multi-token-prediction file"),
        found,
        expected: format!("{expected}, as in the model it goes with"),
    }
}

fn norm(weights: &mut Weights<'_>, config: &ModelConfig, name: &str) -> Result<Norm, RuntimeError> {
    Ok(Norm::rms(weights.vector(name, config.hidden)?, config.norm_eps))
}

fn block(weights: &mut Weights<'_>, config: &ModelConfig, n: usize) -> Result<Block, RuntimeError> {
    Ok(Block {
        attn_norm: norm(weights, config, &format!("blk.{n}.attn_norm.weight"))?,
        attention: trunk::attention(weights, config, n, Biases::QueryKeyValue)?,
        ffn_norm: norm(weights, config, &format!("blk.{n}.ffn_norm.weight"))?,
        ffn: FeedForward::Mlp(trunk::mlp(weights, config, n)?),
    })
}

fn mtp(weights: &mut Weights<'_>, file: &Gguf, config: &ModelConfig) -> Result<Mtp, RuntimeError> {
    let (key, expected) = CONCAT_ORDER;
    if let Some(order) = file.metadata().str(key)?
        && order != expected
    {
        return Err(RuntimeError::InvalidKey {
            key: key.to_owned(),
            found: order.to_owned(),
            expected: expected.to_owned(),
        });
    }
    let (n, hidden) = (config.layers, config.hidden);
    let name = |part: &str| format!("blk.{n}.{part}");
    // MiMo-V2's converter calls the last norm otherwise.
    let last = [name("nextn.shared_head_norm.weight"), name("layer_output_norm.weight")];
    let last = if weights.contains(&last[1]) { &last[1] } else { &last[0] };
    Ok(Mtp {
        token_norm: norm(weights, config, &name("nextn.enorm.weight"))?,
        hidden_norm: norm(weights, config, &name("nextn.hnorm.weight"))?,
        input: weights.matrix(&name("nextn.eh_proj.weight"), hidden, 2 * hidden)?.into(),
        block: block(weights, config, n)?,
        norm: norm(weights, config, last)?,
    })
}

impl Graph for Mimo {
    fn forward(
        &self,
        exec: Exec<'_>,
        scratch: &mut Scratch,
        cache: &mut KvCache,
        tokens: &[u32],
        want: &mut Want<'_>,
    ) -> Result<(), RuntimeError> {
        self.trunk.forward(exec, scratch, cache, tokens, want)
    }

    fn forward_many(
        &self,
        exec: Exec<'_>,
        scratch: &mut Scratch,
        caches: &mut [&mut KvCache],
        tokens: &[u32],
        last: bool,
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), RuntimeError> {
        self.trunk.forward_many(exec, scratch, caches, tokens, last, each)
    }

    fn mtp(
        &self,
        exec: Exec<'_>,
        scratch: &mut Scratch,
        cache: &mut KvCache,
        tokens: &[u32],
        carry: &mut [f32],
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), RuntimeError> {
        let mtp = self.mtp.as_ref().ok_or(RuntimeError::NoMtp)?;
        let Trunk { config, embed: table, rotations, output, .. } = &self.trunk;
        let (hidden, start) = (config.hidden, cache.len());
        // The first token of a sequence has nothing before it, hence no row.
        let skip = usize::from(start == 0);
        let rows = tokens.len().saturating_sub(skip);

        // pairs[row] = (norm(embed(x_q)), norm(h_{q-1})) for q = start + skip + row.
        embed(table, tokens, &mut scratch.delta[..tokens.len() * hidden])?;
        let Scratch { x, delta, pairs, .. } = scratch;
        let stream = &x[..tokens.len() * hidden];
        let (before_first, embedded) = (&*carry, &*delta);
        pairs.fill(exec, rows, mtp.input.wants_q8(), |row, pair| {
            let index = row + skip;
            let previous = match index.checked_sub(1) {
                Some(previous) => &stream[previous * hidden..][..hidden],
                None => before_first,
            };
            let (token, before) = pair.split_at_mut(hidden);
            mtp.token_norm.row(exec, &embedded[index * hidden..][..hidden], token)?;
            mtp.hidden_norm.row(exec, previous, before)
        })?;
        if let Some(last) = tokens.len().checked_sub(1) {
            carry.copy_from_slice(&scratch.x[last * hidden..][..hidden]);
        }
        if rows == 0 {
            return Ok(());
        }

        // The row of position q is cached at q - 1: there is none for 0, and only distances matter to rotations.
        let first = start + skip - 1;
        let live = ..rows * hidden;
        mtp.input.forward(exec, scratch.pairs.of(rows), Store::Set, &mut scratch.x[live])?;
        scratch.rotate(rotations, cache.factors(), first, 0..rows);
        let kv = LayerKv::One { cache, layer: config.layers };
        mtp.block.forward(exec, config, scratch, kv, first, rows, false)?;
        head(exec, &mtp.norm, output, scratch, rows, skip, &mut Want::Each(each))
    }

    fn vocab(&self) -> usize {
        self.trunk.vocab()
    }

    fn rotations(&self) -> &Rotations {
        self.trunk.rotations()
    }

    fn has_float_middle(&self) -> bool {
        self.trunk.has_float_middle() || self.mtp.as_ref().is_some_and(|mtp| mtp.block.has_float_middle())
    }

    fn decode_bytes(&self) -> usize {
        self.trunk.decode_bytes()
    }
}
