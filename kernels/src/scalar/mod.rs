//! The reference tier: plain Rust, nothing but `std` and the format code of `halfbyte-formats`.
//!
//! Its table is complete; every other tier starts from it and is tested against it. Loops are written over fixed-size
//! arrays so that the compiler turns them into vector code, and sum in a fixed order, so that a result never depends on
//! how work was split. Multiplications and additions stay separate: Rust does not contract them, so all targets
//! agree but for the last bit of `exp`, which is the platform's.

mod act;
mod attention;
mod dot;
mod half;
mod kv;
mod matmul;
mod norm;
pub(crate) mod panel;
pub(crate) mod quantize;
mod rope;
pub(crate) mod softmax;

use halfbyte_formats::quant::{
    BF16, F32, IQ4_NL, IQ4_XS, MXFP4, Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0,
};

use crate::dispatch::table::KernelTable;
use half::Half;

/// Every entry of this tier.
pub(crate) static TABLE: KernelTable = KernelTable {
    matmul_f32: matmul::entry::<F32>(),
    matmul_f16: matmul::entry::<Half>(),
    matmul_bf16: matmul::entry::<BF16>(),
    matmul_q4_0: matmul::entry::<Q4_0>(),
    matmul_q4_1: matmul::entry::<Q4_1>(),
    matmul_q5_0: matmul::entry::<Q5_0>(),
    matmul_q5_1: matmul::entry::<Q5_1>(),
    matmul_q8_0: matmul::entry::<Q8_0>(),
    matmul_q2_k: matmul::entry::<Q2_K>(),
    matmul_q3_k: matmul::entry::<Q3_K>(),
    matmul_q4_k: matmul::entry::<Q4_K>(),
    matmul_q5_k: matmul::entry::<Q5_K>(),
    matmul_q6_k: matmul::entry::<Q6_K>(),
    matmul_iq4_nl: matmul::entry::<IQ4_NL>(),
    matmul_iq4_xs: matmul::entry::<IQ4_XS>(),
    matmul_mxfp4: matmul::entry::<MXFP4>(),
    panels: panel::packed,
    quantize: quantize::quantize,
    rms_norm: norm::rms_norm,
    layer_norm: norm::layer_norm,
    rope_neox: rope::rope_neox,
    silu_mul: act::silu_mul,
    add: act::add,
    softmax: softmax::softmax,
    kv_append: kv::kv_append,
    attention_gqa: attention::attention_gqa,
    attention_part: attention::attention_part,
    attention_merge: attention::attention_merge,
};
