//! Phi checkpoints: Phi-4, Phi-4-mini, Phi-tiny-MoE and Phi-3.5-MoE in small.

use std::collections::BTreeMap;

use halfbyte_formats::QuantType;
use halfbyte_formats::gguf::Gguf;
use halfbyte_formats::quant::Mix;
use serde_json::{Value, json};

use super::Fixture;

pub(crate) const HIDDEN: usize = 64;
pub(crate) const FFN: usize = 32;
pub(crate) const LAYERS: usize = 2;
pub(crate) const HEADS: usize = 4;
pub(crate) const KV_HEADS: usize = 2;
pub(crate) const EXPERTS: usize = 4;
/// Rows of the embedding; the last ones belong to no token.
pub(crate) const VOCAB: usize = 280;
const CL100K: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl Fixture {
    /// A config that both architectures share, without tensors and tokenizer.
    fn common(architecture: &str) -> Self {
        Self {
            config: json!({
                "architectures": [architecture], "hidden_size": HIDDEN, "intermediate_size": FFN,
                "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
                "max_position_embeddings": 4096, "vocab_size": VOCAB, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
                "rope_scaling": null, "sliding_window": null, "tie_word_embeddings": false, "hidden_act": "silu"
            }),
            tokenizer: json!(null),
            settings: json!({ "eos_token": "<|endoftext|>" }),
            tensors: BTreeMap::new(),
        }
    }

    /// Phi-4: heads of 16 that rotate as a whole.
    pub(crate) fn phi3() -> Self {
        let mut fixture = Self::common("Phi3ForCausalLM");
        fixture.byte_level(CL100K);
        fixture.add_ends();
        for n in 0..LAYERS {
            fixture.add_phi3_block(n, 16);
        }
        fixture
    }

    /// Phi-4-mini: tied, three quarters of each head rotate, longrope in the layout of transformers 4.
    pub(crate) fn phi4_mini() -> Self {
        let mut fixture = Self::phi3();
        fixture.byte_level(O200K);
        fixture.tensors.remove("lm_head.weight");
        fixture.set(&[
            ("tie_word_embeddings", json!(true)),
            ("max_position_embeddings", json!(131_072)),
            ("original_max_position_embeddings", json!(4096)),
            ("sliding_window", json!(262_144)),
            ("partial_rotary_factor", json!(0.75)),
            ("attention_bias", json!(false)),
            (
                "rope_scaling",
                json!({ "type": "longrope", "long_factor": factors(6, 1.5), "short_factor": vec![1.0; 6] }),
            ),
        ]);
        fixture
    }

    /// Phi-tiny-MoE: heads of 8, less than hidden / heads.
    pub(crate) fn phimoe() -> Self {
        let mut fixture = Self::common("PhiMoEForCausalLM");
        fixture.set(&[
            ("head_dim", json!(8)),
            ("sliding_window", json!(2047)),
            ("attention_bias", json!(true)),
            ("lm_head_bias", json!(true)),
            ("num_local_experts", json!(EXPERTS)),
            ("num_experts_per_tok", json!(2)),
            ("router_jitter_noise", json!(0.01)),
        ]);
        fixture.sentence_piece();
        fixture.add_ends();
        fixture.add("model.norm.bias", &[HIDDEN]);
        fixture.add("lm_head.bias", &[VOCAB]);
        for n in 0..LAYERS {
            fixture.add_phimoe_block(n, 8);
        }
        fixture
    }

    /// Phi-3.5-MoE: longrope with magnitudes of its own.
    pub(crate) fn phi35_moe() -> Self {
        let mut fixture = Self::phimoe();
        fixture.set(&[
            ("max_position_embeddings", json!(131_072)),
            ("original_max_position_embeddings", json!(4096)),
            (
                "rope_scaling",
                json!({
                    "type": "longrope", "long_factor": factors(4, 2.0), "short_factor": factors(4, 1.0),
                    "long_mscale": 1.243_163_121_016_122, "short_mscale": 1.243_163_121_016_122,
                    "original_max_position_embeddings": 4096
                }),
            ),
        ]);
        fixture
    }

    pub(crate) fn set(&mut self, fields: &[(&str, Value)]) {
        for (field, value) in fields {
            self.config[*field] = value.clone();
        }
    }

    fn add_ends(&mut self) {
        self.add("model.embed_tokens.weight", &[VOCAB, HIDDEN]);
        self.add("model.norm.weight", &[HIDDEN]);
        self.add("lm_head.weight", &[VOCAB, HIDDEN]);
    }

    fn add_phi3_block(&mut self, n: usize, head_dim: usize) {
        let (q, kv) = (HEADS * head_dim, KV_HEADS * head_dim);
        for (name, shape) in [
            ("input_layernorm.weight", vec![HIDDEN]),
            ("post_attention_layernorm.weight", vec![HIDDEN]),
            ("self_attn.qkv_proj.weight", vec![q + 2 * kv, HIDDEN]),
            ("self_attn.o_proj.weight", vec![HIDDEN, q]),
            ("mlp.gate_up_proj.weight", vec![2 * FFN, HIDDEN]),
            ("mlp.down_proj.weight", vec![HIDDEN, FFN]),
        ] {
            self.add(&format!("model.layers.{n}.{name}"), &shape);
        }
    }

    fn add_phimoe_block(&mut self, n: usize, head_dim: usize) {
        let (q, kv) = (HEADS * head_dim, KV_HEADS * head_dim);
        let prefix = format!("model.layers.{n}");
        for (name, rows, depth) in [("q", q, HIDDEN), ("k", kv, HIDDEN), ("v", kv, HIDDEN), ("o", HIDDEN, q)] {
            self.add(&format!("{prefix}.self_attn.{name}_proj.weight"), &[rows, depth]);
            self.add(&format!("{prefix}.self_attn.{name}_proj.bias"), &[rows]);
        }
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            self.add(&format!("{prefix}.{norm}.weight"), &[HIDDEN]);
            self.add(&format!("{prefix}.{norm}.bias"), &[HIDDEN]);
        }
        self.add(&format!("{prefix}.block_sparse_moe.gate.weight"), &[EXPERTS, HIDDEN]);
        for e in 0..EXPERTS {
            for (part, shape) in [("w1", [FFN, HIDDEN]), ("w2", [HIDDEN, FFN]), ("w3", [FFN, HIDDEN])] {
                self.add(&format!("{prefix}.block_sparse_moe.experts.{e}.{part}.weight"), &shape);
            }
        }
    }

    fn byte_level(&mut self, split: &str) {
        let byte_token = |byte: u32| char::from_u32(if byte < 128 { byte + 0x100 } else { byte }).unwrap().to_string();
        let vocab: serde_json::Map<String, Value> = (0..256u32).map(|b| (byte_token(b), json!(b))).collect();
        self.tokenizer = json!({
            "added_tokens": [{ "id": 256, "content": "<|endoftext|>", "special": true }],
            "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
                { "type": "Split", "pattern": { "Regex": split }, "behavior": "Isolated", "invert": false },
                { "type": "ByteLevel", "add_prefix_space": false, "use_regex": false }
            ]},
            "model": { "type": "BPE", "vocab": vocab, "merges": [] }
        });
    }

    /// 3 special tokens, 256 bytes, "ab", "▁ab", "abc", then characters, then added tokens.
    pub(crate) fn sentence_piece(&mut self) {
        let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
        let names = ["<unk>", "<s>", "</s>"].map(str::to_owned).into_iter().chain(bytes);
        let names = names.chain(["ab", "▁ab", "abc", "▁", "a", "b", "c"].map(str::to_owned));
        let vocab: serde_json::Map<String, Value> =
            names.zip(0..).map(|(name, id): (_, u32)| (name, id.into())).collect();
        let added =
            [(0, "<unk>"), (1, "<s>"), (2, "</s>"), (266, "<|endoftext|>"), (267, "<|assistant|>"), (268, "<|end|>")];
        let added = added.map(|(id, text)| {
            let strips = !["<unk>", "<s>", "<|endoftext|>"].contains(&text);
            json!({
                "id": id, "content": text, "special": text != "</s>", "rstrip": strips, "lstrip": false,
                "normalized": false, "single_word": false
            })
        });
        self.tokenizer = json!({
            "added_tokens": added,
            "normalizer": { "type": "Sequence", "normalizers": [
                { "type": "Prepend", "prepend": "▁" },
                { "type": "Replace", "pattern": { "String": " " }, "content": "▁" }
            ]},
            "pre_tokenizer": null,
            "post_processor": { "type": "TemplateProcessing", "single": [
                { "SpecialToken": { "id": "<s>", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }
            ]},
            "model": {
                "type": "BPE", "byte_fallback": true, "fuse_unk": true, "unk_token": "<unk>", "vocab": vocab,
                "merges": ["a b", "▁ ab", ["ab", "c"]]
            }
        });
        self.settings = json!({
            "bos_token": "<s>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "add_bos_token": false
        });
    }

    pub(crate) fn gguf(&self, test: &str) -> Gguf {
        let (trunk, mtp) = self.import(test, Mix::Uniform(QuantType::F32));
        assert!(mtp.is_none());
        trunk
    }
}

/// `n` rising factors.
pub(crate) fn factors(n: usize, step: f64) -> Vec<f64> {
    (0..n).map(|i| 1.0 + step * i as f64).collect()
}
