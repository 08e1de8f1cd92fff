//! Products with a weight matrix: one token (bytes of weights per second), and a batch (products per second).

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use halfbyte_benches::{Rng, agrees_with_scalar, kernels, size};
use halfbyte_formats::{Bytes, QuantType};
use halfbyte_kernels::{Tile, ops};

const TYPES: [QuantType; 12] = [
    QuantType::F32,
    QuantType::F16,
    QuantType::BF16,
    QuantType::Q4_0,
    QuantType::Q8_0,
    QuantType::Q2_K,
    QuantType::Q3_K,
    QuantType::Q4_K,
    QuantType::Q5_K,
    QuantType::Q6_K,
    QuantType::IQ4_XS,
    QuantType::MXFP4,
];

/// Inputs of a projection of a 7B model.
const DEPTH: usize = size(4096, 512);

/// One product of each format on each instruction set: `kind` is `gemv` or `gemm`.
fn bench(c: &mut Criterion, kind: &str, rows: usize, tokens: usize) {
    let mut group = c.benchmark_group("matmul");
    let mut out = vec![0.0; tokens * rows];
    for k in kernels() {
        for ty in TYPES {
            let data = Bytes::from(Rng(1).blocks(ty, rows * DEPTH / ty.block_len()));
            let x = Rng(2).floats(tokens * DEPTH);
            agrees_with_scalar(&k, tokens * rows, |k, out| {
                let w = k.pack(ty, rows, DEPTH, data.clone())?;
                ops::matmul(k, &w, 0..rows, &x, &mut Tile::new(out, tokens, rows)?)
            });
            let w = k.pack(ty, rows, DEPTH, data).expect("valid shape");
            let name = format!("{kind}_{ty}/{}", k.isa().name());
            let (shape, throughput) = match tokens {
                1 => (format!("rows={rows},depth={DEPTH}"), Throughput::Bytes(w.data().len() as u64)),
                _ => {
                    let products = Throughput::Elements((rows * DEPTH * tokens) as u64);
                    (format!("rows={rows},depth={DEPTH},tokens={tokens}"), products)
                }
            };
            group.throughput(throughput).bench_function(BenchmarkId::new(name, shape), |b| {
                b.iter(|| {
                    let mut out = Tile::new(&mut out, tokens, rows).expect("right length");
                    ops::matmul(&k, &w, 0..rows, &x, &mut out).expect("right shapes");
                });
            });
        }
    }
}

fn matmul(c: &mut Criterion) {
    bench(c, "gemv", size(4096, 16), 1);
    bench(c, "gemm", size(256, 16), size(64, 9));
}

criterion_group!(benches, matmul);
criterion_main!(benches);
