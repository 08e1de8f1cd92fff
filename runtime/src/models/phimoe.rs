//! `phimoe`: Microsoft Phi-3.5-MoE, Phi-mini-MoE and Phi-tiny-MoE.
//!
//! A pre-norm transformer with grouped-query attention, LayerNorm, biases on all of attention and on the head, and in
//! each layer 16 SwiGLU experts of which `sparsemixer` gives every token two. The reference is transformers'
//! `modeling_phimoe.py`, and for LongRoPE beyond the original context the authors' own code, which unlike it switches
//! to the long factors. llama.cpp runs these files with another norm, router and rope magnitude: [`Compat::LlamaCpp`].

use super::{
    Graph, Input,
    trunk::{self, Biases, Block, FeedForward, OUTPUT_NORM, Trunk},
};
use crate::{
    Compat, RuntimeError,
    config::{ModelConfig, positive},
    exec::Rotations,
    layers::{EXPERTS_USED, Expert, Linear, Moe, Norm, Router},
    memory::with_room,
    weights::Weights,
};

/// Rope magnitude of Phi-3.5-MoE (`short_mscale` and `long_mscale` of its `config.json`), which converters drop.
const MSCALE: f32 = 1.243_163_1;

/// Most experts of a model: their views take memory, whatever their size.
const MAX_EXPERTS: usize = 1 << 16;

/// Loads the model.
pub(super) fn load(input: &Input<'_>, config: &mut ModelConfig) -> Result<Box<dyn Graph>, RuntimeError> {
    input.without_mtp(config)?;
    let Input { file, semantics, .. } = *input;
    let reference = semantics.compat == Compat::Reference;
    complete(input, config)?;
    if !reference {
        config.window = None;
    }
    let config = &*config;
    let metadata = file.metadata();
    let mut weights = Weights::new(file, input.kernels)?;
    let norm = |weights: &mut Weights<'_>, name: &str| {
        Ok::<_, RuntimeError>(Norm {
            weight: weights.vector(&format!("{name}.weight"), config.hidden)?,
            bias: weights.vector(&format!("{name}.bias"), config.hidden)?,
            centred: reference,
            eps: config.norm_eps,
        })
    };
    let router = if reference { Router::Sparsemixer } else { Router::SoftmaxTopTwo };
    let (embed, output) = trunk::embedding_and_head(file, &mut weights, config)?;
    let bias = weights.vector("output.bias", output.rows())?;
    let blocks = trunk::blocks(config, |n| {
        Ok(Block {
            attn_norm: norm(&mut weights, &format!("blk.{n}.attn_norm"))?,
            attention: trunk::attention(&mut weights, config, n, Biases::All)?,
            ffn_norm: norm(&mut weights, &format!("blk.{n}.ffn_norm"))?,
            ffn: FeedForward::Moe(moe(&mut weights, config, n, router)?),
        })
    })?;
    let magnitude = || {
        let (key, default) =
            if reference { ("rope.scaling.mscale", MSCALE) } else { ("rope.scaling.attn_factor", 1.0) };
        Ok(positive(metadata, &config.architecture, key)?.unwrap_or(default))
    };
    let rotations = Rotations::load(file, &mut weights, config, semantics, magnitude)?;
    let norm = norm(&mut weights, OUTPUT_NORM.trim_end_matches(".weight"))?;
    weights.finish()?;
    let output = Linear { weight: output, bias };
    Ok(Box::new(Trunk { config: config.clone(), embed, rotations, blocks, norm, output }))
}

/// Reads from the tensors what converters leave out of the metadata, and checks what the router needs.
fn complete(input: &Input<'_>, config: &mut ModelConfig) -> Result<(), RuntimeError> {
    let invalid = |name: &str, found: usize, expected: String| RuntimeError::InvalidKey {
        key: format!("{}.{name}", config.architecture),
        found: found.to_string(),
        expected,
    };
    if config.experts < EXPERTS_USED {
        return Err(invalid("expert_count", config.experts, format!("at least {EXPERTS_USED}")));
    }
    if config.experts_used != EXPERTS_USED {
        return Err(invalid(
            "expert_used_count",
            config.experts_used,
            format!("{EXPERTS_USED}, as its router chooses"),
        ));
    }
    if config.experts.saturating_mul(config.layers) > MAX_EXPERTS {
        return Err(invalid("expert_count", config.experts, format!("at most {MAX_EXPERTS} in all layers")));
    }
    // Phi-tiny-MoE's heads are smaller than embedding / heads.
    let rows = |name: &str| input.file.tensor(name).and_then(|tensor| tensor.shape().get(1).copied());
    let heads = [("blk.0.attn_q.weight", config.heads), ("blk.0.attn_qkv.weight", config.heads + 2 * config.kv_heads)];
    if input.file.metadata().value("phimoe.attention.key_length").is_none()
        && let Some((rows, heads)) = heads.into_iter().find_map(|(name, heads)| Some((rows(name)?, heads)))
        && rows.is_multiple_of(2 * heads)
        && (1..=config.head_dim).contains(&(rows / heads))
    {
        config.head_dim = rows / heads;
        config.rope_dim = config.rope_dim.min(config.head_dim);
    }
    Ok(())
}

/// The experts of layer `n`: stacked in one tensor a role (gate and up may share one), or in old files one by one.
fn moe(weights: &mut Weights<'_>, config: &ModelConfig, n: usize, router: Router) -> Result<Moe, RuntimeError> {
    let (hidden, ffn, count) = (config.hidden, config.ffn, config.experts);
    let name = |part: &str| format!("blk.{n}.{part}.weight");
    let single = |part: &'static str| move |e: usize| format!("blk.{n}.{part}.{e}.weight");
    let gate = weights.matrix(&name("ffn_gate_inp"), count, hidden)?.into();
    let both = name("ffn_gate_up_exps");
    let gate_up = if weights.contains(&both) {
        weights.experts(&both, |_| both.clone(), count, [ffn, ffn], hidden)?
    } else {
        let gate = weights.experts(&name("ffn_gate_exps"), single("ffn_gate"), count, [ffn], hidden)?;
        let up = weights.experts(&name("ffn_up_exps"), single("ffn_up"), count, [ffn], hidden)?;
        let mut both = with_room("experts", count)?;
        both.extend(gate.into_iter().zip(up).map(|([gate], [up])| [gate, up]));
        both
    };
    let down = weights.experts(&name("ffn_down_exps"), single("ffn_down"), count, [hidden], ffn)?;
    let mut experts = with_room("experts", count)?;
    experts.extend(gate_up.into_iter().zip(down).map(|(gate_up, [down])| Expert::new(gate_up, down)));
    Ok(Moe::new(gate, router, experts))
}
