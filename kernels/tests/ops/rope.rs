//! Rotary position embedding.

use halfbyte_kernels::ops;

use crate::common::{ROUNDING, Rng, assert_close, bits, for_each_isa, guarded_in_place};

/// Two products and a sum.
const ROUNDINGS: f64 = 3.0;

fn check(heads: usize, head_dim: usize, n_rot: usize) {
    let half = n_rot / 2;
    let mut rng = Rng((heads * 1000 + n_rot) as u64);
    let x = rng.floats(heads * head_dim);
    let (sin, cos): (Vec<f32>, Vec<f32>) = rng.floats(half).iter().map(|angle| (angle * 3.0).sin_cos()).unzip();
    for_each_isa(|k| {
        let out = guarded_in_place(&x, |x| ops::rope_neox(k, x, head_dim, &cos, &sin).expect("right shapes"));
        for (x, out) in x.chunks(head_dim).zip(out.chunks(head_dim)) {
            for i in 0..half {
                let [a, b, c, s] = [x[i], x[i + half], cos[i], sin[i]].map(f64::from);
                let bound = ROUNDINGS * ROUNDING * (a.abs() + b.abs());
                assert_close("first of pair", i, out[i], a * c - b * s, bound);
                assert_close("second of pair", i, out[i + half], b * c + a * s, bound);
            }
            assert_eq!(bits(&out[n_rot..]), bits(&x[n_rot..]), "dimensions that are not rotated");
        }
    });
}

#[test]
fn whole_heads() {
    let sizes = [2, 8, 30, 32, 34, 62, 64, 66, 80, 96, 128, 256];
    for head_dim in sizes.into_iter().take(if cfg!(miri) { 2 } else { 12 }) {
        for heads in [0, 1, 3] {
            check(heads, head_dim, head_dim);
        }
    }
}

#[test]
fn partial() {
    for (head_dim, n_rot) in [(128, 64), (80, 32), (96, 2), (7, 6), (64, 0)] {
        check(2, head_dim, n_rot);
    }
}
