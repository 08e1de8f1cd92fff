//! Activations to 8 bits: every tier writes the words that scalar does.

use proptest::prelude::*;

use super::{Rng, cases, tables};
use crate::quantized::{GROUP, MAX_INPUT, WORDS};
use crate::scalar;

/// Compares all tiers on `tokens` tokens that lie `stride` apart.
fn check(x: &[f32], stride: usize, tokens: usize, groups: usize) {
    let mut expected = vec![0x5a5a_5a5a; groups * WORDS * tokens];
    let flags = scalar::quantize::quantize(x, stride, tokens, &mut expected);
    for (isa, table) in tables() {
        let mut found = vec![0xa5a5_a5a5; expected.len()];
        // SAFETY: the table of a CPU that runs it; `tokens` tokens of whole groups.
        let found_flags = unsafe { (table.quantize)(x, stride, tokens, &mut found) };
        assert_eq!(found_flags, flags, "{isa:?}: {tokens} tokens of {groups} groups");
        assert!(found == expected, "{isa:?}: {tokens} tokens of {groups} groups, {x:?}:\n{found:x?}\n{expected:x?}");
    }
}

#[test]
fn extreme_inputs() {
    let tie = [127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, -126.5, 0.49999997, 0.50000006];
    let tiny = [127.0 * 2f32.powi(-96), 2f32.powi(-97), 1.5 * 2f32.powi(-96), 1e-45, -1e-38, f32::MIN_POSITIVE];
    let inputs: [&[f32]; 14] = [
        &[MAX_INPUT, -MAX_INPUT, MAX_INPUT / 256.0, 1.0, -1e-40],
        &[MAX_INPUT.next_up(), 1.0],
        &[-MAX_INPUT.next_up()],
        &tie,
        &tiny,
        &[0.0],
        &[-0.0, 0.0],
        &[127.00001, 1.0],
        &[126.99999, 1.0],
        &[1e-45, -1e-45],
        &[1.0, f32::NAN],
        &[f32::NEG_INFINITY, 2.0],
        &[f32::MAX, f32::MIN],
        &[1.0, -127.0, 127.0],
    ];
    for (i, input) in inputs.iter().enumerate() {
        for tokens in 1..=4 {
            // The other tokens have other inputs.
            let x: Vec<f32> = (0..tokens)
                .flat_map(|t| inputs[(i + 5 * t) % inputs.len()].iter().cycle().take(3 * GROUP).copied())
                .collect();
            check(&x, 3 * GROUP, tokens, 3);
        }
        let alone: Vec<f32> = input.iter().cycle().take(GROUP).copied().collect();
        check(&alone, GROUP, 1, 1);
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_inputs(tokens in 1..5usize, groups in 0..5usize, more in 0..3usize, spread in 0..60i32, seed: u64) {
        let mut rng = Rng(seed);
        let stride = (groups + more) * GROUP;
        prop_assume!(stride > 0);
        let x: Vec<f32> = (0..tokens * stride)
            .map(|_| rng.float() * 2f32.powi(rng.below(spread as usize + 1) as i32 - spread / 2))
            .collect();
        check(&x, stride, tokens, groups);
    }
}

/// Neither inputs nor words beside the given ones are touched.
#[cfg(all(unix, not(miri)))]
#[test]
fn nothing_beside_is_touched() {
    use super::guard::{Guarded, Side};

    for side in [Side::Before, Side::After] {
        for tokens in 1..=4 {
            let stride = 3 * GROUP;
            // The last token ends with its groups.
            let x = Guarded::new(&vec![1.5f32; (tokens - 1) * stride + GROUP], side);
            for (isa, table) in tables() {
                let mut words = Guarded::new(&vec![0u32; WORDS * tokens], side);
                // SAFETY: the table of a CPU that runs it; `tokens` tokens of one group.
                let flags = unsafe { (table.quantize)(&x, stride, tokens, &mut words) };
                assert_eq!(flags, 0, "{isa:?}");
            }
        }
    }
}
