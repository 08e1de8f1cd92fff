//! Our matrix products beside those of candle: the same stored weights, the same inputs, one thread each.
//!
//! Ids read `peers/gemv_q4_0/halfbyte/rows=4096,depth=4096` and `peers/gemv_q4_0/candle/...`; the two sides of a product
//! are timed one right after the other. Random weights go through our encoders, and both sides get the same bytes.
//! Before the clock starts, both results are computed once and compared; that call also lets candle repack its weights.
//!
//! Run with `RAYON_NUM_THREADS=1`: candle reads its number of threads there, our kernels have none. What else differs:
//! candle rounds the inputs of quantised products to 8 bits, and allocates its result in each call.

use candle_core::{
    Device, Module, Tensor,
    quantized::{GgmlDType, QMatMul, QStorage, QTensor},
};
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use criterion::{SamplingMode, measurement::WallTime};
use halfbyte_benches::{Rng, size};
use halfbyte_formats::{Bytes, QuantType, quant};
use halfbyte_kernels::{Kernels, PackedMatrix, Tile, ops};

const TYPES: [(QuantType, GgmlDType); 5] = [
    (QuantType::F32, GgmlDType::F32),
    (QuantType::Q4_0, GgmlDType::Q4_0),
    (QuantType::Q8_0, GgmlDType::Q8_0),
    (QuantType::Q4_K, GgmlDType::Q4K),
    (QuantType::Q6_K, GgmlDType::Q6K),
];

/// Outputs and inputs of a square projection of a 7B model.
const ROWS: usize = size(4096, 32);
const DEPTH: usize = size(4096, 512);
/// Tokens of the batch.
const BATCH: usize = size(64, 9);

/// The same matrix `w: (ROWS, DEPTH)`, as each side holds it.
struct Sides {
    k: Kernels,
    ty: QuantType,
    ours: PackedMatrix,
    candle: QMatMul,
}

impl Sides {
    fn new((ty, candle_ty): (QuantType, GgmlDType)) -> Self {
        let mut data = vec![0; ROWS * ty.row_bytes(DEPTH).expect("whole blocks")];
        quant::encode(ty, &Rng(1).floats(ROWS * DEPTH), &mut data).expect("finite and small");
        let storage = QStorage::from_data((&data).into(), &Device::Cpu, candle_ty).expect("the same format");
        let tensor = QTensor::new(storage, (ROWS, DEPTH)).expect("valid shape");
        let candle = QMatMul::from_qtensor(tensor).expect("valid tensor");
        let k = Kernels::detect();
        let ours = k.pack(ty, ROWS, DEPTH, Bytes::from(data)).expect("valid shape");
        Self { k, ty, ours, candle }
    }

    /// `out: (tokens, ROWS) = x w^T`
    fn ours(&self, x: &[f32], out: &mut [f32]) {
        let mut out = Tile::new(out, x.len() / DEPTH, ROWS).expect("right length");
        ops::matmul(&self.k, &self.ours, 0..ROWS, x, &mut out).expect("right shapes");
    }

    fn candle(&self, x: &Tensor) -> Tensor {
        self.candle.forward(x).expect("right shapes")
    }

    /// Times `x w^T` for `x: (tokens, DEPTH)` on both sides.
    fn bench(&self, group: &mut BenchmarkGroup<'_, WallTime>, tokens: usize) {
        let x = Rng(2).floats(tokens * DEPTH);
        let x_candle = Tensor::from_slice(&x, (tokens, DEPTH), &Device::Cpu).expect("right length");
        let mut out = vec![0.0; tokens * ROWS];
        self.ours(&x, &mut out);
        let found = self.candle(&x_candle).flatten_all().and_then(|y| y.to_vec1()).expect("floats");
        self.assert_agree(&out, &found);

        let (kind, shape, throughput) = match tokens {
            1 => ("gemv", format!("rows={ROWS},depth={DEPTH}"), Throughput::Bytes(self.ours.data().len() as u64)),
            _ => {
                let products = Throughput::Elements((ROWS * DEPTH * tokens) as u64);
                ("gemm", format!("rows={ROWS},depth={DEPTH},tokens={tokens}"), products)
            }
        };
        group.throughput(throughput);
        group.bench_function(BenchmarkId::new(format!("{kind}_{}/halfbyte", self.ty), &shape), |b| {
            b.iter(|| self.ours(&x, &mut out));
        });
        group.bench_function(BenchmarkId::new(format!("{kind}_{}/candle", self.ty), &shape), |b| {
            b.iter(|| self.candle(&x_candle));
        });
    }

    /// Normalised mean square error, `|a - b|^2 / |a|^2`: f32 products may differ in the order of their sums,
    /// quantised ones also by candle's 8-bit inputs.
    fn assert_agree(&self, ours: &[f32], candle: &[f32]) {
        assert_eq!(ours.len(), candle.len());
        let error: f64 = ours.iter().zip(candle).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        let nmse = error / ours.iter().map(|a| f64::from(*a).powi(2)).sum::<f64>();
        let bound = if self.ty == QuantType::F32 { 1e-10 } else { 1e-3 };
        println!("{}: NMSE between the sides {nmse:.1e}, at most {bound:.0e}", self.ty);
        assert!(nmse <= bound, "{}: the sides compute different products", self.ty);
    }
}

fn peers(c: &mut Criterion) {
    // The quantised products of candle read the second name first, its f32 products only the first.
    let one = |name, unset| std::env::var(name).map_or(unset, |n| n == "1");
    let single = one("RAYON_NUM_THREADS", false) && one("CANDLE_NUM_THREADS", true);
    assert!(single, "set RAYON_NUM_THREADS=1: a comparison needs one thread on both sides");
    println!("halfbyte uses the {} kernels", Kernels::detect().isa().name());

    let mut group = c.benchmark_group("peers");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    for types in TYPES {
        let sides = Sides::new(types);
        sides.bench(&mut group, 1);
        sides.bench(&mut group, BATCH);
    }
}

criterion_group!(benches, peers);
criterion_main!(benches);
