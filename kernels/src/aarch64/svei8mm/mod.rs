//! Kernels for CPUs with `neon,dotprod,i8mm,sve` and vectors of at least 256 bits: the micro-kernel of many tokens.
//! Everything else is that of the tier below. So are products of few tokens. Neoverse V1 has half as many units for
//! registers of 256 bits, and by its model the loops of the tier `sve` take 0.91 (Q4_0, one token) to 0.66 (Q6_K, four) of
//! those below; but theirs has the scales brought into order before, which has not been counted, nor run on such a core.

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
