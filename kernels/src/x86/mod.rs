//! x86-64: a folder a tier.
//!
//! `avxvnni` and `avx512vnni` both stand on `avx2`: a CPU with AVX-512 need not have the 256-bit form of the dot
//! products.

mod avx2;
mod avx512vnni;
mod avxvnni;
mod gemv;
mod mem;

use crate::isa::{Isa, TierEntry};

/// The tiers, best first.
pub(crate) static TIERS: [TierEntry; 3] = [
    (Isa::Avx512Vnni, avx512vnni::FEATURES, &avx512vnni::TABLE),
    (Isa::AvxVnni, avxvnni::FEATURES, &avxvnni::TABLE),
    (Isa::Avx2, avx2::FEATURES, &avx2::TABLE),
];

/// Whether this CPU, and the system for its registers, has a feature that some tier names.
pub(crate) fn has(feature: &str) -> bool {
    match feature {
        "avx2" => is_x86_feature_detected!("avx2"),
        "fma" => is_x86_feature_detected!("fma"),
        "f16c" => is_x86_feature_detected!("f16c"),
        "avxvnni" => is_x86_feature_detected!("avxvnni"),
        "avx512f" => is_x86_feature_detected!("avx512f"),
        "avx512bw" => is_x86_feature_detected!("avx512bw"),
        "avx512dq" => is_x86_feature_detected!("avx512dq"),
        "avx512vl" => is_x86_feature_detected!("avx512vl"),
        "avx512vnni" => is_x86_feature_detected!("avx512vnni"),
        _ => false,
    }
}
