//! Checked views: a slice of the right length becomes an array, an array splits into its fields.
//!
//! Every format file reads its block through these, so no offset is spelled twice and nothing here can panic. No
//! `unsafe` is needed: blocks have alignment 1 and are taken apart field by field.

use half::f16;

/// The block and the output of a `decode` call as arrays; `None` if a length is wrong (a bug of the caller).
#[inline(always)]
pub(super) fn arrays<'a, const BYTES: usize, const LEN: usize>(
    block: &'a [u8],
    out: &'a mut [f32],
) -> Option<(&'a [u8; BYTES], &'a mut [f32; LEN])> {
    debug_assert_eq!((block.len(), out.len()), (BYTES, LEN), "bytes of a block, elements of a block");
    Some((block.try_into().ok()?, out.try_into().ok()?))
}

/// The values and the block of an `encode` call as arrays; `None` as above.
#[inline(always)]
pub(super) fn arrays_mut<'a, const BYTES: usize, const LEN: usize>(
    values: &'a [f32],
    block: &'a mut [u8],
) -> Option<(&'a [f32; LEN], &'a mut [u8; BYTES])> {
    debug_assert_eq!((block.len(), values.len()), (BYTES, LEN), "bytes of a block, elements of a block");
    Some((values.try_into().ok()?, block.try_into().ok()?))
}

/// Splits `bytes` into its first `A` and last `B` bytes; `A + B == N` is checked when compiling.
#[inline(always)]
pub(super) const fn split<const A: usize, const B: usize, const N: usize>(bytes: &[u8; N]) -> (&[u8; A], &[u8; B]) {
    const { assert!(A + B == N, "the fields fill the block") }
    match (bytes.first_chunk(), bytes.last_chunk()) {
        (Some(a), Some(b)) => (a, b),
        // Impossible by the assertion above; written out because the house has no panics.
        _ => const { (&[0; A], &[0; B]) },
    }
}

/// A stored half-precision scale, exactly, as `f32`.
#[inline(always)]
pub(super) fn scale(bytes: [u8; 2]) -> f32 {
    f16::from_le_bytes(bytes).to_f32()
}

/// The value of largest magnitude, with its sign; the first one on ties, 0 for an empty slice.
#[inline]
pub(super) fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |max: f32, &x| if x.abs() > max.abs() { x } else { max })
}

/// 1 / d, or 0 where that is not a finite number: such a scale stores zeros.
#[inline]
pub(super) fn inverse(d: f32) -> f32 {
    let inverse = 1.0 / d;
    if inverse.is_finite() { inverse } else { 0.0 }
}
