//! Shapes of real models, and the tensors a file of that shape holds.
//!
//! Names, extents and metadata keys are those of GGUF files of the `qwen2` family; the runtime loads what is planned
//! here by the same names.

use halfbyte_formats::gguf::Value;

/// A model's hyperparameters.
pub(super) struct Preset {
    /// Its name on the command line.
    pub(super) name: &'static str,
    layers: usize,
    hidden: usize,
    ffn: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    /// Rows of the embedding and of the head.
    pub(super) vocab: usize,
    context: u32,
    rope_base: f32,
    rms_eps: f32,
    /// Whether the embedding is also the head.
    pub(super) tied: bool,
}

/// Every preset.
pub(super) const PRESETS: &[Preset] = &[
    Preset {
        name: "mimo-7b",
        layers: 36,
        hidden: 4096,
        ffn: 11008,
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
        vocab: 151_680,
        context: 32_768,
        rope_base: 640_000.0,
        rms_eps: 1e-5,
        tied: false,
    },
    Preset {
        name: "qwen2-0.5b",
        layers: 24,
        hidden: 896,
        ffn: 4864,
        heads: 14,
        kv_heads: 2,
        head_dim: 64,
        vocab: 151_936,
        context: 32_768,
        rope_base: 1_000_000.0,
        rms_eps: 1e-6,
        tied: true,
    },
    // Every kernel and every block format runs on it, in a moment.
    Preset {
        name: "qwen2-tiny",
        layers: 2,
        hidden: 256,
        ffn: 768,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        vocab: 1024,
        context: 2048,
        rope_base: 10_000.0,
        rms_eps: 1e-6,
        tied: false,
    },
];

/// What the numbers of a tensor should look like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Init {
    /// Around 0, so that outputs have the size of inputs.
    Matrix,
    /// Around 0, small.
    Bias,
    /// Around 1.
    Norm,
}

/// A tensor to be written.
pub(super) struct Planned {
    pub(super) name: String,
    /// Extents, the contiguous one first.
    pub(super) dims: Vec<usize>,
    pub(super) init: Init,
}

/// Which file of a model.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The model itself.
    Trunk,
    /// The multi-token-prediction layer alone, as layer number `layers`.
    Mtp,
}

impl Preset {
    /// The preset of that name.
    pub(super) fn find(name: &str) -> Result<&'static Self, String> {
        PRESETS.iter().find(|preset| preset.name == name).ok_or_else(|| {
            let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
            format!("expected one of {}", names.join(", "))
        })
    }

    /// Layers of the trunk.
    pub(super) fn layers(&self) -> usize {
        self.layers
    }

    /// Metadata, without the vocabulary; `file_type` is that of the number format.
    pub(super) fn metadata(&self, part: Part, file_type: u32) -> Vec<(String, Value)> {
        let mut entries: Vec<(String, Value)> = vec![
            ("general.architecture".into(), "qwen2".into()),
            ("general.name".into(), format!("{} with random weights", self.name).into()),
            ("general.quantization_version".into(), 2u32.into()),
            ("general.file_type".into(), file_type.into()),
        ];
        let mut put = |name: &str, value: Value| entries.push((format!("qwen2.{name}"), value));
        // None of the sizes above comes near the limit of a u32.
        let count = |value: usize| Value::U32(value as u32);
        put("block_count", count(self.layers + usize::from(part == Part::Mtp)));
        put("context_length", self.context.into());
        put("embedding_length", count(self.hidden));
        put("feed_forward_length", count(self.ffn));
        put("attention.head_count", count(self.heads));
        put("attention.head_count_kv", count(self.kv_heads));
        put("attention.key_length", count(self.head_dim));
        put("attention.value_length", count(self.head_dim));
        put("attention.layer_norm_rms_epsilon", self.rms_eps.into());
        put("rope.freq_base", self.rope_base.into());
        if part == Part::Mtp {
            put("nextn_predict_layers", count(1));
            entries.push(("mimo.mtp.concat_order".into(), "token_hidden".into()));
        }
        entries
    }

    /// All tensors of `part`, in file order.
    pub(super) fn tensors(&self, part: Part) -> Vec<Planned> {
        let mut plan = Vec::new();
        let mut add = |name: String, dims: &[usize], init| plan.push(Planned { name, dims: dims.to_vec(), init });
        let hidden = self.hidden;
        match part {
            Part::Trunk => {
                add("token_embd.weight".into(), &[hidden, self.vocab], Init::Matrix);
                (0..self.layers).for_each(|n| self.block(n, &mut add));
                add("output_norm.weight".into(), &[hidden], Init::Norm);
                if !self.tied {
                    add("output.weight".into(), &[hidden, self.vocab], Init::Matrix);
                }
            }
            Part::Mtp => {
                let n = self.layers;
                self.block(n, &mut add);
                add(format!("blk.{n}.nextn.eh_proj.weight"), &[2 * hidden, hidden], Init::Matrix);
                for norm in ["enorm", "hnorm", "shared_head_norm"] {
                    add(format!("blk.{n}.nextn.{norm}.weight"), &[hidden], Init::Norm);
                }
            }
        }
        plan
    }

    /// The tensors of layer `n`.
    fn block(&self, n: usize, add: &mut impl FnMut(String, &[usize], Init)) {
        let (hidden, ffn) = (self.hidden, self.ffn);
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let name = |part: &str| format!("blk.{n}.{part}");
        add(name("attn_norm.weight"), &[hidden], Init::Norm);
        for (part, rows) in [("attn_q", q), ("attn_k", kv), ("attn_v", kv)] {
            add(name(&format!("{part}.weight")), &[hidden, rows], Init::Matrix);
            add(name(&format!("{part}.bias")), &[rows], Init::Bias);
        }
        add(name("attn_output.weight"), &[q, hidden], Init::Matrix);
        add(name("ffn_norm.weight"), &[hidden], Init::Norm);
        add(name("ffn_gate.weight"), &[hidden, ffn], Init::Matrix);
        add(name("ffn_up.weight"), &[hidden, ffn], Init::Matrix);
        add(name("ffn_down.weight"), &[ffn, hidden], Init::Matrix);
    }
}
