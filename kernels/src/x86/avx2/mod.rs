//! Kernels for CPUs with `avx2,fma,f16c`.

use crate::dispatch::table::KernelTable;
use crate::scalar as below;

/// What every function of this folder may use.
pub(super) const FEATURES: &str = "avx2,fma,f16c";

/// Every entry of this tier.
pub(crate) static TABLE: KernelTable = KernelTable { ..below::TABLE };
