//! `qwen2`: Xiaomi MiMo-7B and Qwen2, with MiMo's multi-token-prediction layer.
//!
//! A pre-norm transformer with grouped-query attention, biases on q, k and v only, NEOX rotations and SwiGLU. The
//! reference is transformers' `modeling_qwen2.py`; the MTP layer follows `mimo_mtp.py` of Xiaomi's vLLM fork. The MTP
//! tensors lie in the same file after the trunk's layers, or in a sidecar file.

use halfbyte_formats::gguf::Gguf;
use halfbyte_kernels::{Kernels, PackedMatrix, ops};

use super::Graph;
use crate::{
    RuntimeError,
    config::{MAX_COUNT, ModelConfig},
    exec::Scratch,
    kv::{KvCache, LayerKv},
    layers::{Attention, Exec, Linear, Mlp, Want, embed, head, rms_norm},
    weights::Weights,
};

const TOKEN_EMBD: &str = "token_embd.weight";
const OUTPUT_NORM: &str = "output_norm.weight";
const OUTPUT: &str = "output.weight";
/// Says in which order the columns of `eh_proj` are; only this one is the convention of NextN files.
const CONCAT_ORDER: (&str, &str) = ("mimo.mtp.concat_order", "token_hidden");

/// A loaded model.
struct Mimo {
    config: ModelConfig,
    /// (vocab, hidden).
    embed: PackedMatrix,
    blocks: Vec<Block>,
    /// (hidden).
    norm: Vec<f32>,
    /// (vocab, hidden); the embedding itself if tied.
    output: Linear,
    mtp: Option<Mtp>,
}

/// One transformer layer.
struct Block {
    /// (hidden).
    attn_norm: Vec<f32>,
    attention: Attention,
    /// (hidden).
    ffn_norm: Vec<f32>,
    mlp: Mlp,
}

/// The multi-token-prediction layer: joins a hidden state with the token after it, then one ordinary block.
struct Mtp {
    /// Norm of the token's embedding: (hidden).
    token_norm: Vec<f32>,
    /// Norm of the trunk's residual stream: (hidden).
    hidden_norm: Vec<f32>,
    /// (hidden, 2 × hidden), columns (token, hidden).
    input: Linear,
    block: Block,
    /// (hidden).
    norm: Vec<f32>,
}

/// Loads the trunk from `file`, and the MTP layer from `sidecar` or from `file` itself.
pub(super) fn load(
    file: &Gguf,
    sidecar: Option<&Gguf>,
    config: &mut ModelConfig,
    kernels: Kernels,
) -> Result<Box<dyn Graph>, RuntimeError> {
    let mut weights = Weights::new(file, kernels);
    let hidden = config.hidden;
    let vocab = embedding_rows(file, config)?;
    let embed = weights.matrix(TOKEN_EMBD, vocab, hidden)?;
    let output = if weights.contains(OUTPUT) { weights.matrix(OUTPUT, vocab, hidden)? } else { embed.clone() };
    let norm = weights.vector(OUTPUT_NORM, hidden)?;
    let blocks = (0..config.layers).map(|n| block(&mut weights, config, n)).collect::<Result<_, _>>()?;

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
            let mut weights = Weights::new(sidecar, kernels);
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
    Ok(Box::new(Mimo { config: config.clone(), embed, blocks, norm, output: output.into(), mtp }))
}

/// The sidecar says otherwise than the model.
fn disagreement(key: &str, found: String, expected: String) -> RuntimeError {
    RuntimeError::InvalidKey {
        key: format!("{key} of the multi-token-prediction file"),
        found,
        expected: format!("{expected}, as in the model it goes with"),
    }
}

/// Rows of the embedding: the vocabulary's size if the file has one, else what the tensor says.
fn embedding_rows(file: &Gguf, config: &ModelConfig) -> Result<usize, RuntimeError> {
    let tensor = file.tensor(TOKEN_EMBD).ok_or_else(|| RuntimeError::MissingTensor { name: TOKEN_EMBD.to_owned() })?;
    let rows = tensor.dims.get(1).copied().unwrap_or(1);
    let expected = file.metadata().strings("tokenizer.ggml.tokens")?.map_or(rows, |tokens| tokens.len());
    // Ids have to fit a `u32`.
    let expected = expected.min(MAX_COUNT);
    if rows == expected {
        return Ok(rows);
    }
    Err(RuntimeError::TensorShape {
        name: TOKEN_EMBD.to_owned(),
        expected: vec![config.hidden, expected],
        found: tensor.dims.clone(),
    })
}

fn block(weights: &mut Weights<'_>, config: &ModelConfig, n: usize) -> Result<Block, RuntimeError> {
    let (hidden, ffn, q, kv) = (config.hidden, config.ffn, config.q_rows(), config.kv_rows());
    let name = |part: &str| format!("blk.{n}.{part}");
    let [qw, kw, vw] = weights.stacked(
        &name("attn_qkv.weight"),
        [&name("attn_q.weight"), &name("attn_k.weight"), &name("attn_v.weight")],
        [q, kv, kv],
        hidden,
    )?;
    let [qb, kb, vb] = weights.stacked_vectors(
        &name("attn_qkv.bias"),
        [&name("attn_q.bias"), &name("attn_k.bias"), &name("attn_v.bias")],
        [q, kv, kv],
    )?;
    Ok(Block {
        attn_norm: weights.vector(&name("attn_norm.weight"), hidden)?,
        attention: Attention {
            q: Linear { weight: qw, bias: qb },
            k: Linear { weight: kw, bias: kb },
            v: Linear { weight: vw, bias: vb },
            o: weights.matrix(&name("attn_output.weight"), hidden, q)?.into(),
        },
        ffn_norm: weights.vector(&name("ffn_norm.weight"), hidden)?,
        mlp: Mlp {
            gate: weights.matrix(&name("ffn_gate.weight"), ffn, hidden)?.into(),
            up: weights.matrix(&name("ffn_up.weight"), ffn, hidden)?.into(),
            down: weights.matrix(&name("ffn_down.weight"), hidden, ffn)?.into(),
        },
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
    let norm = [name("nextn.shared_head_norm.weight"), name("layer_output_norm.weight")];
    let norm = if weights.contains(&norm[1]) { &norm[1] } else { &norm[0] };
    Ok(Mtp {
        token_norm: weights.vector(&name("nextn.enorm.weight"), hidden)?,
        hidden_norm: weights.vector(&name("nextn.hnorm.weight"), hidden)?,
        input: weights.matrix(&name("nextn.eh_proj.weight"), hidden, 2 * hidden)?.into(),
        block: block(weights, config, n)?,
        norm: weights.vector(norm, hidden)?,
    })
}

impl Block {
    /// `x += attention(norm(x))`, then `x += mlp(norm(x))`, for `x = scratch.x: (tokens, hidden)`.
    fn forward(
        &self,
        exec: Exec<'_>,
        config: &ModelConfig,
        scratch: &mut Scratch,
        mut kv: LayerKv<'_>,
        start: usize,
        tokens: usize,
    ) -> Result<(), RuntimeError> {
        let live = ..tokens * config.hidden;
        rms_norm(exec, &scratch.x[live], &self.attn_norm, config.rms_eps, &mut scratch.normed[live])?;
        self.attention.forward(exec, config, scratch, &mut kv, start, tokens)?;
        rms_norm(exec, &scratch.x[live], &self.ffn_norm, config.rms_eps, &mut scratch.normed[live])?;
        self.mlp.forward(exec, config, scratch, tokens)
    }
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
        let (config, start) = (&self.config, cache.len());
        let live = ..tokens.len() * config.hidden;
        embed(&self.embed, tokens, &mut scratch.x[live])?;
        scratch.rotate_from(start, tokens.len());
        for (n, block) in self.blocks.iter().enumerate() {
            exec.check()?;
            block.forward(exec, config, scratch, cache.layer(n), start, tokens.len())?;
        }
        let Scratch { x, normed, logits, .. } = scratch;
        head(exec, (&self.norm, config.rms_eps), &self.output, &x[live], normed, logits, 0, want)
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
        let (config, hidden, start) = (&self.config, self.config.hidden, cache.len());
        // The first token of a sequence has nothing before it, hence no row.
        let skip = usize::from(start == 0);
        let rows = tokens.len().saturating_sub(skip);

        // pairs[row] = (norm(embed(x_q)), norm(h_{q-1})) for q = start + skip + row.
        embed(&self.embed, tokens, &mut scratch.delta[..tokens.len() * hidden])?;
        for (row, pair) in scratch.pairs.chunks_exact_mut(2 * hidden).take(rows).enumerate() {
            let index = row + skip;
            let previous = match index.checked_sub(1) {
                Some(previous) => &scratch.x[previous * hidden..][..hidden],
                None => &*carry,
            };
            let (token, before) = pair.split_at_mut(hidden);
            let embedded = &scratch.delta[index * hidden..][..hidden];
            ops::rms_norm(exec.kernels, embedded, &mtp.token_norm, config.rms_eps, token)?;
            ops::rms_norm(exec.kernels, previous, &mtp.hidden_norm, config.rms_eps, before)?;
        }
        if let Some(last) = tokens.len().checked_sub(1) {
            carry.copy_from_slice(&scratch.x[last * hidden..][..hidden]);
        }
        if rows == 0 {
            return Ok(());
        }

        // The row of position q is cached at q - 1: there is none for 0, and only distances matter to rotations.
        let first = start + skip - 1;
        let live = ..rows * hidden;
        mtp.input.forward(exec, &scratch.pairs[..2 * rows * hidden], &mut scratch.x[live])?;
        scratch.rotate_from(first, rows);
        mtp.block.forward(exec, config, scratch, cache.layer(config.layers), first, rows)?;
        let Scratch { x, normed, logits, .. } = scratch;
        let mut want = Want::Each(each);
        head(exec, (&mtp.norm, config.rms_eps), &self.output, &x[live], normed, logits, skip, &mut want)
    }

    fn vocab(&self) -> usize {
        self.embed.rows()
    }

    fn decode_bytes(&self) -> usize {
        let linear = |map: &Linear| map.weight.data().len();
        let block = |block: &Block| {
            let (attention, mlp) = (&block.attention, &block.mlp);
            [&attention.q, &attention.k, &attention.v, &attention.o, &mlp.gate, &mlp.up, &mlp.down]
                .map(linear)
                .iter()
                .sum::<usize>()
        };
        self.blocks.iter().map(block).sum::<usize>() + linear(&self.output)
    }
}
