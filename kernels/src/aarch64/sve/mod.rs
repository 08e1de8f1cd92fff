//! Kernels for CPUs with `neon,sve` and vectors of at least 256 bits. Panels are built by the tier below.
//!
//! A64FX has no other dot products. Registers may have any length: it is asked for in each call.

pub(super) mod columns;
mod gemv;
mod panel;
mod product;

use std::arch::asm;

use halfbyte_formats::quant::{PanelType, Q4_0, Q4_K, Q5_0, Q5_K, Q6_K, Q8_0};

use super::neon as below;
use crate::dispatch::table::{Kernel, KernelTable, QuantizeFn};
use crate::pack::{OfFormat, PanelFormat, of_format};
use crate::panel::build::{RowMajor, Source, Stored};
use crate::panel::{MicroFn, PanelKernel};
use crate::simd::Eight;

/// What every function of this folder may use.
pub(super) const FEATURES: &str = "neon,sve";

/// Bytes of the shortest vectors that this tier is chosen for: with those of NEON nothing is won.
pub(super) const LEAST_BYTES: usize = 32;

/// Every entry of this tier.
pub(crate) static TABLE: KernelTable = KernelTable {
    matmul_q4_0: row_major::<Q4_0>(),
    matmul_q5_0: row_major::<Q5_0>(),
    matmul_q8_0: row_major::<Q8_0>(),
    matmul_q4_k: row_major::<Q4_K>(),
    matmul_q5_k: row_major::<Q5_K>(),
    matmul_q6_k: row_major::<Q6_K>(),
    panels,
    attention_gqa: below::float::attention_gqa::<Products>,
    attention_part: below::float::attention_part::<Products>,
    ..below::TABLE
};

/// The kernel of row-major blocks of `F`.
const fn row_major<F>() -> Kernel
where
    RowMajor<F>: Source,
{
    Kernel::Panels(kernel::<RowMajor<F>>())
}

/// The kernel of weights stored in panels of `ty`.
fn panels(ty: PanelType) -> PanelKernel {
    struct Panels;
    impl OfFormat for Panels {
        type Output = PanelKernel;

        fn of<P: PanelFormat>(self) -> PanelKernel {
            kernel::<Stored<P>>()
        }
    }
    of_format(ty, Panels)
}

/// The kernel of weights of `F`.
pub(super) const fn kernel<F: Source>() -> PanelKernel {
    let below = below::kernel::<F>();
    PanelKernel { micro: panel::micro(F::KIND), gemv: gemv::gemv::<F>(below.gemv), ..below }
}

/// What attention multiplies numbers of 8 bits with.
struct Products;

impl Eight for Products {
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
