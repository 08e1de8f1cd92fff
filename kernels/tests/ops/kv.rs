//! Writing the key-value cache.

use half::f16;
use halfbyte_kernels::{KvLayout, KvType, ops};

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
    for_each_isa(|k| {
        for ty in [KvType::F32, KvType::F16] {
            let layout = KvLayout { ty, kv_heads: 3, head_dim: 5, capacity: 4 };
            let mut cache = vec![0xa5u8; layout.len_bytes().expect("small")];
            let mut expected = cache.clone();
            for pos in [0, 3, 1, 3] {
                let mut row = Rng(pos as u64).floats(15);
                row[0] = 70000.0;
                row[1] = 1e-7;
                row[2] = f32::NEG_INFINITY;
                ops::kv_append(k, &layout, &mut cache, pos, &row).expect("fits");
                let size = expected.len() / 60;
                for (i, x) in row.iter().enumerate() {
                    let at = ((i / 5) * 4 + pos) * 5 + i % 5;
                    expected[at * size..][..size].copy_from_slice(&element(ty, *x));
                }
                assert_eq!(cache, expected, "{ty:?} after position {pos}");
            }
        }
    });
}
