//! Our matrix products beside those of other engines: the same stored weights, the same inputs, one thread each.
//!
//! Ids read `peers/gemv_q4_0/halfbyte/rows=4096,depth=4096`; other names stand where `halfbyte` does: the tier,
//! `candle`, `llama.cpp`, `llama.cpp-repack` and so on. Products of one shape are timed one right after the other.
//! Random weights go through our encoders, and all sides get the same bytes. Before the clock starts, each result is
//! computed once and compared with that of our best tier.
//!
//! Run with `RAYON_NUM_THREADS=1`, and `HALFBYTE_GGML=FOLDER[:FOLDER...]` for ggml.

use std::cell::{LazyCell, RefCell};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use halfbyte_benches::{ROUNDED, Rng, Shape, nmse, size};
use halfbyte_formats::{QuantType, quant};
use halfbyte_kernels::Kernels;
use halfbyte_peers::{Engine, engines};

const TYPES: [QuantType; 5] = [QuantType::F32, QuantType::Q4_0, QuantType::Q8_0, QuantType::Q4_K, QuantType::Q6_K];

/// Outputs and inputs of a square projection of a 7B model.
const ROWS: usize = size(4096, 64);
const DEPTH: usize = size(4096, 512);

/// Largest normalised mean square error between two engines: both may have rounded the inputs. f32 products differ in
/// the order of their sums only.
fn bound(ty: QuantType) -> f64 {
    if ty == QuantType::F32 { 1e-10 } else { 2.0 * ROUNDED }
}

fn bench(group: &mut BenchmarkGroup<'_, WallTime>, engines: &[Box<dyn Engine>], ty: QuantType, tokens: usize) {
    let shape = Shape { rows: ROWS, depth: DEPTH, tokens };
    let weights = LazyCell::new(|| {
        let mut data = vec![0; ROWS * ty.row_bytes(DEPTH).expect("whole blocks")];
        quant::encode(ty, &Rng(1).floats(ROWS * DEPTH), &mut data).expect("finite and small");
        data
    });
    let x = LazyCell::new(|| Rng(2).floats(tokens * DEPTH));
    let prepare = |engine: &dyn Engine| {
        let mut side = engine.prepare(ty, shape, &weights, &x).expect("it knows the format");
        side.run();
        side
    };
    let expected = LazyCell::new(|| prepare(&*engines[0]).result());
    let kind = if tokens == 1 { "gemv" } else { "gemm" };
    group.throughput(match tokens {
        1 => Throughput::Bytes((ROWS * ty.row_bytes(DEPTH).expect("whole blocks")) as u64),
        _ => Throughput::Elements(shape.multiplications()),
    });
    for engine in engines.iter().filter(|engine| engine.knows(ty)) {
        let side = LazyCell::new(|| {
            let side = prepare(&**engine);
            let error = nmse(&side.result(), &expected);
            println!("{ty}, {}: NMSE to halfbyte {error:.1e}, at most {:.0e}", engine.name(), bound(ty));
            assert!(error <= bound(ty), "{ty}: {} computes another product", engine.name());
            RefCell::new(side)
        });
        let id = BenchmarkId::new(format!("{kind}_{ty}/{}", engine.name()), shape.id());
        group.bench_function(id, |b| {
            let side = &mut *side.borrow_mut();
            b.iter(|| side.run());
        });
    }
}

fn peers(c: &mut Criterion) {
    println!("halfbyte uses the {} kernels", Kernels::detect().isa().name());
    let engines = engines();
    let mut group = c.benchmark_group("peers");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    for ty in TYPES {
        for tokens in [1, size(64, 9), size(512, 33)] {
            bench(&mut group, &engines, ty, tokens);
        }
    }
}

criterion_group!(benches, peers);
criterion_main!(benches);
