//! Kernels for CPUs with `avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni`.

mod build;
mod float;
mod gemv;
mod lanes;
mod packed;
mod panel;
mod simd;

use super::avx2 as below;
use super::mem::prefetch;
use crate::dispatch::table::{KernelTable, QuantizeFn};
use crate::dispatch::tier::{self, Tier};
use crate::panel::build::Source;
use crate::panel::{MicroFn, PanelKernel};
use crate::simd::Eight;

/// What every function of this folder may use.
pub(super) const FEATURES: &str = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni";

/// Every entry of this tier.
pub(crate) static TABLE: KernelTable = KernelTable {
    kernel: tier::kernel::<This>,
    rms_norm: float::rms_norm,
    layer_norm: float::layer_norm,
    rope_neox: float::rope_neox,
    silu_mul: float::silu_mul,
    add: float::add,
    softmax: float::softmax,
    kv_append: float::kv_append,
    attention_gqa: float::attention_gqa::<This>,
    attention_part: float::attention_part::<This>,
    attention_merge: float::attention_merge,
    ..below::TABLE
};

/// This tier.
pub(super) struct This;

impl Tier for This {
    type Floats = Self;

    fn panels<F: Source>() -> PanelKernel {
        PanelKernel {
            kind: F::KIND,
            build: build::build::<F>,
            micro: panel::micro,
            gemv: Some(gemv::gemv::<F>),
            tiles: 2,
            prefetch,
        }
    }
}

impl Eight for This {
    const MICRO: MicroFn = panel::micro;
    const QUANTIZE: QuantizeFn = below::TABLE.quantize;
}
