//! Kernels for CPUs with `neon,dotprod`. Panels are built by the tier below.

pub(super) mod gemv;
pub(super) mod panel;

use super::neon as below;
use crate::dispatch::table::{KernelTable, QuantizeFn};
use crate::dispatch::tier::{self, Tier};
use crate::panel::build::Source;
use crate::panel::{MicroFn, PanelKernel};
use crate::simd::Eight;

/// What every function of this folder may use.
pub(super) const FEATURES: &str = "neon,dotprod";

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
        PanelKernel { micro: panel::micro(F::KIND), gemv: Some(gemv::gemv::<F>), ..below::This::panels::<F>() }
    }
}

impl Eight for This {
    const MICRO: MicroFn = panel::micro(crate::simd::KIND);
    const QUANTIZE: QuantizeFn = below::TABLE.quantize;
}
