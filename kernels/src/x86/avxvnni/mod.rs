//! Kernels for CPUs with `avx2,fma,f16c,avxvnni`.

use super::avx2 as below;
use crate::dispatch::table::KernelTable;

/// What every function of this folder may use.
pub(super) const FEATURES: &str = "avx2,fma,f16c,avxvnni";

/// Every entry of this tier.
pub(crate) static TABLE: KernelTable = KernelTable { ..below::TABLE };
