//! A model that is hardly more than a layer of experts, of any size.

use halfbyte_formats::QuantType;

use crate::{Golden, Part, Parts};

/// Experts of the layer, as of every Phi-MoE model.
pub const EXPERTS: usize = 16;
/// Width of the only head of attention.
const HEAD: usize = 32;

/// Numbers spread over ±1, always the same.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 32
    }

    fn values(&mut self, len: usize, scale: f32) -> Vec<f32> {
        (0..len).map(|_| scale * ((self.next() & 0xff_ffff) as f32 / (1u32 << 23) as f32 - 1.0)).collect()
    }

    /// Blocks of Q4_0 whose values have a deviation of about `1 / sqrt(depth)`.
    fn q4_0(&mut self, rows: usize, depth: usize) -> Vec<u8> {
        let mut scale = [0; 18];
        let largest: Vec<f32> = (0..32).map(|i| if i == 0 { -2.0 / (depth as f32).sqrt() } else { 0.0 }).collect();
        halfbyte_formats::quant::encode(QuantType::Q4_0, &largest, &mut scale).expect("a block");
        let mut data = vec![0; rows * depth / 32 * 18];
        for block in data.chunks_exact_mut(18) {
            block[..2].copy_from_slice(&scale[..2]);
            block[2..10].copy_from_slice(&self.next().wrapping_mul(0x1_0000_0001).to_le_bytes());
            block[10..].copy_from_slice(&self.next().wrapping_mul(0x1_0000_0001).to_le_bytes());
        }
        data
    }
}

/// A `phimoe` model of one layer: experts of `(hidden, ffn)` in Q4_0, multiples of 32, and an attention that takes next
/// to no time. The router sends tokens here and there, or all to the same two experts.
#[must_use]
pub fn experts_model(hidden: usize, ffn: usize, vocab: usize, forced: Option<[usize; 2]>) -> Parts {
    let mut parts = Parts::of(&Golden::named("phimoe").gguf);
    parts.tensors.clear();
    for (key, value) in [
        ("phimoe.block_count", 1),
        ("phimoe.embedding_length", hidden),
        ("phimoe.feed_forward_length", ffn),
        ("phimoe.attention.head_count", 1),
        ("phimoe.attention.head_count_kv", 1),
        ("phimoe.attention.key_length", HEAD),
        ("phimoe.rope.dimension_count", HEAD),
    ] {
        parts.put(key, u32::try_from(value).expect("small"));
    }
    let mut random = Random(1);
    let scale = (3.0 / hidden as f32).sqrt();
    let ones = vec![1.0; hidden];
    let zeros = vec![0.0; hidden];
    // Nothing but the bias comes out of a norm with the weight 0.
    let ffn_norm = if forced.is_some() { [&zeros, &ones] } else { [&ones, &zeros] };
    for (name, [weight, bias]) in [("blk.0.attn_norm", [&ones, &zeros]), ("blk.0.ffn_norm", ffn_norm)] {
        parts.add_tensor(&format!("{name}.weight"), &[hidden], weight);
        parts.add_tensor(&format!("{name}.bias"), &[hidden], bias);
    }
    for (name, depth, rows) in [
        ("token_embd", hidden, vocab),
        ("blk.0.attn_q", hidden, HEAD),
        ("blk.0.attn_k", hidden, HEAD),
        ("blk.0.attn_v", hidden, HEAD),
        ("blk.0.attn_output", HEAD, hidden),
        ("output", hidden, vocab),
    ] {
        let weight = random.values(depth * rows, if name == "token_embd" { 1.0 } else { scale });
        parts.add_tensor(&format!("{name}.weight"), &[depth, rows], &weight);
        if name != "token_embd" {
            parts.add_tensor(&format!("{name}.bias"), &[rows], &vec![0.0; rows]);
        }
    }
    let router = match forced {
        None => random.values(EXPERTS * hidden, scale),
        Some([first, second]) => (0..EXPERTS)
            .flat_map(|expert| {
                let score = f32::from(expert == first) * 2.0 + f32::from(expert == second);
                vec![score / hidden as f32; hidden]
            })
            .collect(),
    };
    parts.add_tensor("blk.0.ffn_gate_inp.weight", &[hidden, EXPERTS], &router);
    for (part, depth, rows) in [("gate", hidden, ffn), ("up", hidden, ffn), ("down", ffn, hidden)] {
        let data = random.q4_0(EXPERTS * rows, depth);
        let name = format!("blk.0.ffn_{part}_exps.weight");
        parts.tensors.push(Part { name, dims: vec![depth, rows, EXPERTS], ty: QuantType::Q4_0, data });
    }
    parts.add_tensor("output_norm.weight", &[hidden], &ones);
    parts.add_tensor("output_norm.bias", &[hidden], &zeros);
    parts
}
