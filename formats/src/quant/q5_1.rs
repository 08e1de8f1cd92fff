//! Q5_1: 32 elements in 24 bytes, 5 bits each above a minimum.
//!
//! ```text
//! bytes 0..2   d      f16
//!       2..4   m      f16
//!       4..8   qh     u32, bit e: fifth bit of element e
//!       8..24  qs[j]  bits 0..4: element j, bits 4..8: element j + 16
//! y = d * q + m
//! ```
//! Source: `block_q5_1`, `dequantize_row_q5_1` in ggml.

use super::{BlockFormat, QuantType, cast};

/// 5 bits, scale and minimum per 32.
#[derive(Clone, Copy, Debug)]
pub struct Q5_1;

impl BlockFormat for Q5_1 {
    const TYPE: QuantType = QuantType::Q5_1;
    const LEN: usize = 32;
    const BYTES: usize = 24;

    #[inline]
    fn decode(block: &[u8], out: &mut [f32]) {
        let Some((block, out)) = cast::arrays::<24, 32>(block, out) else {
            return;
        };
        let (&[d0, d1, m0, m1, h0, h1, h2, h3], qs) = cast::split::<8, 16, 24>(block);
        let (d, m) = (cast::scale([d0, d1]), cast::scale([m0, m1]));
        let qh = u32::from_le_bytes([h0, h1, h2, h3]);
        let (low, high) = out.split_at_mut(16);
        for (j, ((&q, low), high)) in qs.iter().zip(low).zip(high).enumerate() {
            let fifth = |e: usize| (qh >> e & 1) as u8 * 16;
            *low = f32::from(q & 15 | fifth(j)) * d + m;
            *high = f32::from(q >> 4 | fifth(j + 16)) * d + m;
        }
    }
}
