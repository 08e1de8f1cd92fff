//! Kernels for CPUs with `neon`: all 64-bit Arm.

pub(super) mod build;
pub(super) mod float;
pub(super) mod gemv;
mod half;
pub(super) mod intrinsics;
pub(super) mod lanes;
pub(super) mod micro;
mod packed;
mod panel;
mod quantize;
mod simd;

use super::mem::prefetch;
use crate::dispatch::table::{KernelTable, QuantizeFn};
use crate::dispatch::tier::{self, Tier};
use crate::panel::build::Source;
use crate::panel::{MicroFn, PanelKernel};
use crate::simd::{Eight, KIND};

/// What every function of this folder may use.
pub(super) const FEATURES: &str = "neon";

/// Every entry of this tier.
pub(crate) static TABLE: KernelTable = KernelTable {
    kernel: tier::kernel::<This>,
    quantize: quantize::quantize,
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
};

/// This tier.
pub(super) struct This;

impl Tier for This {
    type Floats = Self;

    fn panels<F: Source>() -> PanelKernel {
        PanelKernel {
            kind: F::KIND,
            build: build::build::<F>,
            micro: panel::micro(F::KIND),
            gemv: Some(panel::gemv::<F>),
            tiles: 1,
            prefetch,
        }
    }
}

impl Eight for This {
    const MICRO: MicroFn = panel::micro(KIND);
    const QUANTIZE: QuantizeFn = quantize::quantize;
}
