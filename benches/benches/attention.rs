//! Attention of one position over the cache: bytes of keys and values per second.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use halfbyte_benches::{Rng, agrees_with_scalar, kernels, size};
use halfbyte_kernels::{KvLayout, KvType, ops};

const HEAD_DIM: usize = 128;

fn attention(c: &mut Criterion) {
    let mut group = c.benchmark_group("attention");
    let len = size(1024, 70);
    for k in kernels() {
        for (ty, ty_name) in [(KvType::F32, "f32"), (KvType::F16, "f16")] {
            for heads in [1, 4, 8] {
                let layout = KvLayout { ty, kv_heads: 1, head_dim: HEAD_DIM, capacity: len };
                let mut rng = Rng(3);
                let mut filled = || {
                    let mut cache = vec![0; layout.len_bytes().expect("small")];
                    for pos in 0..len {
                        ops::kv_append(&k, &layout, &mut cache, pos, &rng.floats(HEAD_DIM)).expect("fits");
                    }
                    cache
                };
                let (keys, values) = (filled(), filled());
                let q = rng.floats(heads * HEAD_DIM);
                let scale = 1.0 / (HEAD_DIM as f32).sqrt();
                let a = ops::AttentionGqa { layout: &layout, keys: &keys, values: &values, visible: 0..len, scale };
                agrees_with_scalar(&k, q.len(), |k, out| ops::attention_gqa(k, &a, 0, &q, out));

                let mut out = vec![0.0; q.len()];
                let name = format!("gqa_{ty_name}/{}", k.isa().name());
                let shape = format!("heads={heads},head_dim={HEAD_DIM},len={len}");
                group.throughput(Throughput::Bytes(2 * keys.len() as u64));
                group.bench_function(BenchmarkId::new(name, shape), |b| {
                    b.iter(|| ops::attention_gqa(&k, &a, 0, &q, &mut out).expect("right shapes"));
                });
            }
        }
    }
}

criterion_group!(benches, attention);
criterion_main!(benches);
