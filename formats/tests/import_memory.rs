//! Writing an imported model takes no more memory for more experts: they are read and written one after another.
//!
//! One test only: the allocator counts the whole process, and tests run side by side.
#![cfg(feature = "import")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod checkpoint;
mod support;

use checkpoint::phi::{FFN, HIDDEN, LAYERS};
use checkpoint::{Dir, Fixture};
use halfbyte_formats::QuantType;
use halfbyte_formats::import::Checkpoint;
use halfbyte_formats::quant::Mix;
use support::alloc::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

/// The most memory that writing a model of `experts` experts takes at once, in bytes.
fn peak(experts: usize) -> usize {
    let mut fixture = Fixture::phimoe();
    fixture.set(&[("num_local_experts", experts.into())]);
    for n in 0..LAYERS {
        let moe = format!("model.layers.{n}.block_sparse_moe");
        fixture.add(&format!("{moe}.gate.weight"), &[experts, HIDDEN]);
        for e in 0..experts {
            for (part, shape) in [("w1", [FFN, HIDDEN]), ("w2", [HIDDEN, FFN]), ("w3", [FFN, HIDDEN])] {
                fixture.add(&format!("{moe}.experts.{e}.{part}.weight"), &shape);
            }
        }
    }
    let dir = Dir::new(&format!("memory-{experts}"));
    fixture.write(&dir);
    let checkpoint = Checkpoint::open(&dir.0).unwrap();
    let mix = Mix::Uniform(QuantType::F32);
    let (written, peak) = ALLOCATOR.peak_during(|| checkpoint.write(dir.file("m.gguf"), mix, |_| {}));
    written.unwrap();
    peak
}

#[test]
fn experts_are_streamed() {
    // The largest tensor has 8 KiB an expert: 2 MiB more if all of them were in memory. The router's row is 256 bytes.
    let (few, many) = (peak(4), peak(260));
    assert!(many < few + 256 * 1024, "{few} bytes for 4 experts, {many} for 260");
}
