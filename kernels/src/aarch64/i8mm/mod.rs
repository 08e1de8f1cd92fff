//! Kernels for CPUs with `neon,dotprod,i8mm`. Products of few tokens are those of the tier below.

pub(super) mod build;
pub(super) mod panel;

use halfbyte_formats::quant::{PanelType, Q4_0, Q4_K, Q5_0, Q5_K, Q6_K, Q8_0};

use super::{dotprod as below, neon};
use crate::dispatch::table::{Kernel, KernelTable, QuantizeFn};
use crate::pack::{OfFormat, PanelFormat, of_format};
use crate::panel::build::{RowMajor, Source, Stored};
use crate::panel::{MicroFn, PanelKernel};
use crate::simd::Eight;

/// What every function of this folder may use.
pub(super) const FEATURES: &str = "neon,dotprod,i8mm";

/// Every entry of this tier.
pub(crate) static TABLE: KernelTable = KernelTable {
    matmul_q4_0: row_major::<Q4_0>(),
    matmul_q5_0: row_major::<Q5_0>(),
    matmul_q8_0: row_major::<Q8_0>(),
    matmul_q4_k: row_major::<Q4_K>(),
    matmul_q5_k: row_major::<Q5_K>(),
    matmul_q6_k: row_major::<Q6_K>(),
    panels,
    attention_gqa: neon::float::attention_gqa::<Products>,
    attention_part: neon::float::attention_part::<Products>,
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
    PanelKernel { build: build::build::<F>, micro: panel::micro::<true>, ..below::kernel::<F>() }
}

/// What attention multiplies numbers of 8 bits with: panels as they are stored.
struct Products;

impl Eight for Products {
    const MICRO: MicroFn = panel::micro::<false>;
    const QUANTIZE: QuantizeFn = neon::TABLE.quantize;
}
