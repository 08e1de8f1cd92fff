//! Kernels for CPUs with `avx2,fma,f16c,avxvnni`.

mod panel;

use halfbyte_formats::quant::PanelType;

use super::avx2 as below;
use crate::dispatch::table::{Kernel, KernelTable};
use crate::panel::PanelKernel;

/// What every function of this folder may use.
pub(super) const FEATURES: &str = "avx2,fma,f16c,avxvnni";

/// Every entry of this tier.
pub(crate) static TABLE: KernelTable = KernelTable {
    matmul_q4_0: with_micro(below::TABLE.matmul_q4_0),
    matmul_q5_0: with_micro(below::TABLE.matmul_q5_0),
    matmul_q8_0: with_micro(below::TABLE.matmul_q8_0),
    matmul_q4_k: with_micro(below::TABLE.matmul_q4_k),
    matmul_q5_k: with_micro(below::TABLE.matmul_q5_k),
    matmul_q6_k: with_micro(below::TABLE.matmul_q6_k),
    panels,
    ..below::TABLE
};

/// The tier below builds the panels, this one multiplies them.
const fn with_micro(below: Kernel) -> Kernel {
    match below {
        Kernel::Panels(kernel) => Kernel::Panels(PanelKernel { micro: panel::micro, ..kernel }),
        Kernel::Float { .. } => below,
    }
}

/// The kernel of weights stored in panels of `ty`.
fn panels(ty: PanelType) -> PanelKernel {
    PanelKernel { micro: panel::micro, ..(below::TABLE.panels)(ty) }
}
