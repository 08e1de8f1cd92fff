//! The tensors a file holds: names, extents and what their numbers should look like, by family.
//!
//! Names and order are those of llama.cpp's converter; the runtime loads what is planned here.

use super::preset::{Family, Part, Preset};

/// What the numbers of a tensor should look like.
#[derive(Clone, Copy)]
pub(super) enum Init {
    /// Around 0, so that outputs have the size of inputs.
    Matrix,
    /// Around 0, small.
    Bias,
    /// Around 1.
    Norm,
    /// Exactly these.
    Given(&'static [f32]),
}

/// A tensor to be written.
pub(super) struct Planned {
    pub(super) name: String,
    /// Extents, the contiguous one first.
    pub(super) dims: Vec<usize>,
    pub(super) init: Init,
}

impl Preset {
    /// All tensors of `part`, in file order.
    pub(super) fn tensors(&self, part: Part) -> Vec<Planned> {
        let mut plan = Plan { tensors: Vec::new(), biased: matches!(self.family, Family::Phimoe { .. }) };
        let hidden = self.hidden;
        match part {
            Part::Trunk => {
                plan.add("token_embd.weight", &[hidden, self.vocab], Init::Matrix);
                if let Family::Phi3 { long: Some(long), .. } = self.family {
                    for (name, factors) in [("long", long.long), ("short", long.short)] {
                        plan.add(format!("rope_factors_{name}.weight"), &[factors.len()], Init::Given(factors));
                    }
                }
                (0..self.layers).for_each(|n| self.block(n, &mut plan));
                plan.norm("output_norm", hidden);
                if !self.tied {
                    plan.linear("output", hidden, self.vocab);
                }
            }
            Part::Mtp => {
                let n = self.layers;
                self.block(n, &mut plan);
                plan.add(format!("blk.{n}.nextn.eh_proj.weight"), &[2 * hidden, hidden], Init::Matrix);
                for norm in ["enorm", "hnorm", "shared_head_norm"] {
                    plan.add(format!("blk.{n}.nextn.{norm}.weight"), &[hidden], Init::Norm);
                }
            }
        }
        plan.tensors
    }

    /// The tensors of layer `n`.
    fn block(&self, n: usize, plan: &mut Plan) {
        let (hidden, ffn) = (self.hidden, self.ffn);
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let name = |part: &str| format!("blk.{n}.{part}");
        plan.norm(&name("attn_norm"), hidden);
        if let Family::Phi3 { .. } = self.family {
            plan.add(name("attn_qkv.weight"), &[hidden, q + 2 * kv], Init::Matrix);
        } else {
            for (part, rows) in [("attn_q", q), ("attn_k", kv), ("attn_v", kv)] {
                plan.add(name(&format!("{part}.weight")), &[hidden, rows], Init::Matrix);
                plan.add(name(&format!("{part}.bias")), &[rows], Init::Bias);
            }
        }
        plan.linear(&name("attn_output"), q, hidden);
        plan.norm(&name("ffn_norm"), hidden);
        let matrices: &[(&str, &[usize])] = match self.family {
            Family::Qwen2 => &[("ffn_gate", &[hidden, ffn]), ("ffn_up", &[hidden, ffn]), ("ffn_down", &[ffn, hidden])],
            Family::Phi3 { .. } => &[("ffn_up", &[hidden, 2 * ffn]), ("ffn_down", &[ffn, hidden])],
            // The norm's outputs have deviation 1 and so have the router's, hence choices vary from token to token.
            Family::Phimoe { experts } => &[
                ("ffn_gate_inp", &[hidden, experts]),
                ("ffn_gate_exps", &[hidden, ffn, experts]),
                ("ffn_up_exps", &[hidden, ffn, experts]),
                ("ffn_down_exps", &[ffn, hidden, experts]),
            ],
        };
        for (part, dims) in matrices {
            plan.add(name(&format!("{part}.weight")), dims, Init::Matrix);
        }
    }
}

/// A list of tensors that grows.
struct Plan {
    tensors: Vec<Planned>,
    /// Whether norms and linear maps have biases.
    biased: bool,
}

impl Plan {
    fn add(&mut self, name: impl Into<String>, dims: &[usize], init: Init) {
        self.tensors.push(Planned { name: name.into(), dims: dims.to_vec(), init });
    }

    fn norm(&mut self, name: &str, len: usize) {
        self.add(format!("{name}.weight"), &[len], Init::Norm);
        self.bias(name, len);
    }

    fn linear(&mut self, name: &str, depth: usize, rows: usize) {
        self.add(format!("{name}.weight"), &[depth, rows], Init::Matrix);
        self.bias(name, rows);
    }

    fn bias(&mut self, name: &str, len: usize) {
        if self.biased {
            self.add(format!("{name}.bias"), &[len], Init::Bias);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tensors as in published GGUF files, parameters as in the model cards (factors are none).
    #[test]
    fn presets_have_the_published_sizes() {
        for (name, tensors, parameters) in [
            ("mimo-7b", 435, 7_622_619_136),
            ("phi-4", 243, 14_659_507_200),
            ("phi-4-mini", 196, 3_836_021_760),
            ("phi-mini-moe", 517, 7_647_632_704),
        ] {
            let plan = Preset::find(name).expect("a preset").tensors(Part::Trunk);
            let weights = plan.iter().filter(|tensor| !matches!(tensor.init, Init::Given(_)));
            let count: u64 = weights.map(|tensor| tensor.dims.iter().product::<usize>() as u64).sum();
            assert_eq!((plan.len(), count), (tensors, parameters), "{name}");
        }
    }
}
