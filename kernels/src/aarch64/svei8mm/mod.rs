//! Kernels for CPUs with `neon,dotprod,i8mm,sve` and vectors of at least 256 bits: the micro-kernel of many tokens, and
//! products of few where SVE is faster. Everything else is that of the tier below.

mod build;
mod gemv;
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
        let below = below::This::panels::<F>();
        PanelKernel { build: build::build::<F>, micro: panel::micro, gemv: gemv::gemv::<F>(below.gemv), ..below }
    }
}
