//! The micro-kernel: 16 rows by four tokens.
//!
//! ```text
//! registers: 8 sums of 8 rows, the 2 halves of a line, an input; with one or two tokens also the outputs
//! a line:    for 4 tokens, 2 halves:  vpdpbusd sum, half, input
//! ```
//! The order in which the compiler puts these is a good one: 78 % of the peak of `vpdpbusd ymm` on Zen 5. The loop over lines
//! stays one: unrolled, the compiler moves loads up until it spills.

use std::arch::x86_64::*;

use crate::panel::Micro;
use crate::scalar;
use crate::x86::avx2::micro::{self, Dots, Integers, Line, rolled};

/// The proof that this CPU has the features of this tier.
#[derive(Clone, Copy, Debug)]
struct Vnni(());

impl Dots for Vnni {
    #[inline(always)]
    unsafe fn sums<const R: usize, const T: usize>(
        self,
        lines: &[Line],
        first: usize,
        input: *const u32,
        start: [__m256i; T],
    ) -> Integers<R, T> {
        // SAFETY: the contract is the same, and `self` the proof of the features.
        unsafe { sums(lines, first, input, start) }
    }
}

/// See [`Dots::sums`].
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
unsafe fn sums<const R: usize, const T: usize>(
    lines: &[Line],
    first: usize,
    input: *const u32,
    start: [__m256i; T],
) -> Integers<R, T> {
    let mut sums = start.map(|start| [start; R]);
    let (mut line, mut input) = (lines.as_ptr(), input);
    for _ in 0..rolled(lines.len() / 2) {
        for _ in 0..2 {
            let mut codes = [_mm256_setzero_si256(); R];
            for (r, codes) in codes.iter_mut().enumerate() {
                // SAFETY: 32 of the 64 bytes of one of `lines`.
                *codes = unsafe { _mm256_loadu_si256(line.cast::<__m256i>().wrapping_add(first + r)) };
            }
            for (t, sums) in sums.iter_mut().enumerate() {
                // SAFETY: `T` words a line.
                let input = _mm256_set1_epi32(unsafe { *input.wrapping_add(t) }.cast_signed());
                for (sum, codes) in sums.iter_mut().zip(codes) {
                    *sum = _mm256_dpbusd_avx_epi32(*sum, codes, input);
                }
            }
            (line, input) = (line.wrapping_add(1), input.wrapping_add(T));
        }
    }
    sums
}

/// A [`MicroFn`](crate::panel::MicroFn).
///
/// # Safety
/// As there.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
pub(super) unsafe fn micro(m: &Micro) {
    if !m.normal {
        // SAFETY: the contract is the same.
        return unsafe { scalar::panel::micro(m) };
    }
    let product: unsafe fn(&Micro, usize) = micro::instance!(product, m);
    for p in 0..m.count {
        // SAFETY: the contract is the same; the instance is that for `m`, and `p < count`.
        unsafe { product(m, p) };
    }
}

/// One panel by `T` tokens.
///
/// # Safety
/// As [`micro::product`].
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
unsafe fn product<const T: usize, const HALVES: bool, const MINS: bool>(m: &Micro, p: usize) {
    // SAFETY: the contract is the same; as this function may run, the CPU has its features.
    unsafe { micro::product::<Vnni, 2, T, HALVES, MINS>(Vnni(()), m, p, 0) };
}
