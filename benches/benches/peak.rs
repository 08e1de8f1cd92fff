//! What the integer units can do at most: 8-bit multiplications per second.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use halfbyte_benches::peak::Probe;

fn peak(c: &mut Criterion) {
    let mut group = c.benchmark_group("peak");
    for probe in Probe::available() {
        group.throughput(Throughput::Elements(probe.multiplications()));
        group.bench_function(probe.name, |b| b.iter(|| probe.run()));
    }
}

criterion_group!(benches, peak);
criterion_main!(benches);
