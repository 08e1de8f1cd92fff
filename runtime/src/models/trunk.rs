//! What the families have in common: an embedding, layers of attention and feed-forward, a norm and a head.
//!
//! A family loads these parts under its own names and rules; the order of computation is the same for all.

use halfbyte_formats::gguf::Gguf;
use halfbyte_kernels::PackedMatrix;

use super::Graph;
use crate::{
    RuntimeError,
    config::{MAX_COUNT, ModelConfig},
    exec::{Rotations, Scratch},
    kv::{KvCache, LayerKv, MAX_SEQUENCES},
    layers::{Attention, Exec, Heads, Linear, Mlp, Moe, Norm, Run, Store, Want, embed, head},
    memory::push,
    weights::Weights,
};

pub(super) const TOKEN_EMBD: &str = "token_embd.weight";
pub(super) const OUTPUT_NORM: &str = "output_norm.weight";
pub(super) const OUTPUT: &str = "output.weight";

/// A decoder: `x = embed(token)`, every layer, then `head(norm(x))`.
pub(super) struct Trunk {
    pub(super) config: ModelConfig,
    /// (vocab, hidden).
    pub(super) embed: PackedMatrix,
    pub(super) rotations: Rotations,
    pub(super) blocks: Vec<Block>,
    pub(super) norm: Norm,
    /// (vocab, hidden); the embedding itself if tied.
    pub(super) output: Linear,
}

/// One transformer layer.
pub(super) struct Block {
    pub(super) attn_norm: Norm,
    pub(super) attention: Attention,
    pub(super) ffn_norm: Norm,
    pub(super) ffn: FeedForward,
}

/// The second half of a layer.
pub(super) enum FeedForward {
    /// The same for every token.
    Mlp(Mlp),
    /// Experts, of which a token uses some.
    Moe(Moe),
}

impl FeedForward {
    /// Whether something that reads the normalised stream multiplies 8-bit activations.
    fn wants_q8(&self) -> bool {
        match self {
            Self::Mlp(mlp) => mlp.gate.wants_q8() || mlp.up.wants_q8(),
            Self::Moe(moe) => moe.wants_q8(),
        }
    }
}

impl Block {
    /// `x += attention(norm(x))`, then `x += ffn(norm(x))`, for `x = scratch.x: (tokens, hidden)`. If only the last
    /// token's stream is wanted, the others leave their keys and values only, and it moves to the first row.
    #[expect(clippy::too_many_arguments, reason = "what a layer works on, and which part of it")]
    pub(super) fn forward(
        &self,
        exec: Exec<'_>,
        config: &ModelConfig,
        scratch: &mut Scratch,
        mut kv: LayerKv<'_, '_>,
        start: usize,
        tokens: usize,
        only_last: bool,
    ) -> Result<(), RuntimeError> {
        let Self { attn_norm, attention, ffn_norm, .. } = self;
        let mut run = Run { start, first: 0, tokens };
        let live = ..tokens * config.hidden;
        attn_norm.forward(exec, &scratch.x[live], &mut scratch.normed, attention.wants_q8())?;
        if only_last && tokens > 1 {
            attention.project(exec, config, scratch, &mut kv, Heads::KeysAndValues, run)?;
            run = Run { start, first: tokens - 1, tokens: 1 };
            scratch.x.copy_within((tokens - 1) * config.hidden..live.end, 0);
            attn_norm.forward(exec, &scratch.x[..config.hidden], &mut scratch.normed, attention.wants_q8())?;
            attention.project(exec, config, scratch, &mut kv, Heads::Queries, run)?;
        } else {
            attention.project(exec, config, scratch, &mut kv, Heads::All, run)?;
        }
        attention.attend(exec, config, scratch, &kv, run)?;

        let live = ..run.tokens * config.hidden;
        ffn_norm.forward(exec, &scratch.x[live], &mut scratch.normed, self.ffn.wants_q8())?;
        match &self.ffn {
            FeedForward::Mlp(mlp) => {
                let Scratch { x, normed, inner, up, .. } = scratch;
                mlp.forward(exec, normed.of(run.tokens), run.tokens, inner, up, Store::Add, &mut x[live])
            }
            FeedForward::Moe(moe) => moe.forward(exec, scratch, run.tokens),
        }
    }

    pub(super) fn has_float_middle(&self) -> bool {
        match &self.ffn {
            FeedForward::Mlp(mlp) => !mlp.is_fused(),
            FeedForward::Moe(moe) => !moe.is_fused(),
        }
    }

    fn decode_bytes(&self) -> usize {
        let attention = [&self.attention.q, &self.attention.k, &self.attention.v, &self.attention.o];
        let ffn = match &self.ffn {
            FeedForward::Mlp(mlp) => mlp.len_bytes(),
            FeedForward::Moe(moe) => moe.decode_bytes(),
        };
        attention.map(Linear::len_bytes).iter().sum::<usize>() + ffn
    }
}

impl Graph for Trunk {
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
        cache.reserve(tokens.len())?;
        embed(&self.embed, tokens, &mut scratch.x[live])?;
        scratch.rotate(&self.rotations, cache.factors(), start, 0..tokens.len());
        for (layer, block) in self.blocks.iter().enumerate() {
            exec.check()?;
            let only_last = want.only_last() && layer + 1 == self.blocks.len();
            let kv = LayerKv::One { cache, layer };
            block.forward(exec, config, scratch, kv, start, tokens.len(), only_last)?;
        }
        let left = if want.only_last() { 1 } else { tokens.len() };
        head(exec, &self.norm, &self.output, scratch, left, 0, want)
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
        let (config, sequences) = (&self.config, caches.len());
        let Some(singles) = sequences
            .checked_sub(1)
            .filter(|&singles| (singles + 1..=scratch.batch).contains(&tokens.len()) && sequences <= MAX_SEQUENCES)
        else {
            let expected = format!("1 to {MAX_SEQUENCES} sequences, at most {} tokens", scratch.batch);
            let found = format!("{} tokens of {sequences} sequences", tokens.len());
            return Err(RuntimeError::InvalidOption { option: "pass", found, expected });
        };
        debug_assert!(caches.iter().all(|cache| cache.layout() == caches[0].layout()), "one type in a pass");
        let (live, chunk) = (..tokens.len() * config.hidden, tokens.len() - singles);
        embed(&self.embed, tokens, &mut scratch.x[live])?;
        for (row, cache) in caches.iter_mut().enumerate() {
            let count = if row == singles { chunk } else { 1 };
            cache.reserve(count)?;
            scratch.rotate(&self.rotations, cache.factors(), cache.len(), row..row + count);
        }
        for (layer, block) in self.blocks.iter().enumerate() {
            exec.check()?;
            block.forward(exec, config, scratch, LayerKv::Many { caches, layer }, 0, tokens.len(), false)?;
        }
        scratch.x.copy_within(live.end - config.hidden..live.end, singles * config.hidden);
        let wanted = singles + usize::from(last);
        if wanted == 0 {
            Ok(())
        } else {
            head(exec, &self.norm, &self.output, scratch, wanted, 0, &mut Want::Each(each))
        }
    }

    fn vocab(&self) -> usize {
        self.embed.rows()
    }

    fn rotations(&self) -> &Rotations {
        &self.rotations
    }

    fn has_float_middle(&self) -> bool {
        self.blocks.iter().any(Block::has_float_middle)
    }

    fn decode_bytes(&self) -> usize {
        self.blocks.iter().map(Block::decode_bytes).sum::<usize>() + self.output.len_bytes()
    }
}

/// The layers, each made by `block` from its number.
pub(super) fn blocks(
    config: &ModelConfig,
    mut block: impl FnMut(usize) -> Result<Block, RuntimeError>,
) -> Result<Vec<Block>, RuntimeError> {
    let mut blocks = Vec::new();
    for n in 0..config.layers {
        push("layers", &mut blocks, block(n)?)?;
    }
    Ok(blocks)
}

/// The embedding and the head's matrix, which are one if the file has no `output.weight`.
pub(super) fn embedding_and_head(
    file: &Gguf,
    weights: &mut Weights<'_>,
    config: &ModelConfig,
) -> Result<(PackedMatrix, PackedMatrix), RuntimeError> {
    let vocab = embedding_rows(file, config)?;
    let embed = weights.matrix(TOKEN_EMBD, vocab, config.hidden)?;
    let head = if weights.contains(OUTPUT) { weights.matrix(OUTPUT, vocab, config.hidden)? } else { embed.clone() };
    Ok((embed, head))
}

/// Rows of the embedding: the vocabulary's size if the file has one, else what the tensor says.
fn embedding_rows(file: &Gguf, config: &ModelConfig) -> Result<usize, RuntimeError> {
    let tensor = file.tensor(TOKEN_EMBD).ok_or_else(|| RuntimeError::MissingTensor { name: TOKEN_EMBD.to_owned() })?;
    let rows = tensor.shape().get(1).copied().unwrap_or(1);
    let expected = file.metadata().strings("tokenizer.ggml.tokens")?.map_or(rows, |tokens| tokens.len());
    // Ids have to fit a `u32`.
    let expected = expected.min(MAX_COUNT);
    if rows == expected {
        return Ok(rows);
    }
    Err(RuntimeError::TensorShape {
        name: TOKEN_EMBD.to_owned(),
        expected: vec![config.hidden, expected],
        found: tensor.shape().to_vec(),
    })
}

/// Which of the attention's maps have a bias.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Biases {
    None,
    QueryKeyValue,
    All,
}

/// The attention of layer `n`; q, k and v in one tensor or in three.
pub(super) fn attention(
    weights: &mut Weights<'_>,
    config: &ModelConfig,
    n: usize,
    biases: Biases,
) -> Result<Attention, RuntimeError> {
    let (hidden, q, kv) = (config.hidden, config.q_rows(), config.kv_rows());
    let name = |part: &str| format!("blk.{n}.{part}");
    let [qw, kw, vw] = weights.stacked(
        &name("attn_qkv.weight"),
        [&name("attn_q.weight"), &name("attn_k.weight"), &name("attn_v.weight")],
        [q, kv, kv],
        hidden,
    )?;
    let [qb, kb, vb] = if biases == Biases::None {
        Default::default()
    } else {
        weights.stacked_vectors(
            &name("attn_qkv.bias"),
            [&name("attn_q.bias"), &name("attn_k.bias"), &name("attn_v.bias")],
            [q, kv, kv],
        )?
    };
    let o = weights.matrix(&name("attn_output.weight"), hidden, q)?;
    let ob = if biases == Biases::All { weights.vector(&name("attn_output.bias"), hidden)? } else { Vec::new() };
    Ok(Attention {
        q: Linear { weight: qw, bias: qb },
        k: Linear { weight: kw, bias: kb },
        v: Linear { weight: vw, bias: vb },
        o: Linear { weight: o, bias: ob },
    })
}

/// The SwiGLU of layer `n`; gate and up in two tensors, or in one that has the name of the second.
pub(super) fn mlp(weights: &mut Weights<'_>, config: &ModelConfig, n: usize) -> Result<Mlp, RuntimeError> {
    let (hidden, ffn) = (config.hidden, config.ffn);
    let name = |part: &str| format!("blk.{n}.{part}");
    let (gate_name, up_name) = (name("ffn_gate.weight"), name("ffn_up.weight"));
    let [gate, up] = if !weights.contains(&gate_name) && weights.rows(&up_name) == Some(2 * ffn) {
        weights.stacked(&up_name, [&gate_name, &up_name], [ffn, ffn], hidden)?
    } else {
        [weights.matrix(&gate_name, ffn, hidden)?, weights.matrix(&up_name, ffn, hidden)?]
    };
    let down = weights.matrix(&name("ffn_down.weight"), hidden, ffn)?;
    Ok(Mlp { gate: gate.into(), up: up.into(), down: down.into() })
}
