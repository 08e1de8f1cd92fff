//! Small files of every family that are right in most places, so that many load and all that load have to run.

use arbitrary::{Arbitrary, Result, Unstructured};
use halfbyte::{Gguf, PackPlan};
use halfbyte_formats::{
    QuantType,
    gguf::{Array, GgufWriter, Value},
};

const TYPES: [QuantType; 9] = [
    QuantType::F32,
    QuantType::F16,
    QuantType::BF16,
    QuantType::Q4_0,
    QuantType::Q5_0,
    QuantType::Q8_0,
    QuantType::Q5_1,
    QuantType::IQ4_NL,
    QuantType::MXFP4,
];

/// A hyperparameter: right in most cases.
#[derive(Debug)]
struct Count(Option<u64>);

impl<'a> Arbitrary<'a> for Count {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Self(match u.int_in_range(0..=23)? {
            0 => Some(*u.choose(&[0, 1, 2, 3, 7, 1 << 20, 1 << 31, u64::MAX])?),
            1 => Some(u.int_in_range(0..=64)?),
            _ => None,
        }))
    }
}

/// Whose graph.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Qwen2,
    Phi3,
    Phimoe,
}

impl Family {
    fn architecture(self) -> &'static str {
        match self {
            Self::Qwen2 => "qwen2",
            Self::Phi3 => "phi3",
            Self::Phimoe => "phimoe",
        }
    }
}

/// A model to be built, and what to do with it.
#[derive(Arbitrary, Debug)]
pub struct Model {
    family: Family,
    longrope: bool,
    /// As llama.cpp computes.
    pub compat: bool,
    layers: u8,
    kv_heads: u8,
    group: u8,
    tied: bool,
    mtp: bool,
    vocabulary: bool,
    counts: [Count; 13],
    floats: [Option<f32>; 3],
    types: Vec<u8>,
    dropped: Option<u8>,
    /// Matrices in panels, where they have some.
    packed: bool,
    /// Bytes of the weights, repeated.
    weights: Vec<u8>,
    /// Bytes of the finished file to be changed.
    patches: Vec<(u32, u8)>,
    /// What to push, one prompt after the other.
    pub prompts: Vec<Vec<u8>>,
    pub text: String,
    pub temperature: Option<f32>,
    pub cut: u8,
}

impl Model {
    /// The file.
    pub fn build(&self) -> Vec<u8> {
        let (hidden, ffn, head_dim, vocab) = (64, 96, 32, 40);
        let layers = 1 + usize::from(self.layers % 2);
        let kv_heads = 1 + usize::from(self.kv_heads % 2);
        let heads = kv_heads * (1 + usize::from(self.group % 3));
        let family = self.family;
        let experts = if family == Family::Phimoe { 4 } else { 0 };
        let mtp = self.mtp && family == Family::Qwen2;
        let blocks = layers + usize::from(mtp);
        let architecture = family.architecture();
        let mut writer = GgufWriter::new();
        let mut put = |key: &str, value: Value| writer.put(key, value).expect("a good key");
        put("general.architecture", Value::String(architecture.into()));
        let right = [
            ("block_count", blocks),
            ("context_length", 64),
            ("embedding_length", hidden),
            ("feed_forward_length", ffn),
            ("attention.head_count", heads),
            ("attention.head_count_kv", kv_heads),
            ("attention.key_length", head_dim),
            ("rope.dimension_count", head_dim),
            ("nextn_predict_layers", usize::from(mtp)),
            ("rope.scaling.original_context_length", 16),
            ("attention.sliding_window", 8),
            ("expert_count", experts),
            ("expert_used_count", experts / 2),
        ];
        for ((key, right), count) in right.iter().zip(&self.counts) {
            let value = count.0.map_or(Value::U32(*right as u32), Value::U64);
            put(&format!("{architecture}.{key}"), value);
        }
        put(&format!("{architecture}.attention.layer_norm_rms_epsilon"), Value::F32(self.floats[0].unwrap_or(1e-5)));
        put(&format!("{architecture}.rope.freq_base"), Value::F32(self.floats[1].unwrap_or(1e4)));
        if let Some(magnitude) = self.floats[2] {
            put(&format!("{architecture}.rope.scaling.attn_factor"), Value::F32(magnitude));
        }
        if self.vocabulary {
            // Single bytes, enough for a text of letters and for tests of what is missing.
            let token = |i: usize| char::from(b'a' + (i % 26) as u8).to_string().repeat(1 + i / 26);
            put("tokenizer.ggml.model", Value::String("gpt2".into()));
            put("tokenizer.ggml.pre", Value::String("qwen2".into()));
            put("tokenizer.ggml.tokens", Value::Array(Array::String((0..vocab).map(token).collect())));
            put("tokenizer.ggml.merges", Value::Array(Array::String(["a a", "b b"].into_iter().collect())));
        }

        let (q, kv) = (heads * head_dim, kv_heads * head_dim);
        let mut tensors: Vec<(String, Vec<usize>)> = vec![("token_embd.weight".into(), vec![hidden, vocab])];
        for n in 0..blocks {
            let mut add = |part: &str, dims: &[usize]| tensors.push((format!("blk.{n}.{part}"), dims.to_vec()));
            add("attn_norm.weight", &[hidden]);
            add("ffn_norm.weight", &[hidden]);
            add("attn_output.weight", &[q, hidden]);
            if family == Family::Phi3 {
                add("attn_qkv.weight", &[hidden, q + 2 * kv]);
            } else {
                for (part, rows) in [("q", q), ("k", kv), ("v", kv)] {
                    add(&format!("attn_{part}.weight"), &[hidden, rows]);
                    add(&format!("attn_{part}.bias"), &[rows]);
                }
            }
            match family {
                Family::Qwen2 => {
                    add("ffn_gate.weight", &[hidden, ffn]);
                    add("ffn_up.weight", &[hidden, ffn]);
                    add("ffn_down.weight", &[ffn, hidden]);
                }
                Family::Phi3 => {
                    add("ffn_up.weight", &[hidden, 2 * ffn]);
                    add("ffn_down.weight", &[ffn, hidden]);
                }
                Family::Phimoe => {
                    add("attn_norm.bias", &[hidden]);
                    add("ffn_norm.bias", &[hidden]);
                    add("attn_output.bias", &[hidden]);
                    add("ffn_gate_inp.weight", &[hidden, experts]);
                    add("ffn_gate_exps.weight", &[hidden, ffn, experts]);
                    add("ffn_up_exps.weight", &[hidden, ffn, experts]);
                    add("ffn_down_exps.weight", &[ffn, hidden, experts]);
                }
            }
            if n == layers {
                for (part, dims) in [
                    ("nextn.enorm.weight", vec![hidden]),
                    ("nextn.hnorm.weight", vec![hidden]),
                    ("nextn.eh_proj.weight", vec![2 * hidden, hidden]),
                    ("nextn.shared_head_norm.weight", vec![hidden]),
                ] {
                    add(part, &dims);
                }
            }
        }
        tensors.push(("output_norm.weight".into(), vec![hidden]));
        if family == Family::Phimoe {
            tensors.push(("output_norm.bias".into(), vec![hidden]));
            tensors.push(("output.bias".into(), vec![vocab]));
        }
        if self.longrope && family != Family::Qwen2 {
            for set in ["long", "short"] {
                tensors.push((format!("rope_factors_{set}.weight"), vec![head_dim / 2]));
            }
        }
        if !self.tied {
            tensors.push(("output.weight".into(), vec![hidden, vocab]));
        }
        if let Some(dropped) = self.dropped {
            tensors.remove(usize::from(dropped) % tensors.len());
        }

        let mut data = Vec::new();
        let mut bytes = self.weights.iter().copied().chain(std::iter::once(1)).cycle();
        for (index, (name, dims)) in tensors.iter().enumerate() {
            let plain = dims.len() == 1;
            let choice = self.types.get(index).copied().unwrap_or(0);
            let ty = if plain { QuantType::F32 } else { TYPES[usize::from(choice) % TYPES.len()] };
            writer.declare(name, dims, ty).expect("a good shape");
            let rows: usize = dims.iter().skip(1).product();
            data.push(bytes.by_ref().take(rows * ty.row_bytes(dims[0]).expect("whole blocks")).collect::<Vec<u8>>());
        }
        let mut stream = writer.write_to(Vec::new()).expect("in memory");
        for ((name, _), data) in tensors.iter().zip(&data) {
            stream.write_tensor(name, data).expect("in memory");
        }
        let mut file = stream.finish().expect("in memory");
        if self.packed
            && let Ok(plain) = Gguf::from_bytes(file.clone())
            && let Ok(plan) = PackPlan::new(&plain)
        {
            file = plan.write_to(Vec::new()).expect("in memory");
        }
        for &(offset, byte) in &self.patches {
            let at = offset as usize % file.len();
            file[at] = byte;
        }
        file
    }
}
