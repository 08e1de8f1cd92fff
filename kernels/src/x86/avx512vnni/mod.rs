//! Kernels for CPUs with `avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni`.

mod panel;

use halfbyte_formats::quant::{GroupFormat, Q4_0, Q4_K, Q5_0, Q5_K, Q6_K, Q8_0};

use super::avx2 as below;
use crate::dispatch::table::{Kernel, KernelTable, Matmul};
use crate::panel::PanelKernel;
use crate::scalar;

/// What every function of this folder may use.
pub(super) const FEATURES: &str = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni";

/// Every entry of this tier.
pub(crate) static TABLE: KernelTable = KernelTable {
    matmul_q4_0: row_major::<Q4_0>(),
    matmul_q5_0: row_major::<Q5_0>(),
    matmul_q8_0: row_major::<Q8_0>(),
    matmul_q4_k: row_major::<Q4_K>(),
    matmul_q5_k: row_major::<Q5_K>(),
    matmul_q6_k: row_major::<Q6_K>(),
    ..below::TABLE
};

const fn row_major<F: GroupFormat>() -> Matmul {
    let kernel = PanelKernel { micro: panel::micro, ..scalar::panel::row_major::<F>() };
    Matmul { row_major: Kernel::Panels(kernel), panels: None }
}
