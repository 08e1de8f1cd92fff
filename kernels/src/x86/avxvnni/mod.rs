//! Kernels for CPUs with `avx2,fma,f16c,avxvnni`. Panels are built by the tier below.

mod gemv;
mod panel;

use super::avx2 as below;
use crate::dispatch::table::{KernelTable, QuantizeFn};
use crate::dispatch::tier::{self, Tier};
use crate::panel::build::Source;
use crate::panel::{MicroFn, PanelKernel};
use crate::simd::Eight;

/// What every function of this folder may use.
pub(super) const FEATURES: &str = "avx2,fma,f16c,avxvnni";

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
        PanelKernel { micro: panel::micro, gemv: Some(gemv::gemv::<F>), ..below::This::panels::<F>() }
    }
}

impl Eight for This {
    const MICRO: MicroFn = panel::micro;
    const QUANTIZE: QuantizeFn = below::TABLE.quantize;
}
