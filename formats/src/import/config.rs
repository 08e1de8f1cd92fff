//! The part of `config.json` that every decoder has: sizes, bounds on them, and the metadata keys they become.

use super::document::Document;
use super::plan::Plan;
use super::tokenizer::MAX_VOCAB;
use super::weights::Weights;
use crate::FormatError;

/// Largest width of a matrix accepted; the product of two counts below these bounds fits in 64 bits.
pub(super) const MAX_WIDTH: usize = 1 << 20;
const MAX_LAYERS: usize = 1024;
/// Longest context accepted, in tokens.
pub(super) const MAX_CONTEXT: usize = 1 << 24;

/// (GGUF, Hugging Face) names of a layer's norms, less suffix.
pub(super) const NORMS: [(&str, &str); 2] =
    [("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm")];

/// The hyperparameters, by their names in kernels and graphs.
pub(super) struct Config {
    pub(super) layers: usize,
    pub(super) hidden: usize,
    pub(super) ffn: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) context: usize,
    pub(super) vocab: usize,
    /// Added to the variance in a norm, whichever norm it is.
    pub(super) norm_eps: f32,
    pub(super) rope_base: f32,
    pub(super) tied: bool,
}

impl Config {
    /// Reads the common fields; refuses activations and quantised weights that no graph here computes.
    pub(super) fn read(document: &Document) -> Result<Self, FormatError> {
        if document.value("hidden_act").is_some_and(|act| act != "silu") {
            return Err(document.wrong("hidden_act", "silu"));
        }
        if document.value("quantization_config").is_some() {
            return Err(document.wrong("quantization_config", "none (import the unquantised checkpoint)"));
        }
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
        Ok(Self {
            layers: document.count("num_hidden_layers", 1..=MAX_LAYERS)?,
            hidden,
            ffn: document.count("intermediate_size", 1..=MAX_WIDTH)?,
            heads,
            kv_heads,
            head_dim,
            context: document.count("max_position_embeddings", 1..=MAX_CONTEXT)?,
            vocab: document.count("vocab_size", 1..=MAX_VOCAB)?,
            norm_eps: document.positive("rms_norm_eps")?,
            // Up to transformers 4 the base is a field of its own, afterwards one of the rope parameters.
            rope_base: document.positive(document.either("rope_parameters.rope_theta", "rope_theta"))?,
            tied: document.flag_or("tie_word_embeddings", false)?,
        })
    }

    /// Rows of the query projection, and of the key projection as of the value projection.
    pub(super) fn attention_rows(&self) -> (usize, usize) {
        (self.heads * self.head_dim, self.kv_heads * self.head_dim)
    }

    /// Puts the keys that every architecture has; `blocks` may count more than the trunk's layers.
    pub(super) fn put_metadata(&self, plan: &mut Plan, blocks: usize) {
        for (name, count) in [
            ("block_count", blocks),
            ("context_length", self.context),
            ("embedding_length", self.hidden),
            ("feed_forward_length", self.ffn),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.kv_heads),
            ("attention.key_length", self.head_dim),
            ("attention.value_length", self.head_dim),
        ] {
            plan.put_count(name, count);
        }
        plan.put_own("rope.freq_base", self.rope_base);
        plan.put_own("attention.layer_norm_rms_epsilon", self.norm_eps);
    }

    /// Drops tables that old versions of transformers saved, and a head that repeats the tied embedding.
    pub(super) fn discard_unneeded(&self, weights: &mut Weights) {
        weights.discard(|name| name.ends_with("rotary_emb.inv_freq") || self.tied && name == "lm_head.weight");
    }

    /// Takes what stands before and after the layers: embedding, last norm and, unless it is the embedding, the head.
    pub(super) fn take_ends(&self, weights: &mut Weights, plan: &mut Plan) -> Result<(), FormatError> {
        plan.take(weights, "token_embd.weight", "model.embed_tokens.weight", &[self.vocab, self.hidden])?;
        plan.take(weights, "output_norm.weight", "model.norm.weight", &[self.hidden])?;
        if self.tied {
            return Ok(());
        }
        plan.take(weights, "output.weight", "lm_head.weight", &[self.vocab, self.hidden])
    }
}
