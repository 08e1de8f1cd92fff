//! What a tier is made of.

pub(crate) mod table;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) mod tier;
