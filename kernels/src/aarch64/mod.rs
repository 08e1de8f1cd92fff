//! 64-bit Arm: a folder a tier, each standing on one before.

mod dotprod;
mod i8mm;
mod mem;
mod neon;
mod sve;
mod svei8mm;

use std::arch::is_aarch64_feature_detected;

use crate::Isa;
use crate::dispatch::table::KernelTable;

/// The tiers, best first: what is needed, and what is then used.
const TIERS: [(Isa, &str, &KernelTable); 5] = [
    (Isa::SveI8mm, svei8mm::FEATURES, &svei8mm::TABLE),
    (Isa::I8mm, i8mm::FEATURES, &i8mm::TABLE),
    (Isa::Sve, sve::FEATURES, &sve::TABLE),
    (Isa::Dotprod, dotprod::FEATURES, &dotprod::TABLE),
    (Isa::Neon, neon::FEATURES, &neon::TABLE),
];

/// Whether this CPU runs the tier of `isa`, which is one of this folder's.
pub(crate) fn runs(isa: Isa) -> bool {
    TIERS.iter().any(|(tier, features, _)| *tier == isa && features.split(',').all(has))
}

/// The table of `isa`, if it is one of this folder's.
pub(crate) fn table(isa: Isa) -> Option<&'static KernelTable> {
    TIERS.iter().find(|(tier, ..)| *tier == isa).map(|(.., table)| *table)
}

/// Whether this CPU, and the system for its registers, has a feature that some tier names.
fn has(feature: &str) -> bool {
    match feature {
        "neon" => is_aarch64_feature_detected!("neon"),
        "dotprod" => is_aarch64_feature_detected!("dotprod"),
        "i8mm" => is_aarch64_feature_detected!("i8mm"),
        // SAFETY: the CPU has SVE.
        "sve" => is_aarch64_feature_detected!("sve") && unsafe { sve::bytes() } >= sve::LEAST_BYTES,
        _ => false,
    }
}
