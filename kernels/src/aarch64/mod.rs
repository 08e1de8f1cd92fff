//! 64-bit Arm: a folder a tier, each standing on one before.

mod dotprod;
mod i8mm;
mod mem;
mod neon;
mod sve;
mod svei8mm;

use std::arch::is_aarch64_feature_detected;

use crate::isa::{Isa, TierEntry};

/// The tiers, best first.
pub(crate) static TIERS: [TierEntry; 5] = [
    (Isa::SveI8mm, svei8mm::FEATURES, &svei8mm::TABLE),
    (Isa::I8mm, i8mm::FEATURES, &i8mm::TABLE),
    (Isa::Sve, sve::FEATURES, &sve::TABLE),
    (Isa::Dotprod, dotprod::FEATURES, &dotprod::TABLE),
    (Isa::Neon, neon::FEATURES, &neon::TABLE),
];

/// Whether this CPU, and the system for its registers, has a feature that some tier names.
pub(crate) fn has(feature: &str) -> bool {
    match feature {
        "neon" => is_aarch64_feature_detected!("neon"),
        "dotprod" => is_aarch64_feature_detected!("dotprod"),
        "i8mm" => is_aarch64_feature_detected!("i8mm"),
        // SAFETY: the CPU has SVE.
        "sve" => is_aarch64_feature_detected!("sve") && unsafe { sve::bytes() } >= sve::LEAST_BYTES,
        _ => false,
    }
}
