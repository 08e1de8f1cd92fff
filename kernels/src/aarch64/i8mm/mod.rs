//! Kernels for CPUs with `neon,dotprod,i8mm`. Products of few tokens are those of the tier below.

pub(super) mod build;
pub(super) mod panel;

use super::{dotprod as below, neon};
use crate::dispatch::table::{KernelTable, QuantizeFn};
use crate::dispatch::tier::{self, Tier};
use crate::panel::build::Source;
use crate::panel::{MicroFn, PanelKernel};
use crate::simd::Eight;

/// What every function of this folder may use.
pub(super) const FEATURES: &str = "neon,dotprod,i8mm";

/// Every entry of this tier.
pub(crate) static TABLE: KernelTable = KernelTable {
    kernel: tier::kernel::<This>,
    attention_gqa: neon::float::attention_gqa::<This>,
    attention_part: neon::float::attention_part::<This>,
    ..below::TABLE
};

/// This tier.
pub(super) struct This;

impl Tier for This {
    type Floats = neon::This;

    fn panels<F: Source>() -> PanelKernel {
        PanelKernel { build: build::build::<F>, micro: panel::micro::<true>, ..below::This::panels::<F>() }
    }
}

/// Multiplies panels as they are stored.
impl Eight for This {
    const MICRO: MicroFn = panel::micro::<false>;
    const QUANTIZE: QuantizeFn = neon::TABLE.quantize;
}
