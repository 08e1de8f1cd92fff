//! The small operations: elements per second. Those in place start each time from a fresh copy, which is timed too.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use halfbyte_benches::{Rng, agrees_with_scalar, assert_same_bits, kernels, size};
use halfbyte_kernels::{Isa, KernelError, Kernels, ops, quantized_words};

type Op<'a> = &'a dyn Fn(&Kernels, &mut [f32]) -> Result<(), KernelError>;

fn bench(c: &mut Criterion, name: &str, len: usize, op: Op<'_>) {
    let mut group = c.benchmark_group("elementwise");
    for k in kernels() {
        agrees_with_scalar(&k, len, op);
        let mut out = vec![0.0; len];
        group.throughput(Throughput::Elements(len as u64));
        group.bench_function(BenchmarkId::new(format!("{name}/{}", k.isa().name()), format!("len={len}")), |b| {
            b.iter(|| op(&k, &mut out).expect("right shapes"));
        });
    }
}

/// Rounding of tokens to 8 bits, the same bits on every tier.
fn quantize(c: &mut Criterion, tokens: usize) {
    let depth = size(4096, 128);
    let x = Rng(10).floats(tokens * depth);
    let run = |k: &Kernels, words: &mut [u32]| ops::quantize(k, &x, depth, words).expect("right shapes");
    let mut expected = vec![0; quantized_words(tokens, depth).expect("whole groups")];
    let mut words = expected.clone();
    run(&Kernels::with_isa(Isa::Scalar).expect("everywhere"), &mut expected);

    let mut group = c.benchmark_group("elementwise");
    group.throughput(Throughput::Elements(x.len() as u64));
    for k in kernels() {
        run(&k, &mut words);
        assert_same_bits(k.isa().name(), &words, &expected);
        let shape = format!("tokens={tokens},depth={depth}");
        group.bench_function(BenchmarkId::new(format!("quantize/{}", k.isa().name()), shape), |b| {
            b.iter(|| run(&k, &mut words));
        });
    }
}

fn elementwise(c: &mut Criterion) {
    let hidden = size(4096, 100);
    let (x, y) = (Rng(4).floats(hidden), Rng(5).floats(hidden));
    let bias = Rng(9).floats(hidden);
    bench(c, "rms_norm", hidden, &|k, out| ops::rms_norm(k, &x, &y, 1e-5, out));
    bench(c, "layer_norm", hidden, &|k, out| ops::layer_norm(k, &x, &y, &bias, 1e-5, out));
    bench(c, "add", hidden, &|k, out| {
        out.copy_from_slice(&x);
        ops::add(k, out, &y)
    });
    let (sin, cos): (Vec<f32>, Vec<f32>) = y.iter().take(32).map(|angle| angle.sin_cos()).unzip();
    let heads = hidden / 64 * 64;
    bench(c, "rope_neox", heads, &|k, out| {
        out.copy_from_slice(&x[..heads]);
        ops::rope_neox(k, out, 64, &cos, &sin)
    });

    for tokens in [1, 4, size(64, 7)] {
        quantize(c, tokens);
    }

    let inner = size(11008, 100);
    let (gate, up) = (Rng(6).floats(inner), Rng(7).floats(inner));
    bench(c, "silu_mul", inner, &|k, out| {
        out.copy_from_slice(&gate);
        ops::silu_mul(k, out, &up)
    });

    let logits = Rng(8).floats(size(151_680, 1000));
    bench(c, "softmax", logits.len(), &|k, out| {
        out.copy_from_slice(&logits);
        ops::softmax(k, out)
    });
}

criterion_group!(benches, elementwise);
criterion_main!(benches);
