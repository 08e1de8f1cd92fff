//! Phi-3.5-MoE, Phi-mini-MoE and Phi-tiny-MoE: `PhiMoEForCausalLM`, which transformers 5 calls `PhimoeForCausalLM`.
//!
//! The matrices of the experts of a layer become one tensor each, expert after expert. Norms are LayerNorms; their
//! epsilon keeps its misleading name, in both formats. llama.cpp's keys have no place for the magnitude that the
//! authors' code gives rotated queries and keys, so it gets one of its own, `phimoe.rope.scaling.mscale`.
//! Sources: transformers `modeling_phimoe.py`; llama.cpp `convert_hf_to_gguf.py`.

use super::config::{Config, NORMS};
use super::document::Document;
use super::phi3::put_window;
use super::plan::{Plan, Planned};
use super::rope::Rope;
use super::weights::Weights;
use crate::FormatError;

const ARCHITECTURE: &str = "phimoe";
/// Most experts accepted in a layer.
const MAX_EXPERTS: usize = 1024;
/// Experts a token goes to: the mixer is defined for two.
const EXPERTS_USED: usize = 2;
/// The mixer's tolerance, which no GGUF key carries.
const JITTER: f32 = 0.01;

/// (GGUF, Hugging Face) names of an expert's matrices, less suffix.
const EXPERT: [(&str, &str); 3] = [("ffn_gate_exps", "w1"), ("ffn_up_exps", "w3"), ("ffn_down_exps", "w2")];

/// The model's file.
pub(super) fn plan(document: &Document, weights: &mut Weights) -> Result<Plan, FormatError> {
    supported(document)?;
    let config = Config::read(document)?;
    let experts = document.count_or("num_local_experts", EXPERTS_USED..=MAX_EXPERTS, 16)?;
    let rope = Rope::read(document, &config)?;
    if rope.dims() != config.head_dim {
        let nested = rope.field("partial_rotary_factor");
        return Err(document.wrong(document.either(&nested, "partial_rotary_factor"), "1 (heads turn as a whole)"));
    }
    config.discard_unneeded(weights);
    let mut plan = Plan::new(ARCHITECTURE, config.layers, config.tied);
    config.put_metadata(&mut plan, config.layers);
    plan.put_count("expert_count", experts);
    plan.put_count("expert_used_count", EXPERTS_USED);
    put_window(document, &mut plan)?;
    rope.put(&mut plan);
    if rope.is_long() {
        plan.put_own("rope.scaling.mscale", mscale(document, &rope)?);
    }

    config.take_ends(weights, &mut plan)?;
    plan.take(weights, "output_norm.bias", "model.norm.bias", &[config.hidden])?;
    plan.take(weights, "output.bias", "lm_head.bias", &[config.vocab])?;
    for n in 0..config.layers {
        block(&config, experts, n, weights, &mut plan)?;
    }
    Ok(plan)
}

/// Layer `n`.
fn block(config: &Config, experts: usize, n: usize, weights: &mut Weights, plan: &mut Plan) -> Result<(), FormatError> {
    let &Config { hidden, ffn, .. } = config;
    let (q_rows, kv_rows) = config.attention_rows();
    let source = format!("model.layers.{n}");
    let mut take = |name: &str, part: &str, shape: &[usize]| {
        plan.take(weights, &format!("blk.{n}.{name}"), &format!("{source}.{part}"), shape)
    };
    for (name, norm) in NORMS {
        take(&format!("{name}.weight"), &format!("{norm}.weight"), &[hidden])?;
        take(&format!("{name}.bias"), &format!("{norm}.bias"), &[hidden])?;
    }
    for (name, part, rows, depth) in [
        ("attn_q", "q", q_rows, hidden),
        ("attn_k", "k", kv_rows, hidden),
        ("attn_v", "v", kv_rows, hidden),
        ("attn_output", "o", hidden, q_rows),
    ] {
        take(&format!("{name}.weight"), &format!("self_attn.{part}_proj.weight"), &[rows, depth])?;
        take(&format!("{name}.bias"), &format!("self_attn.{part}_proj.bias"), &[rows])?;
    }
    take("ffn_gate_inp.weight", "block_sparse_moe.gate.weight", &[experts, hidden])?;
    for (name, part) in EXPERT {
        let shape = if part == "w2" { [hidden, ffn] } else { [ffn, hidden] };
        let expert = |e| weights.take(&format!("{source}.block_sparse_moe.experts.{e}.{part}.weight"), &shape);
        let parts = (0..experts).map(expert).collect::<Result<Vec<_>, _>>()?;
        plan.add(Planned::stacked(format!("blk.{n}.{name}.weight"), parts));
    }
    Ok(())
}

/// The magnitude of rotated queries and keys: one for short and long contexts, as the graph has only one.
fn mscale(document: &Document, rope: &Rope) -> Result<f32, FormatError> {
    let short = document.positive(&rope.field("short_mscale"))?;
    let field = rope.field("long_mscale");
    let long = document.positive(&field)?;
    // Both were rounded from the same text, or they are not the same.
    if long.to_bits() != short.to_bits() {
        return Err(document.wrong(&field, format!("{short}, as short_mscale")));
    }
    Ok(short)
}

/// Refuses what the `phimoe` graph does not compute. Defaults are those of `PhimoeConfig`.
fn supported(document: &Document) -> Result<(), FormatError> {
    for field in ["attention_bias", "lm_head_bias"] {
        if !document.flag_or(field, false)? {
            return Err(document.wrong(field, "true"));
        }
    }
    document.count_or("num_experts_per_tok", EXPERTS_USED..=EXPERTS_USED, EXPERTS_USED)?;
    let jitter = "router_jitter_noise";
    if document.value(jitter).is_some() && document.positive(jitter)?.to_bits() != JITTER.to_bits() {
        return Err(document.wrong(jitter, JITTER.to_string()));
    }
    Ok(())
}
