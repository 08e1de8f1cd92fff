//! Phi-3, Phi-4 and Phi-4-mini: `Phi3ForCausalLM`.
//!
//! Queries, keys and values stay one matrix, in that order of rows, and so do gate and up, the gate first: that is how
//! both formats keep them. Sources: transformers `modeling_phi3.py`; llama.cpp `convert_hf_to_gguf.py`.

use super::config::{Config, MAX_CONTEXT, NORMS};
use super::document::Document;
use super::plan::Plan;
use super::rope::Rope;
use super::weights::Weights;
use crate::FormatError;

const ARCHITECTURE: &str = "phi3";

/// The model's file.
pub(super) fn plan(document: &Document, weights: &mut Weights) -> Result<Plan, FormatError> {
    for field in ["attention_bias", "mlp_bias", "lm_head_bias"] {
        if document.flag_or(field, false)? {
            return Err(document.wrong(field, "false (the graph has no biases)"));
        }
    }
    let config = Config::read(document)?;
    let rope = Rope::read(document, &config)?;
    config.discard_unneeded(weights);
    let mut plan = Plan::new(ARCHITECTURE, config.layers, config.tied);
    config.put_metadata(&mut plan, config.layers);
    put_window(document, &mut plan)?;
    rope.put(&mut plan);

    let Config { layers, hidden, ffn, .. } = config;
    let (q_rows, kv_rows) = config.attention_rows();
    config.take_ends(weights, &mut plan)?;
    for n in 0..layers {
        let mut take = |name: &str, source: &str, shape: &[usize]| {
            plan.take(weights, &format!("blk.{n}.{name}"), &format!("model.layers.{n}.{source}"), shape)
        };
        for (name, norm) in NORMS {
            take(&format!("{name}.weight"), &format!("{norm}.weight"), &[hidden])?;
        }
        take("attn_qkv.weight", "self_attn.qkv_proj.weight", &[q_rows + 2 * kv_rows, hidden])?;
        take("attn_output.weight", "self_attn.o_proj.weight", &[hidden, q_rows])?;
        take("ffn_up.weight", "mlp.gate_up_proj.weight", &[2 * ffn, hidden])?;
        take("ffn_down.weight", "mlp.down_proj.weight", &[hidden, ffn])?;
    }
    Ok(plan)
}

/// Puts the number of positions a query sees, itself included; 0 says all of them, as llama.cpp's converter writes it.
pub(super) fn put_window(document: &Document, plan: &mut Plan) -> Result<(), FormatError> {
    let window = match document.value("sliding_window") {
        Some(_) => document.count("sliding_window", 1..=MAX_CONTEXT)?,
        None => 0,
    };
    plan.put_count("attention.sliding_window", window);
    Ok(())
}
