//! Kernels for CPUs with `avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni`.

mod build;
mod float;
mod gemv;
mod lanes;
mod packed;
mod panel;
mod simd;

use halfbyte_formats::quant::{
    IQ4_NL, IQ4_XS, MXFP4, PanelType, Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0,
};

use super::avx2 as below;
use super::mem::prefetch;
use crate::dispatch::table::{Kernel, KernelTable, QuantizeFn};
use crate::pack::{OfFormat, PanelFormat, of_format};
use crate::panel::build::{RowMajor, Source, Stored};
use crate::panel::{MicroFn, PanelKernel};
use crate::simd::{Brain, Eight, Half, Single};

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
    matmul_f32: float::plain::<Single>(),
    matmul_f16: float::plain::<Half>(),
    matmul_bf16: float::plain::<Brain>(),
    matmul_q4_1: float::blocks::<Q4_1>(),
    matmul_q5_1: float::blocks::<Q5_1>(),
    matmul_q2_k: float::blocks::<Q2_K>(),
    matmul_q3_k: float::blocks::<Q3_K>(),
    matmul_iq4_nl: float::blocks::<IQ4_NL>(),
    matmul_iq4_xs: float::blocks::<IQ4_XS>(),
    matmul_mxfp4: float::blocks::<MXFP4>(),
    panels,
    rms_norm: float::rms_norm,
    layer_norm: float::layer_norm,
    rope_neox: float::rope_neox,
    silu_mul: float::silu_mul,
    add: float::add,
    softmax: float::softmax,
    kv_append: float::kv_append,
    attention_gqa: float::attention_gqa::<Products>,
    attention_part: float::attention_part::<Products>,
    attention_merge: float::attention_merge,
    ..below::TABLE
};

/// The kernel of row-major blocks of `F`.
const fn row_major<F>() -> Kernel
where
    RowMajor<F>: Source,
{
    Kernel::Panels(kernel::<RowMajor<F>>())
}

/// The kernel of weights stored in panels of `ty`.
fn panels(ty: PanelType) -> PanelKernel {
    struct Panels;
    impl OfFormat for Panels {
        type Output = PanelKernel;

        fn of<P: PanelFormat>(self) -> PanelKernel {
            kernel::<Stored<P>>()
        }
    }
    of_format(ty, Panels)
}

/// The kernel of weights of `F`.
const fn kernel<F: Source>() -> PanelKernel {
    PanelKernel {
        kind: F::KIND,
        build: build::build::<F>,
        micro: panel::micro,
        gemv: Some(gemv::gemv::<F>),
        tiles: 2,
        prefetch,
    }
}

/// What attention multiplies numbers of 8 bits with.
struct Products;

impl Eight for Products {
    const MICRO: MicroFn = panel::micro;
    const QUANTIZE: QuantizeFn = below::TABLE.quantize;
}
