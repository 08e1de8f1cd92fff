//! Attention over the cache: of one position (bytes of keys and values per second) and of a prompt (products per
//! second).

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use halfbyte_benches::{Rng, agrees_within, kernels, size};
use halfbyte_kernels::ops::{self, AttentionGqa, Queries};
use halfbyte_kernels::{KV_PAGE, Kernels, KvLayout, KvPart, KvType, Tile};

const HEAD_DIM: usize = 128;

/// Tokens of a prompt that attend in one call.
const BLOCK: usize = 16;

const TYPES: [(KvType, &str); 3] = [(KvType::F32, "f32"), (KvType::F16, "f16"), (KvType::Int8, "int8")];

/// Pages of `len` positions.
fn filled(k: &Kernels, layout: &KvLayout, len: usize, rng: &mut Rng) -> Vec<Vec<u8>> {
    let mut pages = vec![vec![0; layout.page_bytes().expect("small")]; len.div_ceil(KV_PAGE)];
    for pos in 0..len {
        let (keys, values) = pages[pos / KV_PAGE].split_at_mut(layout.half_bytes().expect("small"));
        for (part, half) in [(KvPart::Keys, keys), (KvPart::Values, values)] {
            ops::kv_append(k, layout, part, half, pos % KV_PAGE, &rng.floats(HEAD_DIM)).expect("fits");
        }
    }
    pages
}

/// The last `tokens` of `len` positions.
fn bench(c: &mut Criterion, kind: &str, len: usize, tokens: usize, groups: &[usize]) {
    let mut group = c.benchmark_group("attention");
    for k in kernels() {
        for (ty, ty_name) in TYPES {
            for &heads in groups {
                let layout = KvLayout { ty, kv_heads: 1, head_dim: HEAD_DIM };
                let mut rng = Rng(3);
                let pages = filled(&k, &layout, len, &mut rng);
                let rows = heads * HEAD_DIM;
                let q = rng.floats(tokens * rows);
                let scale = 1.0 / (HEAD_DIM as f32).sqrt();
                let attend = |k: &Kernels, out: &mut [f32]| {
                    for (i, (q, out)) in q.chunks(BLOCK * rows).zip(out.chunks_mut(BLOCK * rows)).enumerate() {
                        let pos = len - tokens + i * BLOCK;
                        let a = AttentionGqa { layout: &layout, pages: &pages, pos, window: None, scale };
                        let mut out = Tile::new(out, q.len() / rows, rows)?;
                        ops::attention_gqa(k, &a, 0, Queries { data: q, stride: rows }, &mut out)?;
                    }
                    Ok(())
                };
                // Scalar kernels do not round queries and weights to 8 bits.
                agrees_within(if ty == KvType::Int8 { 0.05 } else { 1e-4 }, &k, q.len(), attend);

                let mut out = vec![0.0; q.len()];
                let name = format!("{kind}_{ty_name}/{}", k.isa().name());
                let shape = format!("heads={heads},head_dim={HEAD_DIM},len={len}");
                let seen: usize = (len - tokens + 1..=len).sum();
                group.throughput(match tokens {
                    1 => Throughput::Bytes((layout.page_bytes().expect("small") / KV_PAGE * len) as u64),
                    _ => Throughput::Elements((2 * rows * seen) as u64),
                });
                group.bench_function(BenchmarkId::new(name, shape), |b| {
                    b.iter(|| attend(&k, &mut out).expect("right shapes"));
                });
            }
        }
    }
}

fn attention(c: &mut Criterion) {
    bench(c, "decode", size(64, 5), 1, &[1, 4]);
    bench(c, "decode", size(1024, 70), 1, &[1, 4, 8]);
    for len in [512, 4096, 16384, 32768] {
        bench(c, "decode", size(len, 70), 1, &[4]);
    }
    bench(c, "prefill", size(512, 70), size(512, 40), &[1, 4, 8]);
    bench(c, "prefill", size(4096, 70), size(512, 40), &[4]);
}

criterion_group!(benches, attention);
criterion_main!(benches);
