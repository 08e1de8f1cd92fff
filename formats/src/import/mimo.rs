//! Qwen2 and MiMo: `Qwen2ForCausalLM`, `MiMoForCausalLM`.
//!
//! The trunk becomes a plain `qwen2` file. MiMo's multi-token-prediction layer becomes a second file in the NextN
//! convention of llama.cpp: one more block than the trunk has, numbered after its last, and no vocabulary. MiMo joins
//! (hidden, token) where that convention joins (token, hidden), so the columns of `input_proj` change places.
//! Sources: transformers `modeling_qwen2.py`; `mimo_mtp.py` in Xiaomi's vLLM; llama.cpp `llama-arch.cpp`.

use super::document::Document;
use super::plan::{Columns, Plan, Planned};
use super::tokenizer::MAX_VOCAB;
use super::weights::Weights;
use crate::FormatError;

/// Largest width of a matrix accepted; the product of two counts below these bounds fits in 64 bits.
const MAX_WIDTH: usize = 1 << 20;
const MAX_LAYERS: usize = 1024;
const MAX_CONTEXT: usize = 1 << 26;

/// (GGUF, Hugging Face) names of a layer's tensors, less prefix and, for the second group, `.weight` and `.bias`.
const NORMS: [(&str, &str); 2] = [("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm")];
const MTP_NORMS: [(&str, &str); 3] = [
    ("nextn.enorm", "token_layernorm"),
    ("nextn.hnorm", "hidden_layernorm"),
    ("nextn.shared_head_norm", "final_layernorm"),
];

/// The hyperparameters, by their names in kernels and graphs.
struct Config {
    layers: usize,
    mtp: bool,
    hidden: usize,
    ffn: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    context: usize,
    vocab: usize,
    rms_eps: f32,
    rope_base: f32,
    tied: bool,
}

/// The trunk's file and that of the MTP layer, if there is one.
pub(super) fn plan(document: &Document, weights: &mut Weights) -> Result<(Plan, Option<Plan>), FormatError> {
    let config = Config::read(document, weights)?;
    // Tables that old versions of transformers saved, and a head that repeats the tied embedding.
    weights.discard(|name| name.ends_with("rotary_emb.inv_freq") || config.tied && name == "lm_head.weight");
    let trunk = config.trunk(weights)?;
    let mtp = if config.mtp { Some(config.mtp(weights)?) } else { None };
    Ok((trunk, mtp))
}

impl Config {
    fn read(document: &Document, weights: &Weights) -> Result<Self, FormatError> {
        supported(document)?;
        let hidden = document.count("hidden_size", 1..=MAX_WIDTH)?;
        let heads = document.count("num_attention_heads", 1..=hidden)?;
        let kv_heads = document.count_or("num_key_value_heads", 1..=heads, heads)?;
        if !heads.is_multiple_of(kv_heads) {
            return Err(document.wrong("num_key_value_heads", format!("a divisor of the {heads} heads")));
        }
        let head_dim = document.count_or("head_dim", 2..=MAX_WIDTH / heads, hidden / heads)?;
        if !head_dim.is_multiple_of(2) {
            return Err(document.wrong("head_dim", "an even number"));
        }
        // Up to transformers 4 the base is a field of its own, afterwards one of the rope parameters.
        let nested = "rope_parameters.rope_theta";
        let rope_base = if document.value(nested).is_some() { nested } else { "rope_theta" };
        let has_mtp = usize::from(weights.contains("model.mtp_layers.0.input_proj.weight"));
        Ok(Self {
            layers: document.count("num_hidden_layers", 1..=MAX_LAYERS)?,
            mtp: document.count_or("num_nextn_predict_layers", 0..=1, has_mtp)? == 1,
            hidden,
            ffn: document.count("intermediate_size", 1..=MAX_WIDTH)?,
            heads,
            kv_heads,
            head_dim,
            context: document.count("max_position_embeddings", 1..=MAX_CONTEXT)?,
            vocab: document.count("vocab_size", 1..=MAX_VOCAB)?,
            rms_eps: document.positive("rms_norm_eps")?,
            rope_base: document.positive(rope_base)?,
            tied: document.flag_or("tie_word_embeddings", false)?,
        })
    }

    fn trunk(&self, weights: &mut Weights) -> Result<Plan, FormatError> {
        let mut plan = Plan::new(self.layers, self.tied);
        self.put_metadata(&mut plan, self.layers);
        let mut take = |name: &str, source: &str, shape: &[usize]| {
            let stored = weights.take(source, shape)?;
            plan.push(Planned { name: name.to_owned(), stored, columns: Columns::Keep });
            Ok::<_, FormatError>(())
        };
        take("token_embd.weight", "model.embed_tokens.weight", &[self.vocab, self.hidden])?;
        take("output_norm.weight", "model.norm.weight", &[self.hidden])?;
        if !self.tied {
            take("output.weight", "lm_head.weight", &[self.vocab, self.hidden])?;
        }
        for n in 0..self.layers {
            self.block(n, &format!("model.layers.{n}"), weights, &mut plan)?;
        }
        Ok(plan)
    }

    fn mtp(&self, weights: &mut Weights) -> Result<Plan, FormatError> {
        let n = self.layers;
        let source = "model.mtp_layers.0";
        let mut plan = Plan::new(self.layers, false);
        self.put_metadata(&mut plan, self.layers + 1);
        plan.put("qwen2.nextn_predict_layers", 1u32);
        plan.put("mimo.mtp.concat_order", "token_hidden");
        let stored = weights.take(&format!("{source}.input_proj.weight"), &[self.hidden, 2 * self.hidden])?;
        plan.push(Planned { name: format!("blk.{n}.nextn.eh_proj.weight"), stored, columns: Columns::SwapHalves });
        for (name, norm) in MTP_NORMS {
            let stored = weights.take(&format!("{source}.{norm}.weight"), &[self.hidden])?;
            plan.push(Planned { name: format!("blk.{n}.{name}.weight"), stored, columns: Columns::Keep });
        }
        self.block(n, source, weights, &mut plan)?;
        Ok(plan)
    }

    /// One transformer layer, `source` in the checkpoint, number `n` in the file.
    fn block(&self, n: usize, source: &str, weights: &mut Weights, plan: &mut Plan) -> Result<(), FormatError> {
        let mut take = |name: &str, part: &str, shape: &[usize]| {
            let stored = weights.take(&format!("{source}.{part}"), shape)?;
            plan.push(Planned { name: format!("blk.{n}.{name}"), stored, columns: Columns::Keep });
            Ok::<_, FormatError>(())
        };
        for (name, norm) in NORMS {
            take(&format!("{name}.weight"), &format!("{norm}.weight"), &[self.hidden])?;
        }
        let (q_rows, kv_rows) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        for (part, rows) in [("q", q_rows), ("k", kv_rows), ("v", kv_rows)] {
            let (name, source) = (format!("attn_{part}"), format!("self_attn.{part}_proj"));
            take(&format!("{name}.weight"), &format!("{source}.weight"), &[rows, self.hidden])?;
            take(&format!("{name}.bias"), &format!("{source}.bias"), &[rows])?;
        }
        take("attn_output.weight", "self_attn.o_proj.weight", &[self.hidden, q_rows])?;
        take("ffn_gate.weight", "mlp.gate_proj.weight", &[self.ffn, self.hidden])?;
        take("ffn_up.weight", "mlp.up_proj.weight", &[self.ffn, self.hidden])?;
        take("ffn_down.weight", "mlp.down_proj.weight", &[self.hidden, self.ffn])
    }

    fn put_metadata(&self, plan: &mut Plan, blocks: usize) {
        plan.put("general.architecture", "qwen2");
        plan.put("general.type", "model");
        let counts = [
            ("qwen2.block_count", blocks),
            ("qwen2.context_length", self.context),
            ("qwen2.embedding_length", self.hidden),
            ("qwen2.feed_forward_length", self.ffn),
            ("qwen2.attention.head_count", self.heads),
            ("qwen2.attention.head_count_kv", self.kv_heads),
            ("qwen2.attention.key_length", self.head_dim),
            ("qwen2.attention.value_length", self.head_dim),
        ];
        for (key, count) in counts {
            // Every count is far below 2^32, see the bounds above.
            plan.put(key, u32::try_from(count).unwrap_or(u32::MAX));
        }
        plan.put("qwen2.rope.freq_base", self.rope_base);
        plan.put("qwen2.attention.layer_norm_rms_epsilon", self.rms_eps);
    }
}

/// Refuses what the `qwen2` graph does not compute.
fn supported(document: &Document) -> Result<(), FormatError> {
    if document.value("hidden_act").is_some_and(|act| act != "silu") {
        return Err(document.wrong("hidden_act", "silu"));
    }
    if document.flag_or("use_sliding_window", false)? {
        return Err(document.wrong("use_sliding_window", "false (sliding windows are not supported)"));
    }
    if document.value("quantization_config").is_some() {
        return Err(document.wrong("quantization_config", "none (import the unquantised checkpoint)"));
    }
    for field in ["rope_scaling", "rope_parameters"] {
        let kinds = ["type", "rope_type"].map(|kind| format!("{field}.{kind}"));
        if let Some(kind) = kinds.iter().find(|kind| document.value(kind).is_some_and(|kind| kind != "default")) {
            return Err(document.wrong(kind, "default (rope scaling is not supported)"));
        }
    }
    Ok(())
}
