//! Layers of experts against each token alone, bit for bit, and against the formula in f64.

use halfbyte_formats::{Bytes, QuantType, quant};
use halfbyte_kernels::{Isa, Kernels};
use proptest::prelude::*;

use super::*;
use crate::{budget::Budget, cancel::CancelToken, config::ModelConfig, exec::Team};

const HIDDEN: usize = 64;
const FFN: usize = 160;
const EXPERTS: usize = 16;
/// What the inputs of a product lose when they are rounded to 8 bits is 6e-5 of its square; here are three, one after
/// the other two and their product.
const Q8_NMSE: f64 = 4e-4;
const F32_NMSE: f64 = 1e-12;

/// Formats of gate and up, and of down.
const FORMATS: [[QuantType; 2]; 5] = [
    [QuantType::Q4_0, QuantType::Q4_0],
    [QuantType::Q4_0, QuantType::Q8_0],
    [QuantType::F32, QuantType::F32],
    [QuantType::Q8_0, QuantType::F16],
    [QuantType::F16, QuantType::Q4_0],
];

/// Numbers within ±1, always the same.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn take(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.next()).collect()
    }
}

/// A matrix, and what it stands for.
fn matrix(k: &Kernels, ty: QuantType, rows: usize, depth: usize, values: &[f32]) -> (PackedMatrix, Vec<f64>) {
    let mut bytes = vec![0; rows * ty.row_bytes(depth).expect("whole blocks")];
    quant::encode(ty, values, &mut bytes).expect("finite");
    let mut values = vec![0.0; rows * depth];
    quant::decode(ty, &bytes, &mut values).expect("whole blocks");
    let packed = k.pack(ty, rows, depth, Bytes::from(bytes)).expect("a matrix");
    (packed, values.into_iter().map(f64::from).collect())
}

/// A layer, and the values of its experts' matrices.
struct Layer {
    kernels: Kernels,
    moe: Moe,
    values: Vec<[Vec<f64>; 3]>,
    config: ModelConfig,
}

impl Layer {
    /// The score of an expert is the input of its number, so that inputs decide where tokens go.
    fn new(kernels: Kernels, [inner, down]: [QuantType; 2]) -> Self {
        let mut random = Random(1);
        let mut values = Vec::new();
        let experts = (0..EXPERTS)
            .map(|_| {
                let mut of = |ty, rows: usize, depth: usize| {
                    let scale = (3.0 / depth as f32).sqrt();
                    let values: Vec<f32> = random.take(rows * depth).into_iter().map(|value| scale * value).collect();
                    matrix(&kernels, ty, rows, depth, &values)
                };
                let (gate, up, down) = (of(inner, FFN, HIDDEN), of(inner, FFN, HIDDEN), of(down, HIDDEN, FFN));
                values.push([gate.1, up.1, down.1]);
                Expert::new([gate.0, up.0], down.0)
            })
            .collect();
        let mut gate = vec![0.0; EXPERTS * HIDDEN];
        (0..EXPERTS).for_each(|expert| gate[expert * (HIDDEN + 1)] = 1.0);
        let gate = matrix(&kernels, QuantType::F32, EXPERTS, HIDDEN, &gate).0.into();
        let config = ModelConfig {
            architecture: String::new(),
            name: None,
            layers: 1,
            mtp_layers: 0,
            context: 1,
            hidden: HIDDEN,
            ffn: FFN,
            experts: EXPERTS,
            experts_used: EXPERTS_USED,
            heads: 1,
            kv_heads: 1,
            head_dim: 2,
            rope_dim: 2,
            rope_base: 1.0,
            original_context: 1,
            norm_eps: 0.0,
            window: None,
        };
        Self { kernels, moe: Moe::new(gate, Router::Sparsemixer, experts), values, config }
    }

    /// `x` after the layer, for `x` and `h` of any number of tokens.
    fn forward(&self, team: &Team, x: &[f32], h: &[f32]) -> Vec<f32> {
        let tokens = x.len() / HIDDEN;
        let (mut from, middle) = (Budget::default().lease(), !self.moe.is_fused());
        let mut scratch = Scratch::new(&mut from, &self.config, 1, tokens, 1, middle).expect("memory");
        scratch.x.copy_from_slice(x);
        scratch.normed.f32.copy_from_slice(h);
        let cancel = CancelToken::default();
        let exec = Exec::new(&self.kernels, team, &cancel);
        if self.moe.wants_q8() {
            scratch.normed.round(exec, tokens).expect("right shapes");
        }
        self.moe.forward(exec, &mut scratch, tokens).expect("a valid layer");
        scratch.x.to_vec()
    }

    /// The same from the formula.
    fn oracle(&self, x: &[f32], h: &[f32]) -> Vec<f64> {
        let mut out: Vec<f64> = x.iter().copied().map(f64::from).collect();
        for (out, h) in out.chunks_exact_mut(HIDDEN).zip(h.chunks_exact(HIDDEN)) {
            let routes = Router::Sparsemixer.choose(&h[..EXPERTS]);
            let h: Vec<f64> = h.iter().copied().map(f64::from).collect();
            let product = |w: &[f64], x: &[f64]| -> Vec<f64> {
                w.chunks_exact(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
            };
            for (expert, weight) in routes {
                let [gate, up, down] = &self.values[expert];
                let (gate, up) = (product(gate, &h), product(up, &h));
                let inner: Vec<f64> = gate.iter().zip(&up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
                out.iter_mut().zip(product(down, &inner)).for_each(|(out, y)| *out += f64::from(weight) * y);
            }
        }
        out
    }
}

/// Streams, and inputs that send each token to its two experts.
fn tokens(seed: u64, experts: &[[usize; 2]]) -> (Vec<f32>, Vec<f32>) {
    let mut random = Random(seed);
    let x = random.take(experts.len() * HIDDEN);
    let mut h = random.take(experts.len() * HIDDEN);
    for (h, &[first, second]) in h.chunks_exact_mut(HIDDEN).zip(experts) {
        h[..EXPERTS].iter_mut().for_each(|score| *score *= 0.5);
        (h[first], h[second]) = (1.0, 0.9);
    }
    (x, h)
}

/// Where the tokens of a batch go, from even to as uneven as it gets.
fn routings(tokens: usize) -> [Vec<[usize; 2]>; 4] {
    let all = |route: &dyn Fn(usize) -> [usize; 2]| (0..tokens).map(route).collect();
    [
        all(&|token| [2 * token % EXPERTS, (2 * token + 1) % EXPERTS]),
        all(&|_| [11, 3]),
        all(&|token| [5, if token + 1 == tokens { 0 } else { 15 }]),
        all(&|token| [7, (8 + token * token % 15) % EXPERTS]),
    ]
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// The batch has the bits that its tokens have alone, with any number of threads.
fn check(layer: &Layer, teams: &[Team], seed: u64, experts: &[[usize; 2]]) {
    let (x, h) = tokens(seed, experts);
    let alone = x.chunks_exact(HIDDEN).zip(h.chunks_exact(HIDDEN));
    let alone: Vec<f32> = alone.flat_map(|(x, h)| layer.forward(&teams[0], x, h)).collect();
    for team in teams {
        let found = layer.forward(team, &x, &h);
        assert!(bits(&found) == bits(&alone), "{} threads, {experts:?}", team.threads());
    }
}

fn teams() -> Vec<Team> {
    [1, 2, 3].map(|threads| Team::new(threads, None).expect("threads")).into()
}

#[test]
fn a_batch_of_any_size_and_routing_is_its_tokens_alone() {
    let teams = teams();
    for formats in FORMATS {
        let layer = Layer::new(Kernels::detect(), formats);
        for count in [1, 2, 3, 4, 5, 8, 9, 33, 64, 512] {
            for (kind, experts) in (0..).zip(routings(count)) {
                check(&layer, &teams, kind + 10 * count as u64, &experts);
            }
        }
    }
}

#[test]
fn every_isa_is_near_the_formula() {
    for formats in FORMATS {
        for isa in Isa::available() {
            let layer = Layer::new(Kernels::with_isa(isa).expect("available"), formats);
            let team = Team::new(2, None).expect("threads");
            for (kind, experts) in (1..).zip(routings(21)) {
                let (x, h) = tokens(kind, &experts);
                let (found, truth) = (layer.forward(&team, &x, &h), layer.oracle(&x, &h));
                let square = |value: f64| value * value;
                // Of what the layer adds, not of the stream that it adds to.
                let error: f64 = found.iter().zip(&truth).map(|(&a, &b)| square(f64::from(a) - b)).sum();
                let all: f64 = truth.iter().zip(&x).map(|(&a, &b)| square(a - f64::from(b))).sum();
                let limit = if layer.moe.wants_q8() || layer.moe.rounds_inner { Q8_NMSE } else { F32_NMSE };
                println!("{} {formats:?} {kind}: {:.1e}", isa.name(), error / all);
                assert!(error <= limit * all, "{} {formats:?} {kind}: {:.1e}", isa.name(), error / all);
            }
        }
    }
}

/// An input that is no number reaches its own token only.
#[test]
fn a_damaged_token_leaves_the_others_alone() {
    let (layer, team) = (Layer::new(Kernels::detect(), FORMATS[0]), Team::new(2, None).expect("threads"));
    let experts = &routings(9)[1];
    let (x, mut h) = tokens(5, experts);
    let expected = layer.forward(&team, &x, &h);
    h[4 * HIDDEN + 40] = f32::NAN;
    let found = layer.forward(&team, &x, &h);
    for (token, (found, expected)) in found.chunks_exact(HIDDEN).zip(expected.chunks_exact(HIDDEN)).enumerate() {
        if token == 4 {
            assert!(found.iter().all(|value| value.is_nan()));
        } else {
            assert_eq!(bits(found), bits(expected), "{token}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_routing_is_its_tokens_alone(
        format in 0..FORMATS.len(),
        seed in any::<u64>(),
        experts in prop::collection::vec((0..EXPERTS, 1..EXPERTS), 1..80),
    ) {
        let experts: Vec<[usize; 2]> = experts.into_iter().map(|(a, b)| [a, (a + b) % EXPERTS]).collect();
        check(&Layer::new(Kernels::detect(), FORMATS[format]), &teams(), seed, &experts);
    }
}
