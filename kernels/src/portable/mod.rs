//! The tier for CPUs without one of their own: the scalar kernels, and portable SIMD (`wide`) where the compiler cannot
//! vectorise by itself because of a call to `exp`. Attention stays scalar: there the vector exponential lost a
//! tenth (Zen 4).

mod act;
mod softmax;

use crate::dispatch::table::KernelTable;
use crate::scalar;

/// Every entry of this tier.
pub(crate) static TABLE: KernelTable =
    KernelTable { silu_mul: act::silu_mul, softmax: softmax::softmax, ..scalar::TABLE };
