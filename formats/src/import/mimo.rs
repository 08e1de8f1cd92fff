//! Qwen2 and MiMo: `Qwen2ForCausalLM`, `MiMoForCausalLM`.
//!
//! The trunk becomes a plain `qwen2` file. MiMo's multi-token-prediction layer becomes a second file in the NextN
//! convention of llama.cpp: one more block than the trunk has, numbered after its last, and no vocabulary. MiMo joins
//! (hidden, token) where that convention joins (token, hidden), so the columns of `input_proj` change places.
//! Sources: transformers `modeling_qwen2.py`; `mimo_mtp.py` in Xiaomi's vLLM; llama.cpp `llama-arch.cpp`.

use super::config::{Config, NORMS};
use super::document::Document;
use super::plan::{Columns, Plan, Planned};
use super::weights::Weights;
use crate::FormatError;

const ARCHITECTURE: &str = "qwen2";
const MTP_NORMS: [(&str, &str); 3] = [
    ("nextn.enorm", "token_layernorm"),
    ("nextn.hnorm", "hidden_layernorm"),
    ("nextn.shared_head_norm", "final_layernorm"),
];

/// The trunk's file and that of the MTP layer, if there is one.
pub(super) fn plan(document: &Document, weights: &mut Weights) -> Result<(Plan, Option<Plan>), FormatError> {
    supported(document)?;
    let config = Config::read(document)?;
    let has_mtp = usize::from(weights.contains("model.mtp_layers.0.input_proj.weight"));
    let has_mtp = document.count_or("num_nextn_predict_layers", 0..=1, has_mtp)? == 1;
    config.discard_unneeded(weights);
    let trunk = trunk(&config, weights)?;
    let mtp = if has_mtp { Some(mtp(&config, weights)?) } else { None };
    Ok((trunk, mtp))
}

fn trunk(config: &Config, weights: &mut Weights) -> Result<Plan, FormatError> {
    let mut plan = Plan::new(ARCHITECTURE, config.layers, config.tied);
    config.put_metadata(&mut plan, config.layers);
    config.take_ends(weights, &mut plan)?;
    for n in 0..config.layers {
        block(config, n, &format!("model.layers.{n}"), weights, &mut plan)?;
    }
    Ok(plan)
}

fn mtp(config: &Config, weights: &mut Weights) -> Result<Plan, FormatError> {
    let &Config { layers: n, hidden, .. } = config;
    let source = "model.mtp_layers.0";
    let mut plan = Plan::new(ARCHITECTURE, n, false);
    config.put_metadata(&mut plan, n + 1);
    plan.put_own("nextn_predict_layers", 1u32);
    plan.put("mimo.mtp.concat_order", "token_hidden");
    let joined = weights.take(&format!("{source}.input_proj.weight"), &[hidden, 2 * hidden])?;
    plan.add(Planned::new(format!("blk.{n}.nextn.eh_proj.weight"), joined).with_columns(Columns::SwapHalves));
    for (name, norm) in MTP_NORMS {
        plan.take(weights, &format!("blk.{n}.{name}.weight"), &format!("{source}.{norm}.weight"), &[hidden])?;
    }
    block(config, n, source, weights, &mut plan)?;
    Ok(plan)
}

/// One transformer layer, `source` in the checkpoint, number `n` in the file.
fn block(config: &Config, n: usize, source: &str, weights: &mut Weights, plan: &mut Plan) -> Result<(), FormatError> {
    let &Config { hidden, ffn, .. } = config;
    let (q_rows, kv_rows) = config.attention_rows();
    let mut take = |name: &str, part: &str, shape: &[usize]| {
        plan.take(weights, &format!("blk.{n}.{name}"), &format!("{source}.{part}"), shape)
    };
    for (name, norm) in NORMS {
        take(&format!("{name}.weight"), &format!("{norm}.weight"), &[hidden])?;
    }
    for (part, rows) in [("q", q_rows), ("k", kv_rows), ("v", kv_rows)] {
        let (name, source) = (format!("attn_{part}"), format!("self_attn.{part}_proj"));
        take(&format!("{name}.weight"), &format!("{source}.weight"), &[rows, hidden])?;
        take(&format!("{name}.bias"), &format!("{source}.bias"), &[rows])?;
    }
    take("attn_output.weight", "self_attn.o_proj.weight", &[hidden, q_rows])?;
    take("ffn_gate.weight", "mlp.gate_proj.weight", &[ffn, hidden])?;
    take("ffn_up.weight", "mlp.up_proj.weight", &[ffn, hidden])?;
    take("ffn_down.weight", "mlp.down_proj.weight", &[hidden, ffn])
}

/// Refuses what the `qwen2` graph does not compute.
fn supported(document: &Document) -> Result<(), FormatError> {
    if document.flag_or("use_sliding_window", false)? {
        return Err(document.wrong("use_sliding_window", "false (sliding windows are not supported)"));
    }
    for field in ["rope_scaling", "rope_parameters"] {
        let kinds = ["type", "rope_type"].map(|kind| format!("{field}.{kind}"));
        if let Some(kind) = kinds.iter().find(|kind| document.value(kind).is_some_and(|kind| kind != "default")) {
            return Err(document.wrong(kind, "default (rope scaling is not supported)"));
        }
    }
    Ok(())
}
