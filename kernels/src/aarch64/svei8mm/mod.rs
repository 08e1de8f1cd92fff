//! Kernels for CPUs with `neon,dotprod,i8mm,sve` and vectors of at least 256 bits: the micro-kernel of many tokens.
//! Everything else is that of the tier below. So are products of few tokens: on the model of Neoverse V1 those in
//! registers of 256 bits (the tier `sve`) take as long, as it has half as many units for them, and scales come on top.

mod build;
mod panel;
mod product;

use super::{i8mm as below, neon};
use crate::dispatch::table::KernelTable;
use crate::dispatch::tier::{self, Tier};
use crate::panel::PanelKernel;
use crate::panel::build::Source;

/// What every function of this folder may use.
pub(super) const FEATURES: &str = "neon,dotprod,i8mm,sve";

/// Every entry of this tier.
pub(crate) static TABLE: KernelTable = KernelTable { kernel: tier::kernel::<This>, ..below::TABLE };

/// This tier.
pub(super) struct This;

impl Tier for This {
    type Floats = neon::This;

    fn panels<F: Source>() -> PanelKernel {
        PanelKernel { build: build::build::<F>, micro: panel::micro, ..below::This::panels::<F>() }
    }
}
