//! Products of stored panels with one tile of tokens: SVE's where they are faster, or NEON's.

use crate::aarch64::{dotprod, sve};
use crate::panel::Sums;
use crate::panel::build::Source;
use crate::panel::gemv::{Gemv, GemvFn};

/// Bytes of registers from which on SVE's products are faster whatever they are of.
const WIDE: usize = 64;

/// The [`GemvFn`] for stored panels, and for other weights that of the tier below.
pub(super) const fn gemv<F: Source>(below: Option<GemvFn>) -> Option<GemvFn> {
    if F::STORED { Some(faster::<F>) } else { below }
}

/// A [`GemvFn`]. Neoverse V1 multiplies as much in two registers of 256 bits as in four of NEON's. SVE brings scales
/// into order before, and saves copies of codes that have more than four bits: by the model of that core
/// (`benches/arm`) its whole step then takes 0.83 to 0.97 of NEON's with three or four tokens, 1.05 to 1.34 with fewer
/// or with four bits.
///
/// # Safety
/// As there.
#[target_feature(enable = "neon,dotprod,i8mm,sve")]
unsafe fn faster<F: Source>(g: &Gemv<'_>, out: *mut Sums) {
    let wins = sve::bytes() >= WIDE || F::KIND.bits > 4 && g.tokens > 2;
    let gemv: GemvFn = if wins { sve::gemv::tiles::<F> } else { dotprod::gemv::gemv::<F> };
    // SAFETY: the contract is the same, and this CPU has the features of both.
    unsafe { gemv(g, out) };
}
