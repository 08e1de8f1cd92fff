//! Shapes of real models, and the metadata of a file of that shape.
//!
//! Sizes as in the published `config.json`s; metadata keys are those of GGUF files of the family, and the runtime
//! loads what is planned here by the same names.

use halfbyte_formats::{
    gguf::{Value, longrope_attn_factor},
    quant::ModelTraits,
};

/// A model's hyperparameters.
pub(super) struct Preset {
    /// Its name on the command line.
    pub(super) name: &'static str,
    pub(super) family: Family,
    pub(super) layers: usize,
    pub(super) hidden: usize,
    pub(super) ffn: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    /// Rows of the embedding and of the head.
    pub(super) vocab: usize,
    context: u32,
    /// Positions a query sees, 0 for all.
    window: u32,
    rope_base: f32,
    norm_eps: f32,
    /// Whether the embedding is also the head.
    pub(super) tied: bool,
}

/// What a family has that others do not.
#[derive(Clone, Copy)]
pub(super) enum Family {
    /// Biases on queries, keys and values.
    Qwen2,
    /// Queries, keys and values in one matrix, gate and up in another.
    Phi3 {
        /// Leading elements of a head that are rotated.
        rope_dim: usize,
        long: Option<LongRope>,
    },
    /// Biases everywhere, many experts a layer.
    Phimoe { experts: usize },
}

/// Rotations beyond the context a model was first trained with.
#[derive(Clone, Copy)]
pub(super) struct LongRope {
    original_context: u32,
    /// Divisors of the frequencies up to that context and beyond it, one for each pair of rotated elements.
    pub(super) short: &'static [f32],
    pub(super) long: &'static [f32],
}

/// Phi-4-mini's long factors.
const LONG_FACTORS: [f32; 48] = [
    1.0,
    1.118_320_7,
    1.250_641_1,
    1.398_617_9,
    1.564_103_2,
    1.749_169,
    1.956_131_8,
    2.187_582_6,
    2.446_419,
    2.735_880_9,
    3.059_592,
    3.421_605,
    3.826_451_8,
    4.279_2,
    4.785_518,
    5.351_743_7,
    5.984_965_3,
    6.693_110_5,
    7.485_044,
    8.370_68,
    9.361_104,
    10.468_716,
    11.707_381,
    13.092_607,
    14.641_732,
    16.374_151,
    18.311_553,
    20.478_188,
    22.901_18,
    25.610_865,
    28.641_16,
    32.03,
    32.1,
    32.13,
    32.23,
    32.6,
    32.61,
    32.64,
    32.66,
    32.7,
    32.71,
    32.93,
    32.97,
    33.28,
    33.49,
    33.5,
    44.16,
    47.77,
];

/// Every preset.
pub(super) const PRESETS: &[Preset] = &[
    Preset {
        name: "mimo-7b",
        family: Family::Qwen2,
        layers: 36,
        hidden: 4096,
        ffn: 11008,
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
        vocab: 151_680,
        context: 32_768,
        window: 0,
        rope_base: 640_000.0,
        norm_eps: 1e-5,
        tied: false,
    },
    Preset {
        name: "qwen2-0.5b",
        family: Family::Qwen2,
        layers: 24,
        hidden: 896,
        ffn: 4864,
        heads: 14,
        kv_heads: 2,
        head_dim: 64,
        vocab: 151_936,
        context: 32_768,
        window: 0,
        rope_base: 1_000_000.0,
        norm_eps: 1e-6,
        tied: true,
    },
    Preset {
        name: "phi-4",
        family: Family::Phi3 { rope_dim: 128, long: None },
        layers: 40,
        hidden: 5120,
        ffn: 17_920,
        heads: 40,
        kv_heads: 10,
        head_dim: 128,
        vocab: 100_352,
        context: 16_384,
        window: 0,
        rope_base: 250_000.0,
        norm_eps: 1e-5,
        tied: false,
    },
    Preset {
        name: "phi-4-mini",
        family: Family::Phi3 {
            rope_dim: 96,
            long: Some(LongRope { original_context: 4096, short: &[1.0; 48], long: &LONG_FACTORS }),
        },
        layers: 32,
        hidden: 3072,
        ffn: 8192,
        heads: 24,
        kv_heads: 8,
        head_dim: 128,
        vocab: 200_064,
        context: 131_072,
        window: 262_144,
        rope_base: 10_000.0,
        norm_eps: 1e-5,
        tied: true,
    },
    Preset {
        name: "phi-mini-moe",
        family: Family::Phimoe { experts: 16 },
        layers: 32,
        hidden: 4096,
        ffn: 960,
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
        vocab: 32_064,
        context: 4096,
        window: 2047,
        rope_base: 10_000.0,
        norm_eps: 1e-5,
        tied: false,
    },
    // Every kernel and every block format runs on it, in a moment.
    Preset {
        name: "qwen2-tiny",
        family: Family::Qwen2,
        layers: 2,
        hidden: 256,
        ffn: 768,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        vocab: 1024,
        context: 2048,
        window: 0,
        rope_base: 10_000.0,
        norm_eps: 1e-6,
        tied: false,
    },
    // A part of each head turns, by factors that change in the middle of its context.
    Preset {
        name: "phi3-tiny",
        family: Family::Phi3 {
            rope_dim: 48,
            long: Some(LongRope { original_context: 64, short: &[1.0; 24], long: LONG_FACTORS.split_at(24).0 }),
        },
        layers: 2,
        hidden: 256,
        ffn: 768,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        vocab: 1024,
        context: 2048,
        window: 0,
        rope_base: 10_000.0,
        norm_eps: 1e-5,
        tied: true,
    },
    // Heads narrower than hidden / heads, and experts whose rows are no multiple of 256.
    Preset {
        name: "phimoe-tiny",
        family: Family::Phimoe { experts: 16 },
        layers: 2,
        hidden: 256,
        ffn: 96,
        heads: 2,
        kv_heads: 1,
        head_dim: 64,
        vocab: 1024,
        context: 2048,
        window: 511,
        rope_base: 10_000.0,
        norm_eps: 1e-5,
        tied: false,
    },
];

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

    /// What a mix asks about the model.
    pub(super) fn traits(&self) -> ModelTraits<'static> {
        ModelTraits { architecture: self.family.architecture(), layers: self.layers, tied: self.tied }
    }

    /// Metadata, without the vocabulary; `file_type` is that of the number format.
    pub(super) fn metadata(&self, part: Part, file_type: u32) -> Vec<(String, Value)> {
        let architecture = self.family.architecture();
        let mut entries: Vec<(String, Value)> = vec![
            ("general.architecture".into(), architecture.into()),
            ("general.name".into(), format!("{} with random weights", self.name).into()),
            ("general.quantization_version".into(), 2u32.into()),
            ("general.file_type".into(), file_type.into()),
        ];
        if part == Part::Mtp {
            entries.push(("mimo.mtp.concat_order".into(), "token_hidden".into()));
        }
        let mut put = |name: &str, value: Value| entries.push((format!("{architecture}.{name}"), value));
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
        put("attention.layer_norm_rms_epsilon", self.norm_eps.into());
        put("rope.freq_base", self.rope_base.into());
        if part == Part::Mtp {
            put("nextn_predict_layers", count(1));
        }
        match self.family {
            Family::Qwen2 => {}
            Family::Phi3 { rope_dim, long } => {
                put("attention.sliding_window", self.window.into());
                put("rope.dimension_count", count(rope_dim));
                let original = long.map_or(self.context, |long| long.original_context);
                put("rope.scaling.original_context_length", original.into());
                if long.is_some() {
                    let factor = longrope_attn_factor(self.context as usize, original as usize);
                    put("rope.scaling.attn_factor", factor.into());
                }
            }
            Family::Phimoe { experts } => {
                put("attention.sliding_window", self.window.into());
                put("rope.dimension_count", count(self.head_dim));
                put("rope.scaling.original_context_length", self.context.into());
                put("expert_count", count(experts));
                put("expert_used_count", count(2));
            }
        }
        entries
    }
}

impl Family {
    fn architecture(self) -> &'static str {
        match self {
            Self::Qwen2 => "qwen2",
            Self::Phi3 { .. } => "phi3",
            Self::Phimoe { .. } => "phimoe",
        }
    }
}
