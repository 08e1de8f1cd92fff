//! Writing the key-value cache.

use half::f16;
use halfbyte_kernels::{KV_PAGE, KvLayout, KvPart, KvType, ops};

use crate::common::{Rng, for_each_isa};

fn element(ty: KvType, x: f32) -> Vec<u8> {
    match ty {
        KvType::F32 => x.to_le_bytes().to_vec(),
        KvType::F16 => f16::from_f32(x).to_le_bytes().to_vec(),
        _ => unreachable!("types of this test"),
    }
}

#[test]
fn every_byte_in_its_place() {
    // Heads of less than a vector, of whole ones, and of one and a tail.
    let dims = [5, 16, 21, 64];
    for_each_isa(|k| {
        for dim in dims.into_iter().take(if cfg!(miri) { 1 } else { 4 }) {
            for ty in [KvType::F32, KvType::F16] {
                let layout = KvLayout { ty, kv_heads: 3, head_dim: dim };
                let size = element(ty, 0.0).len();
                assert_eq!(layout.half_bytes(), Ok(KV_PAGE * dim * size));
                assert_eq!(layout.page_bytes(), Ok(6 * KV_PAGE * dim * size));
                let mut half = vec![0xa5u8; KV_PAGE * dim * size];
                let mut expected = half.clone();
                for (slot, part) in [(0, KvPart::Keys), (63, KvPart::Values), (1, KvPart::Keys), (63, KvPart::Keys)] {
                    let mut row = Rng(slot as u64).floats(dim);
                    // Too large, subnormal, a tie, infinite.
                    for (x, special) in row.iter_mut().zip([70000.0, 1e-7, 1.0 + 1.0 / 2048.0, f32::NEG_INFINITY]) {
                        *x = special;
                    }
                    ops::kv_append(k, &layout, part, &mut half, slot, &row).expect("fits");
                    for (i, x) in row.iter().enumerate() {
                        expected[(slot * dim + i) * size..][..size].copy_from_slice(&element(ty, *x));
                    }
                    assert_eq!(half, expected, "{ty:?}, {dim} elements, after slot {slot}");
                }
            }
        }
    });
}

#[test]
fn eight_bits_and_a_scale() {
    let layout = |head_dim| KvLayout { ty: KvType::Int8, kv_heads: 1, head_dim };
    // 0.508 of what f16 takes.
    assert_eq!(layout(128).half_bytes(), Ok(64 * 128 + 64 * 2));
    for_each_isa(|k| {
        for dim in [80, 33, 288, 0] {
            let layout = layout(dim);
            let mut half = vec![0; layout.half_bytes().expect("small")];
            let found = ops::kv_append(k, &layout, KvPart::Keys, &mut half, 0, &vec![0.0; dim]);
            let found = found.expect_err("not a head of 8 bits").to_string();
            assert!(found.contains("head_dim"), "{dim}: {found}");
        }
        // Each position has its own bytes, and the same numbers the same ones wherever else is written.
        let (layout, mut rng) = (layout(96), Rng(7));
        let rows: Vec<_> = (0..KV_PAGE).map(|_| rng.floats(96)).collect();
        for part in [KvPart::Keys, KvPart::Values] {
            let fill = |order: &mut dyn Iterator<Item = usize>| {
                let mut half = vec![0xa5; layout.half_bytes().expect("small")];
                order.for_each(|i| ops::kv_append(k, &layout, part, &mut half, i, &rows[i]).expect("fits"));
                half
            };
            assert_eq!(fill(&mut (0..KV_PAGE)), fill(&mut (0..KV_PAGE).rev()));
        }
    });
}
