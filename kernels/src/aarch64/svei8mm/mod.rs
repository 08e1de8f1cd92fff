//! Kernels for CPUs with `neon,dotprod,i8mm,sve` and vectors of at least 256 bits: the micro-kernel of many tokens.
//! Everything else is that of the tier below. So are products of few tokens: on the model of Neoverse V1 those in
//! registers of 256 bits (the tier `sve`) take as long, as it has half as many units for them, and scales come on top.

mod build;
mod panel;
mod product;

use halfbyte_formats::quant::{PanelType, Q4_0, Q4_K, Q5_0, Q5_K, Q6_K, Q8_0};

use super::i8mm as below;
use crate::dispatch::table::{Kernel, KernelTable};
use crate::pack::{OfFormat, PanelFormat, of_format};
use crate::panel::PanelKernel;
use crate::panel::build::{RowMajor, Source, Stored};

/// What every function of this folder may use.
pub(super) const FEATURES: &str = "neon,dotprod,i8mm,sve";

/// Every entry of this tier.
pub(crate) static TABLE: KernelTable = KernelTable {
    matmul_q4_0: row_major::<Q4_0>(),
    matmul_q5_0: row_major::<Q5_0>(),
    matmul_q8_0: row_major::<Q8_0>(),
    matmul_q4_k: row_major::<Q4_K>(),
    matmul_q5_k: row_major::<Q5_K>(),
    matmul_q6_k: row_major::<Q6_K>(),
    panels,
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
const fn kernel<F: Source>() -> PanelKernel {
    PanelKernel { build: build::build::<F>, micro: panel::micro, ..below::kernel::<F>() }
}
