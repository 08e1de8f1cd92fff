//! Q4_1: 32 elements in 20 bytes, 4 bits each above a minimum.
//!
//! ```text
//! bytes 0..2   d      f16
//!       2..4   m      f16
//!       4..20  qs[j]  bits 0..4: element j, bits 4..8: element j + 16
//! y = d * q + m
//! ```
//! Source: `block_q4_1`, `dequantize_row_q4_1` in ggml.

use super::{BlockFormat, QuantType, cast};

/// 4 bits, scale and minimum per 32.
#[derive(Clone, Copy, Debug)]
pub struct Q4_1;

impl BlockFormat for Q4_1 {
    const TYPE: QuantType = QuantType::Q4_1;
    const LEN: usize = 32;
    const BYTES: usize = 20;

    #[inline]
    fn decode(block: &[u8], out: &mut [f32]) {
        let Some((block, out)) = cast::arrays::<20, 32>(block, out) else {
            return;
        };
        let (&[d0, d1, m0, m1], qs) = cast::split::<4, 16, 20>(block);
        let (d, m) = (cast::scale([d0, d1]), cast::scale([m0, m1]));
        let (low, high) = out.split_at_mut(16);
        for ((&q, low), high) in qs.iter().zip(low).zip(high) {
            *low = f32::from(q & 15) * d + m;
            *high = f32::from(q >> 4) * d + m;
        }
    }
}
