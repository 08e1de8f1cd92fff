//! Shared pieces of the benchmarks: seeded data, kernels to compare, products and their checks, the peak of the
//! machine.
//!
//! Ids read `matmul/gemv_q4_0/avx512vnni/rows=4096,depth=4096`. Every benchmark compares its result with the scalar
//! kernels once before it is timed, if it is timed at all. Debug builds (`cargo test --benches`) run small shapes, to
//! check the benchmarks themselves.

mod check;
pub mod peak;
mod product;
mod weights;

use halfbyte_formats::{QuantType, quant};
use halfbyte_kernels::{Isa, Kernels};

pub use check::{agrees_with_scalar, agrees_within, assert_same_bits, nmse};
pub use product::{Product, ROUNDED, Shape};
pub use weights::{Weights, layout_bytes, layout_name};

/// A large size in release builds, a small one in debug builds.
pub const fn size(release: usize, debug: usize) -> usize {
    if cfg!(debug_assertions) { debug } else { release }
}

/// The kernels of each instruction set of this CPU, best first.
pub fn kernels() -> impl Iterator<Item = Kernels> {
    Isa::available().filter_map(|isa| Kernels::with_isa(isa).ok())
}

/// SplitMix64 (Steele, Lea and Flood 2014).
#[derive(Debug)]
pub struct Rng(pub u64);

impl Rng {
    /// 64 random bits.
    #[expect(clippy::should_implement_trait, reason = "endless, so an Option would be noise")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Numbers uniform in -1..1.
    pub fn floats(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    /// Numbers of 4 bits.
    pub fn nibbles(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8 & 15).collect()
    }

    /// `n` valid blocks of any format: random bytes, kept when they decode to numbers of a reasonable size.
    pub fn blocks(&mut self, ty: QuantType, n: usize) -> Vec<u8> {
        let mut pool: Vec<Vec<u8>> = Vec::new();
        let mut values = vec![0.0f32; ty.block_len()];
        while pool.len() < n.min(64) {
            let block: Vec<u8> = (0..ty.block_bytes()).map(|_| self.next() as u8).collect();
            let decoded = quant::decode(ty, &block, &mut values).is_ok() && values.iter().all(|v| v.abs() < 4.0);
            if decoded && values.iter().any(|v| v.abs() > 0.05) {
                pool.push(block);
            }
        }
        (0..n).flat_map(|_| pool[self.next() as usize % pool.len()].clone()).collect()
    }
}
