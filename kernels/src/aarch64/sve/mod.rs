//! Kernels for CPUs with `neon,sve` and vectors of at least 256 bits. Panels are built by the tier below.
//!
//! A64FX has no other dot products. Registers may have any length: it is asked for in each call.

pub(super) mod columns;
pub(super) mod gemv;
mod panel;
mod product;

use std::arch::asm;

use super::neon as below;
use crate::dispatch::table::{KernelTable, QuantizeFn};
use crate::dispatch::tier::{self, Tier};
use crate::panel::build::Source;
use crate::panel::{MicroFn, PanelKernel};
use crate::simd::Eight;

/// What every function of this folder may use.
pub(super) const FEATURES: &str = "neon,sve";

/// Bytes of the shortest vectors that this tier is chosen for: with those of NEON nothing is won.
pub(super) const LEAST_BYTES: usize = 32;

/// Every entry of this tier.
pub(crate) static TABLE: KernelTable = KernelTable {
    kernel: tier::kernel::<This>,
    attention_gqa: below::float::attention_gqa::<This>,
    attention_part: below::float::attention_part::<This>,
    ..below::TABLE
};

/// This tier.
pub(super) struct This;

impl Tier for This {
    type Floats = below::This;

    fn panels<F: Source>() -> PanelKernel {
        let below = below::This::panels::<F>();
        PanelKernel { micro: panel::micro(F::KIND), gemv: gemv::gemv::<F>(below.gemv), ..below }
    }
}

impl Eight for This {
    const MICRO: MicroFn = panel::micro(crate::simd::KIND);
    const QUANTIZE: QuantizeFn = below::TABLE.quantize;
}

/// Bytes of a vector.
#[inline]
#[target_feature(enable = "neon,sve")]
pub(super) fn bytes() -> usize {
    let bytes;
    // SAFETY: reads a number; the CPU has the instruction.
    unsafe { asm!("rdvl {bytes}, #1", bytes = out(reg) bytes, options(pure, nomem, nostack, preserves_flags)) };
    bytes
}

#[cfg(test)]
mod tests {
    /// Emulators may give another length than the one that was asked for.
    #[test]
    fn the_length_of_vectors_is_told() {
        if !std::arch::is_aarch64_feature_detected!("sve") {
            println!("vectors of no bits");
            return;
        }
        // SAFETY: this CPU has SVE.
        let bits = 8 * unsafe { super::bytes() };
        println!("vectors of {bits} bits");
        assert!((128..=2048).contains(&bits) && bits.is_multiple_of(128), "{bits}");
    }
}
