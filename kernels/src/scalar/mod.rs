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

use crate::dispatch::table::KernelTable;

/// Every entry of this tier.
pub(crate) static TABLE: KernelTable = KernelTable {
    kernel: matmul::kernel,
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
