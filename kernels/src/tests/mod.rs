//! Every tier's functions against the scalar ones, called as the loops around them call them.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod arrays;
#[cfg(all(unix, not(miri)))]
mod guard;
mod packed;
mod panel;
mod quantize;
mod scatter;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod simd;

use proptest::test_runner::Config;

use crate::Isa;
use crate::dispatch::table::KernelTable;

/// Cases of each property: 64, or what `PROPTEST_CASES` says.
fn cases() -> Config {
    let default = Config { failure_persistence: None, ..Config::default() };
    match std::env::var_os("PROPTEST_CASES") {
        _ if cfg!(miri) => Config { cases: 1, ..default },
        Some(_) => default,
        None => Config { cases: 64, ..default },
    }
}

/// Whether every instruction is emulated, and other jobs run other tiers: `BEST_TIER_ONLY` in the environment.
fn is_emulated() -> bool {
    std::env::var_os("BEST_TIER_ONLY").is_some()
}

/// The table of each instruction set of this CPU, or, emulated, of the best.
fn tables() -> impl Iterator<Item = (Isa, &'static KernelTable)> {
    let count = if is_emulated() { 1 } else { usize::MAX };
    Isa::available().take(count).map(|isa| (isa, crate::Kernels::with_isa(isa).expect("available").table()))
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`.
    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 32) as usize % n
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// Numbers of any size and sign; every bit pattern in one of 32.
    fn float(&mut self) -> f32 {
        let bits = self.next() as u32;
        if self.below(32) == 0 { f32::from_bits(bits) } else { f32::from_bits(bits & 0x83ff_ffff | 0x3c00_0000) }
    }
}
