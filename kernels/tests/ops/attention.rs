//! Grouped-query attention.

use std::ops::Range;

use half::f16;
use halfbyte_kernels::{Kernels, KvLayout, KvType, ops};

use crate::common::{ROUNDING, Rng, assert_close, for_each_isa, guarded};

/// A head size for tests that are not about it.
const SMALL_DIM: usize = if cfg!(miri) { 1 } else { 32 };

/// A filled cache: its bytes, and the numbers they stand for.
struct Cache {
    bytes: Vec<u8>,
    values: Vec<f32>,
}

fn fill(k: &Kernels, layout: &KvLayout, spread: f32, rng: &mut Rng) -> Cache {
    let mut bytes = vec![0xff; layout.len_bytes().expect("small")];
    let KvLayout { ty, kv_heads, head_dim, capacity } = *layout;
    let mut values = vec![0.0; kv_heads * capacity * head_dim];
    for pos in 0..capacity {
        let row: Vec<f32> = rng.floats(kv_heads * head_dim).iter().map(|x| x * spread).collect();
        ops::kv_append(k, layout, &mut bytes, pos, &row).expect("fits");
        for (head, row) in row.chunks(head_dim).enumerate() {
            let stored = row.iter().map(|x| if ty == KvType::F16 { f16::from_f32(*x).to_f32() } else { *x });
            values.splice((head * capacity + pos) * head_dim..(head * capacity + pos + 1) * head_dim, stored);
        }
    }
    Cache { bytes, values }
}

struct Case {
    layout: KvLayout,
    heads: usize,
    kv_head: usize,
    visible: Range<usize>,
    spread: f32,
    seed: u64,
}

/// Runs a case; for each element what was found, what `f64` gives, and the error bound.
fn run(k: &Kernels, case: &Case) -> Vec<(f32, f64, f64)> {
    let Case { layout, heads, kv_head, ref visible, spread, seed } = *case;
    let mut rng = Rng(seed);
    let (keys, values) = (fill(k, &layout, spread, &mut rng), fill(k, &layout, spread, &mut rng));
    let dim = layout.head_dim;
    let q = rng.floats(heads * dim);
    let scale = 1.0 / (dim as f32).sqrt();
    let a = ops::AttentionGqa {
        layout: &layout,
        keys: &keys.bytes,
        values: &values.bytes,
        visible: visible.clone(),
        scale,
    };
    let out = guarded(q.len(), |out| ops::attention_gqa(k, &a, kv_head, &q, out).expect("right shapes"));

    let head = kv_head * layout.capacity * dim..(kv_head + 1) * layout.capacity * dim;
    let (keys, values) = (&keys.values[head.clone()], &values.values[head]);
    let mut results = Vec::new();
    for (q, out) in q.chunks(dim).zip(out.chunks(dim)) {
        let score = |j: usize, abs: bool| {
            let products = q.iter().zip(&keys[j * dim..]).map(|(q, k)| f64::from(*q) * f64::from(*k));
            f64::from(scale) * products.map(|p| if abs { p.abs() } else { p }).sum::<f64>()
        };
        let scores: Vec<f64> = visible.clone().map(|j| score(j, false)).collect();
        let largest = visible.clone().map(|j| score(j, true)).fold(0.0, f64::max);
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let powers: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
        let sum: f64 = powers.iter().sum();
        // A score is a dot product, a scaling and a difference; its absolute error is the relative one of its
        // exponential, in the numerator and in the sum.
        let of_score = (dim.div_ceil(16) + 10) as f64 * largest;
        // Sums within a tile, rescaling and adding per tile, exponentials, the final scale.
        let of_sums = (visible.len().min(64) + 4 * visible.len().div_ceil(64) + 12) as f64;
        let bound = (2.0 * of_score + of_sums) * ROUNDING;
        for (d, out) in out.iter().enumerate() {
            let terms = visible.clone().zip(&powers).map(|(j, p)| p / sum * f64::from(values[j * dim + d]));
            let magnitude: f64 = terms.clone().map(f64::abs).sum();
            results.push((*out, terms.sum(), bound * magnitude));
        }
    }
    results
}

fn check(case: &Case) {
    for_each_isa(|k| {
        let Case { layout, heads, kv_head, visible, .. } = case;
        let what = format!("{layout:?} {heads} heads, kv_head {kv_head}, {visible:?}");
        for (i, (found, expected, bound)) in run(k, case).into_iter().enumerate() {
            assert_close(&what, i, found, expected, bound);
        }
    });
}

fn case(ty: KvType, head_dim: usize, heads: usize, visible: Range<usize>) -> Case {
    let layout = KvLayout { ty, kv_heads: 2, head_dim, capacity: visible.end + 3 };
    Case { layout, heads, kv_head: 1, seed: (head_dim + heads + visible.end) as u64, visible, spread: 2.0 }
}

#[test]
fn lengths_and_head_sizes() {
    let lengths: &[usize] = if cfg!(miri) { &[1, 5] } else { &[1, 63, 64, 65, 200] };
    let dims: &[usize] = if cfg!(miri) { &[3] } else { &[1, 20, 32, 64, 80, 96, 128, 300] };
    for ty in [KvType::F32, KvType::F16] {
        for &head_dim in dims {
            for &len in lengths {
                check(&case(ty, head_dim, 2, 0..len));
            }
        }
    }
}

#[test]
fn heads_of_a_group() {
    let groups: &[usize] = if cfg!(miri) { &[9] } else { &[0, 1, 2, 3, 4, 7, 8, 9, 16, 17] };
    for &heads in groups {
        check(&case(KvType::F16, SMALL_DIM, heads, 0..if cfg!(miri) { 3 } else { 70 }));
    }
}

/// Sliding windows, and positions that a causal mask hides.
#[test]
fn windows() {
    let windows = [63..65, 5..6, 63..64, 64..65, 10..100, 64..128, 100..140];
    for visible in windows.into_iter().take(if cfg!(miri) { 1 } else { 7 }) {
        check(&case(KvType::F32, SMALL_DIM, 2, visible));
    }
}

/// Scores of several hundred: one key takes all.
#[test]
fn steep_scores() {
    for spread in [1e-20, 1e2, 1e4] {
        let len = if cfg!(miri) { 4 } else { 130 };
        check(&Case { spread, ..case(KvType::F32, 2 * SMALL_DIM, 3, 0..len) });
    }
}

/// Positions that are not visible may hold anything.
#[test]
fn hidden_positions_are_not_read() {
    for_each_isa(|k| {
        let layout = KvLayout { ty: KvType::F16, kv_heads: 1, head_dim: 16, capacity: 8 };
        // 0xff everywhere is NaN.
        let mut cache = vec![0xff; layout.len_bytes().expect("small")];
        for pos in 2..5 {
            ops::kv_append(k, &layout, &mut cache, pos, &[0.5; 16]).expect("fits");
        }
        let a = ops::AttentionGqa { layout: &layout, keys: &cache, values: &cache, visible: 2..5, scale: 1.0 };
        let out = guarded(16, |out| ops::attention_gqa(k, &a, 0, &[1.0; 16], out).expect("right shapes"));
        assert_eq!(out, [0.5; 16]);
    });
}

/// Normalised mean squared error over a long context.
#[test]
fn four_thousand_keys() {
    const NMSE: f64 = 1e-12;
    const LEN: usize = if cfg!(miri) { 66 } else { 4096 };
    let long = Case {
        layout: KvLayout { ty: KvType::F32, kv_heads: 1, head_dim: 4 * SMALL_DIM, capacity: LEN },
        kv_head: 0,
        ..case(KvType::F32, 4 * SMALL_DIM, 2, 0..LEN)
    };
    for_each_isa(|k| {
        let (mut error, mut power) = (0.0, 0.0);
        for (found, expected, _) in run(k, &long) {
            error += (f64::from(found) - expected).powi(2);
            power += expected.powi(2);
        }
        println!("nmse {:e}", error / power);
        assert!(error / power < NMSE, "nmse {:e}", error / power);
    });
}
