//! Which format each tensor of a model file gets when weights are quantised.
//!
//! Norms, biases, routers and rope factors are tiny and sensitive: always F32. The rest takes the format asked for,
//! or, in a mix, more bits where errors hurt most; `docs/quantising.md` has the mixes as tables. Names are those of
//! GGUF files. Used by the import of checkpoints and by re-quantisation of whole files.

use super::QuantType;

/// A rule from tensor to format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// One format for every matrix.
    Uniform(QuantType),
    /// Q4_0 with Q6_K for the head.
    Q4_0,
    /// Q4_K with Q6_K for the head, and for attention values and down projections of half the layers.
    Q4KM,
    /// Q4_0 with more bits where the model's family needs them.
    Q4Mixed,
}

/// What a mix asks about the model that a tensor belongs to.
#[derive(Clone, Copy, Debug)]
pub struct ModelTraits<'a> {
    /// `general.architecture`.
    pub architecture: &'a str,
    /// Layers, without those for multi-token prediction.
    pub layers: usize,
    /// Whether the token embedding is also the output head.
    pub tied: bool,
}

impl Mix {
    /// The mixes that are not one format throughout.
    const NAMED: [Self; 3] = [Self::Q4_0, Self::Q4KM, Self::Q4Mixed];

    /// The mix of this name: `q4_0`, `q4_k_m`, `q4_mixed`, or that of any other format with an encoder; case does not
    /// matter.
    pub fn from_name(name: &str) -> Option<Self> {
        if let Some(mix) = Self::NAMED.into_iter().find(|mix| mix.name().eq_ignore_ascii_case(name)) {
            return Some(mix);
        }
        QuantType::from_name(name).filter(|ty| ty.has_encoder()).map(Self::Uniform)
    }

    /// The lower-case name used on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uniform(ty) => ty.name(),
            Self::Q4_0 => QuantType::Q4_0.name(),
            Self::Q4KM => "q4_k_m",
            Self::Q4Mixed => "q4_mixed",
        }
    }

    /// The number under `general.file_type` (`enum llama_ftype` in llama.cpp), which tools print and nothing depends
    /// on.
    pub const fn file_type(self) -> Option<u32> {
        let number = match self {
            Self::Uniform(QuantType::F32) => 0,
            Self::Uniform(QuantType::F16) => 1,
            Self::Q4_0 | Self::Q4Mixed | Self::Uniform(QuantType::Q4_0) => 2,
            Self::Uniform(QuantType::Q8_0) => 7,
            Self::Uniform(QuantType::Q5_0) => 8,
            Self::Uniform(QuantType::Q4_K) => 14,
            Self::Q4KM => 15,
            Self::Uniform(QuantType::Q6_K) => 18,
            Self::Uniform(QuantType::BF16) => 32,
            Self::Uniform(_) => return None,
        };
        Some(number)
    }

    /// The format for the tensor `name` of extents `dims` (the contiguous one first) in `model`.
    ///
    /// Rows that are not whole blocks of the format chosen fall back to a finer one with smaller blocks
    /// (`tensor_type_fallback` in llama.cpp).
    pub fn tensor_type(self, name: &str, dims: &[usize], model: ModelTraits<'_>) -> QuantType {
        let &[row, _, ..] = dims else { return QuantType::F32 };
        if name.ends_with("_norm.weight") || name.ends_with("ffn_gate_inp.weight") || name.starts_with("rope_factors") {
            return QuantType::F32;
        }
        let wanted = match self {
            Self::Uniform(ty) => ty,
            _ if is_head(name, model.tied) => QuantType::Q6_K,
            Self::Q4_0 => QuantType::Q4_0,
            Self::Q4KM => q4_k_m(name, model.layers),
            Self::Q4Mixed => q4_mixed(name, model),
        };
        fit(wanted, row)
    }
}

/// Whether `name` is the matrix that gives the logits.
fn is_head(name: &str, tied: bool) -> bool {
    name == "output.weight" || tied && name == "token_embd.weight"
}

/// The Q4_K_M rule of llama.cpp (`llama_tensor_get_type` in `llama-quant.cpp`).
fn q4_k_m(name: &str, n_layers: usize) -> QuantType {
    let Some((layer, part)) = layer_part(name) else { return QuantType::Q4_K };
    let sensitive = ["attn_v.weight", "attn_qkv.weight", "ffn_down.weight", "ffn_down_exps.weight"].contains(&part);
    let more_bits = |i: usize| i < n_layers / 8 || i >= n_layers - n_layers.div_ceil(8) || (i - n_layers / 8) % 3 == 2;
    if sensitive && layer.parse().is_ok_and(more_bits) { QuantType::Q6_K } else { QuantType::Q4_K }
}

/// Our own rule: what is small in a layer gets more bits, and what a family is known to need.
fn q4_mixed(name: &str, model: ModelTraits<'_>) -> QuantType {
    match (layer_part(name).map(|(_, part)| part), model.architecture) {
        (Some("attn_k.weight" | "attn_v.weight" | "attn_output.weight"), _) => QuantType::Q6_K,
        // Beside sixteen experts all of attention is small.
        (Some("attn_q.weight" | "attn_qkv.weight"), "phimoe") => QuantType::Q6_K,
        // Phi-4-mini, the one with a tied head: with 4 bits here it came to repeat itself, with 8 it did not
        // (github.com/apple/coreai-models, pull request 256).
        (Some("ffn_down.weight"), "phi3") if model.tied => QuantType::Q8_0,
        _ => QuantType::Q4_0,
    }
}

/// The number of a layer, and the name of a tensor in it.
fn layer_part(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix("blk.")?.split_once('.')
}

/// `ty`, or the nearest format whose blocks divide a row of `row` elements.
fn fit(ty: QuantType, row: usize) -> QuantType {
    if row.is_multiple_of(ty.block_len()) {
        return ty;
    }
    let finer = match ty {
        QuantType::Q4_K => QuantType::Q5_0,
        QuantType::Q5_K => QuantType::Q5_1,
        QuantType::Q6_K => QuantType::Q8_0,
        QuantType::Q2_K | QuantType::Q3_K => QuantType::Q4_0,
        QuantType::IQ4_XS => QuantType::IQ4_NL,
        _ => QuantType::F16,
    };
    fit(finer, row)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traits(architecture: &str, layers: usize, tied: bool) -> ModelTraits<'_> {
        ModelTraits { architecture, layers, tied }
    }

    #[test]
    fn q4_k_m_follows_the_table() {
        let ty = |name: &str, dims: &[usize], tied| Mix::Q4KM.tensor_type(name, dims, traits("qwen2", 36, tied));
        assert_eq!(ty("output.weight", &[4096, 151_680], false), QuantType::Q6_K);
        assert_eq!(ty("token_embd.weight", &[4096, 151_680], false), QuantType::Q4_K);
        assert_eq!(ty("token_embd.weight", &[4096, 151_680], true), QuantType::Q6_K);
        assert_eq!(ty("blk.9.attn_q.weight", &[4096, 4096], false), QuantType::Q4_K);
        assert_eq!(ty("blk.9.attn_norm.weight", &[4096], false), QuantType::F32);
        assert_eq!(ty("blk.9.ffn_gate_inp.weight", &[4096, 16], false), QuantType::F32);
        let six_bits = |name: &str| {
            (0..36).filter(|i| ty(&format!("blk.{i}.{name}"), &[4096, 1024], false) == QuantType::Q6_K).count()
        };
        assert_eq!(["attn_v.weight", "ffn_down.weight", "ffn_up.weight"].map(six_bits), [18, 18, 0]);
        for early in [0, 1, 2, 3, 6, 9, 31] {
            assert_eq!(ty(&format!("blk.{early}.attn_v.weight"), &[4096, 1024], false), QuantType::Q6_K, "{early}");
        }
    }

    /// Both numbers come from files.
    #[test]
    fn q4_k_m_takes_any_number_of_layers() {
        for (layers, last) in [(0, 0), (1, 0), (usize::MAX, usize::MAX - 1), (usize::MAX, usize::MAX)] {
            let name = format!("blk.{last}.ffn_down.weight");
            assert_eq!(Mix::Q4KM.tensor_type(&name, &[256, 4], traits("qwen2", layers, false)), QuantType::Q6_K);
        }
    }

    #[test]
    fn q4_0_keeps_a_fine_head() {
        let mix = Mix::from_name("Q4_0").expect("a mix");
        let ty = |name: &str, row, tied| mix.tensor_type(name, &[row, 1024], traits("qwen2", 36, tied));
        assert_eq!(ty("output.weight", 4096, false), QuantType::Q6_K);
        assert_eq!(ty("token_embd.weight", 4096, false), QuantType::Q4_0);
        assert_eq!(ty("token_embd.weight", 896, true), QuantType::Q8_0);
        assert_eq!(ty("blk.0.attn_v.weight", 4096, false), QuantType::Q4_0);
        assert_eq!((mix.name(), mix.file_type()), ("q4_0", Some(2)));
    }

    #[test]
    fn half_of_the_layers_get_more_bits() {
        for (layers, expected) in [(32, 16), (36, 18), (40, 20)] {
            let is_six = |i: &usize| {
                let name = format!("blk.{i}.ffn_down_exps.weight");
                Mix::Q4KM.tensor_type(&name, &[512, 64, 16], traits("phimoe", layers, false)) == QuantType::Q6_K
            };
            assert_eq!((0..layers).filter(is_six).count(), expected, "{layers} layers");
        }
    }

    #[test]
    fn rows_that_are_not_whole_blocks_fall_back() {
        let model = traits("phimoe", 32, false);
        let down = |row| Mix::Q4KM.tensor_type("blk.4.ffn_down_exps.weight", &[row, 4096, 16], model);
        assert_eq!([1024, 960, 448, 48].map(down), [QuantType::Q4_K, QuantType::Q5_0, QuantType::Q5_0, QuantType::F16]);
        let early = Mix::Q4KM.tensor_type("blk.0.ffn_down_exps.weight", &[960, 4096, 16], model);
        assert_eq!(early, QuantType::Q8_0);
        let uniform = |ty| Mix::Uniform(ty).tensor_type("blk.0.attn_q.weight", &[96, 8], model);
        for (ty, expected) in [
            (QuantType::Q2_K, QuantType::Q4_0),
            (QuantType::Q3_K, QuantType::Q4_0),
            (QuantType::Q4_K, QuantType::Q5_0),
            (QuantType::Q5_K, QuantType::Q5_1),
            (QuantType::Q6_K, QuantType::Q8_0),
            (QuantType::IQ4_XS, QuantType::IQ4_NL),
        ] {
            assert_eq!(uniform(ty), expected, "{ty}");
        }
    }

    /// The table of `docs/quantising.md`.
    #[test]
    fn q4_mixed_knows_the_families() {
        let (q4, q6, q8) = (QuantType::Q4_0, QuantType::Q6_K, QuantType::Q8_0);
        let types = |architecture, tied, row, names: &[&str]| -> Vec<QuantType> {
            let model = traits(architecture, 32, tied);
            let name = |part: &&str| format!("blk.5.{part}.weight");
            names.iter().map(|part| Mix::Q4Mixed.tensor_type(&name(part), &[row, 64, 16], model)).collect()
        };
        let split = ["attn_q", "attn_k", "attn_v", "attn_output"];
        assert_eq!(types("qwen2", false, 4096, &split), [q4, q6, q6, q6]);
        assert_eq!(types("phimoe", false, 4096, &split), [q6; 4]);
        assert_eq!(types("phi3", true, 3072, &["attn_qkv", "attn_output", "ffn_up"]), [q4, q6, q4]);
        assert_eq!(types("phimoe", false, 4096, &["attn_qkv", "ffn_gate_inp"]), [q6, QuantType::F32]);
        // Phi-4-mini, Phi-4, MiMo; then the rows of the three Phi-MoE.
        let down = |architecture, tied| types(architecture, tied, 8192, &["ffn_down"]);
        assert_eq!([down("phi3", true), down("phi3", false), down("qwen2", false)].concat(), [q8, q4, q4]);
        for row in [6400, 960, 448] {
            assert_eq!(types("phimoe", false, row, &["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"]), [q4; 3]);
        }
        let embedding = |tied| Mix::Q4Mixed.tensor_type("token_embd.weight", &[3072, 64], traits("phi3", 32, tied));
        assert_eq!([embedding(true), embedding(false)], [q6, q4]);
    }

    #[test]
    fn names_are_invertible() {
        for mix in Mix::NAMED {
            assert_eq!(Mix::from_name(&mix.name().to_uppercase()), Some(mix));
            assert!(mix.file_type().is_some());
        }
        assert_eq!(Mix::from_name("q5_k"), None, "no encoder");
        for ty in QuantType::ALL.into_iter().filter(|ty| ty.has_encoder()) {
            let mix = Mix::Uniform(ty);
            let named = Mix::from_name(mix.name()).expect("a mix");
            assert_eq!(named.name(), mix.name());
            assert_eq!(named == mix, ty != QuantType::Q4_0, "only q4_0 names a mix rather than a format");
            assert!(mix.file_type().is_some(), "{ty}");
        }
    }
}
