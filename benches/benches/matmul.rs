//! Products with a weight matrix: one token (bytes of weights per second), a few or many (multiplications per second).
//!
//! Inputs are rounded to 8 bits beforehand, where weights take them so; `elementwise/quantize` times that. After a
//! batch stands what part it reached of the peak of the tier's instruction, `peak/*`: the median of pairs timed in
//! turn.

use std::cell::{LazyCell, RefCell};
use std::hint::black_box;
use std::time::Instant;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use halfbyte_benches::peak::Probe;
use halfbyte_benches::{Product, Rng, Shape, Weights, assert_same_bits, kernels, layout_bytes, layout_name, size};
use halfbyte_formats::QuantType;
use halfbyte_formats::quant::{PanelType, U4Group};
use halfbyte_kernels::ops::{self, Store};
use halfbyte_kernels::{
    ActivationType, Activations, Kernels, PackLayout, PackedMatrix, QuantTile, Tile, quantized_words,
};

/// Formats that fast tiers multiply with 8-bit inputs.
const PANELS: [PackLayout; 14] = [
    PackLayout::RowMajor(QuantType::Q4_0),
    PackLayout::RowMajor(QuantType::Q5_0),
    PackLayout::RowMajor(QuantType::Q8_0),
    PackLayout::RowMajor(QuantType::Q4_K),
    PackLayout::RowMajor(QuantType::Q5_K),
    PackLayout::RowMajor(QuantType::Q6_K),
    PackLayout::Panels(PanelType::Q4_0),
    PackLayout::Panels(PanelType::Q5_0),
    PackLayout::Panels(PanelType::Q8_0),
    PackLayout::Panels(PanelType::Q4_K),
    PackLayout::Panels(PanelType::Q5_K),
    PackLayout::Panels(PanelType::Q6_K),
    PackLayout::Panels(PanelType::U4 { group: U4Group::G128, zeros: false }),
    PackLayout::Panels(PanelType::U4 { group: U4Group::G128, zeros: true }),
];
/// The others.
const FLOATS: [PackLayout; 8] = [
    PackLayout::RowMajor(QuantType::F32),
    PackLayout::RowMajor(QuantType::F16),
    PackLayout::RowMajor(QuantType::BF16),
    PackLayout::RowMajor(QuantType::Q2_K),
    PackLayout::RowMajor(QuantType::Q3_K),
    PackLayout::RowMajor(QuantType::IQ4_NL),
    PackLayout::RowMajor(QuantType::IQ4_XS),
    PackLayout::RowMajor(QuantType::MXFP4),
];

/// Inputs of a projection of a 7B model.
const DEPTH: usize = size(4096, 512);

/// One product in each of `layouts` on each instruction set: `kind` is `gemv` or `gemm`.
fn bench(group: &mut BenchmarkGroup<'_, WallTime>, kind: &str, layouts: &[PackLayout], rows: usize, tokens: usize) {
    let shape = Shape { rows, depth: DEPTH, tokens };
    for &layout in layouts {
        let weights = LazyCell::new(|| {
            let weights = Weights::random(layout, rows, DEPTH, 1);
            Product::check_tiers(shape, &weights);
            weights
        });
        for k in kernels() {
            group.throughput(match tokens {
                1 => Throughput::Bytes(layout_bytes(layout, rows, DEPTH) as u64),
                _ => Throughput::Elements(shape.multiplications()),
            });
            let product = LazyCell::new(|| RefCell::new(Product::new(k, shape, &weights)));
            let probe = Probe::of(k.isa()).filter(|_| tokens > 1 && PANELS.contains(&layout));
            let mut shares = Vec::new();
            let id = BenchmarkId::new(format!("{kind}_{}/{}", layout_name(layout), k.isa().name()), shape.id());
            group.bench_function(id, |b| {
                let product = &mut *product.borrow_mut();
                b.iter_custom(|iterations| {
                    let start = Instant::now();
                    for _ in 0..iterations {
                        black_box(&mut *product).run();
                    }
                    let time = start.elapsed();
                    if let Some(probe) = probe {
                        let rate = (iterations * shape.multiplications()) as f64 / time.as_secs_f64();
                        shares.push(rate / probe.rate());
                    }
                    time
                });
            });
            shares.sort_by(f64::total_cmp);
            // One time only was that of a test.
            if shares.len() > 1
                && let (Some(probe), Some(share)) = (probe, shares.get(shares.len() / 2))
            {
                println!("{:24}peak:   {:.1} % of {}", "", share * 100.0, probe.name);
            }
        }
    }
}

fn matmul(c: &mut Criterion) {
    let mut group = c.benchmark_group("matmul");
    group.sampling_mode(SamplingMode::Flat).sample_size(20);
    bench(&mut group, "gemv", &PANELS, size(4096, 18), 1);
    bench(&mut group, "gemv", &FLOATS, size(4096, 16), 1);
    for tokens in [2, 4, 8, 16] {
        bench(&mut group, "gemm", &PANELS, size(4096, 18), tokens);
    }
    bench(&mut group, "gemm", &PANELS, size(1024, 50), size(512, 9));
    bench(&mut group, "gemm", &FLOATS, size(256, 16), size(64, 9));
    // All of it stays in the caches of one core.
    bench(&mut group, "gemm", &PANELS, 96, size(64, 5));
    for tokens in [1, size(512, 6)] {
        swiglu(&mut group, size(1056, 64), tokens);
    }
}

/// The first half of a gated feed-forward layer, rounding included: multiplications per second.
fn swiglu(group: &mut BenchmarkGroup<'_, WallTime>, rows: usize, tokens: usize) {
    let shape = Shape { rows, depth: DEPTH, tokens };
    group.throughput(Throughput::Elements(2 * shape.multiplications()));
    for layout in PANELS {
        let weights = LazyCell::new(|| [3, 4].map(|seed| Weights::random(layout, rows, DEPTH, seed)));
        for k in kernels() {
            // Row-major weights take inputs as they are on the tiers that are there for comparison.
            if Weights::random(layout, 1, DEPTH, 1).matrix(&k).activations() == ActivationType::F32 {
                continue;
            }
            let gated = LazyCell::new(|| RefCell::new(Gated::checked(k, shape, &weights)));
            let id = BenchmarkId::new(format!("swiglu_{}/{}", layout_name(layout), k.isa().name()), shape.id());
            group.bench_function(id, |b| {
                let gated = &mut *gated.borrow_mut();
                b.iter(|| gated.run());
            });
        }
    }
}

/// Gate and up weights with inputs of 8 bits.
struct Gated {
    k: Kernels,
    shape: Shape,
    w: [PackedMatrix; 2],
    x: Vec<u32>,
    out: Vec<u32>,
}

impl Gated {
    fn checked(k: Kernels, shape: Shape, weights: &[Weights; 2]) -> Self {
        let Shape { rows, depth, tokens } = shape;
        let w = weights.each_ref().map(|weights| weights.matrix(&k));
        let mut x = vec![0; quantized_words(tokens, depth).expect("whole groups")];
        ops::quantize(&k, &Rng(2).floats(tokens * depth), depth, &mut x).expect("right shapes");
        let out = vec![0; quantized_words(tokens, rows).expect("whole groups")];
        let mut gated = Self { k, shape, w, x, out };
        gated.run();
        assert_same_bits(&format!("swiglu on {}", k.isa().name()), &gated.out, &gated.steps());
        gated
    }

    fn run(&mut self) {
        let Self { k, shape, w: [gate, up], x, out } = self;
        let mut out = QuantTile::new(out, shape.tokens, shape.rows).expect("right length");
        ops::swiglu(k, [gate, up], 0..shape.rows, x, &mut out).expect("right shapes");
    }

    /// The same, one operation after the other; those are checked where they are timed.
    fn steps(&self) -> Vec<u32> {
        let Shape { rows, tokens, .. } = self.shape;
        let [mut gate, up] = self.w.each_ref().map(|w| {
            let mut out = vec![0.0; tokens * rows];
            let mut tile = Tile::new(&mut out, tokens, rows).expect("right length");
            ops::matmul(&self.k, w, 0..rows, Activations::Q8(&self.x), Store::Set, &mut tile).expect("right shapes");
            out
        });
        ops::silu_mul(&self.k, &mut gate, &up).expect("right shapes");
        let mut words = vec![0; self.out.len()];
        ops::quantize(&self.k, &gate, rows, &mut words).expect("right shapes");
        words
    }
}

criterion_group!(benches, matmul);
criterion_main!(benches);
