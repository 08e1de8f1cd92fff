//! Q4_K: 256 elements in 144 bytes; 8 sub-blocks of 32 with 6-bit scales and minima under two f16 scales.
//!
//! ```text
//! bytes 0..2     d       f16, scale of the scales
//!       2..4     dmin    f16, scale of the minima
//!       4..16    eight 6-bit (sc, m) pairs, see `k_scales`
//!      16..144   qs[32 c + l], c in 0..4: bits 0..4: element 64 c + l, bits 4..8: element 64 c + 32 + l
//! y = (d * sc) * q - dmin * m      sc, m of the element's sub-block
//! ```
//! Source: `block_q4_K`, `dequantize_row_q4_K` in ggml.

use super::{BlockFormat, QuantType, cast, k_scales};

/// 4 bits, scale and minimum per 32.
#[expect(non_camel_case_types, reason = "the field's standard name")]
#[derive(Clone, Copy, Debug)]
pub struct Q4_K;

impl BlockFormat for Q4_K {
    const TYPE: QuantType = QuantType::Q4_K;
    const LEN: usize = 256;
    const BYTES: usize = 144;

    #[inline]
    fn decode(block: &[u8], out: &mut [f32]) {
        let Some((block, out)) = cast::arrays::<144, 256>(block, out) else {
            return;
        };
        let (head, qs) = cast::split::<16, 128, 144>(block);
        let (d, dmin, pairs) = k_scales::read_head(head);
        let (pairs, _) = pairs.as_chunks::<2>();
        let (out, _) = out.as_chunks_mut::<64>();
        let (qs, _) = qs.as_chunks::<32>();
        for ((qs, &[low, high]), out) in qs.iter().zip(pairs).zip(out) {
            let (d_low, m_low) = (d * f32::from(low.0), dmin * f32::from(low.1));
            let (d_high, m_high) = (d * f32::from(high.0), dmin * f32::from(high.1));
            let (y_low, y_high) = out.split_at_mut(32);
            for ((&q, y_low), y_high) in qs.iter().zip(y_low).zip(y_high) {
                *y_low = d_low * f32::from(q & 15) - m_low;
                *y_high = d_high * f32::from(q >> 4) - m_high;
            }
        }
    }
}
