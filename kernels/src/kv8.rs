//! Keys and values of 8 bits, laid out as the matrices that attention multiplies.
//!
//! A half page is the keys, or the values, of one head at [`KV_PAGE`] positions: codes, then a scale for each position.
//!
//! ```text
//! keys:    the matrix K  (position, d) in panels of 16 positions:   [position / 16][d / 4][position % 16][d % 4]
//! values:  the matrix Vᵀ (d, position) in panels of 16 dimensions:  [d / 16][position / 4][d % 16][position % 4]
//! scales:  [position], f16
//!
//! x = scale · (code - 128),  scale = max |x| / 127 over the head
//! ```
//! A line of 64 bytes is a [`Panel`](crate::panel::Panel)'s, so the micro-kernels of quantised weights multiply both:
//! queries with keys, and weights with values.

use half::f16;

use crate::ops::kv::{KV_PAGE, KvPart};
use crate::panel::ROWS;

/// Head sizes are multiples of this.
pub(crate) const DIMS: usize = 32;
/// The largest head.
pub(crate) const MAX_DIM: usize = 256;
/// Bytes of a line: four inputs of 16 rows.
pub(crate) const LINE: usize = 4 * ROWS;
/// The code of zero.
const ZERO: u8 = 128;

/// Bytes of a scale.
pub(crate) const SCALE_BYTES: usize = size_of::<f16>();

/// Where the code of element `d` at position `slot` is.
const fn place(part: KvPart, dim: usize, slot: usize, d: usize) -> usize {
    let (row, depth, k) = match part {
        KvPart::Keys => (slot, dim, d),
        KvPart::Values => (d, KV_PAGE, slot),
    };
    row / ROWS * (ROWS * depth) + k / 4 * LINE + row % ROWS * 4 + k % 4
}

/// Rounds `row: (dim)` and stores it at position `slot`. A number that is not finite makes the scale so.
pub(crate) fn append(half: &mut [u8], part: KvPart, slot: usize, row: &[f32]) {
    let dim = row.len().min(MAX_DIM);
    let scale = f16::from_f32(largest(row) / 127.0);
    // Numbers so small that the scale is zero are zeros.
    let divisor = if scale == f16::ZERO { 1.0 } else { scale.to_f32() };
    let mut rounded = [0; MAX_DIM];
    for (code, x) in rounded.iter_mut().zip(row) {
        // Numbers of this size lie one apart: the sum is rounded to an integer, ties to even, which is its lowest bits.
        const SHIFT: f32 = 1.5 * (1 << 23) as f32;
        let n = (x / divisor).clamp(-127.0, 127.0);
        *code = ((n + SHIFT).to_bits() as u8).wrapping_add(ZERO);
    }
    let (codes, scales) = half.split_at_mut(KV_PAGE * dim);
    for (d, code) in rounded.iter().enumerate().take(dim) {
        if let Some(place) = codes.get_mut(place(part, dim, slot, d)) {
            *place = *code;
        }
    }
    if let Some(place) = scales.as_chunks_mut().0.get_mut(slot) {
        *place = scale.to_le_bytes();
    }
}

/// The largest magnitude of `row`; NaN if there is one.
pub(crate) fn largest(row: &[f32]) -> f32 {
    // Magnitudes compare as their bits do, NaN being the largest: a maximum of integers, which compiles to vectors.
    f32::from_bits(row.iter().fold(0, |max, x| max.max(x.abs().to_bits())))
}

/// What is stored at position `slot`: `out: (dim)`.
pub(crate) fn decode(half: &[u8], part: KvPart, slot: usize, out: &mut [f32]) {
    let dim = out.len();
    let (codes, scales) = half.split_at(KV_PAGE * dim);
    let scale = scales.as_chunks().0.get(slot).map_or(f32::NAN, |scale| f16::from_le_bytes(*scale).to_f32());
    for (d, out) in out.iter_mut().enumerate() {
        let code = codes.get(place(part, dim, slot, d)).copied().unwrap_or(0);
        *out = scale * f32::from(i16::from(code) - i16::from(ZERO));
    }
}
