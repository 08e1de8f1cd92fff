//! Q5_K: 256 elements in 176 bytes; Q4_K with a fifth bit per element in a plane of its own.
//!
//! ```text
//! bytes 0..16    d, dmin and the 6-bit pairs as in Q4_K
//!      16..48    qh[l], bit b: fifth bit of element 32 b + l
//!      48..176   qs[32 c + l], c in 0..4: bits 0..4: element 64 c + l, bits 4..8: element 64 c + 32 + l
//! y = (d * sc) * q - dmin * m
//! ```
//! Source: `block_q5_K`, `dequantize_row_q5_K` in ggml.

use super::{BlockFormat, QuantType, cast, k_scales};

/// 5 bits, scale and minimum per 32.
#[expect(non_camel_case_types, reason = "the field's standard name")]
#[derive(Clone, Copy, Debug)]
pub struct Q5_K;

impl BlockFormat for Q5_K {
    const TYPE: QuantType = QuantType::Q5_K;
    const LEN: usize = 256;
    const BYTES: usize = 176;

    #[inline]
    fn decode(block: &[u8], out: &mut [f32]) {
        let Some((block, out)) = cast::arrays::<176, 256>(block, out) else {
            return;
        };
        let (head, quants) = cast::split::<16, 160, 176>(block);
        let (qh, qs) = cast::split::<32, 128, 160>(quants);
        let (d, dmin, pairs) = k_scales::read_head(head);
        let (pairs, _) = pairs.as_chunks::<2>();
        let (out, _) = out.as_chunks_mut::<64>();
        let (qs, _) = qs.as_chunks::<32>();
        for (c, ((qs, &[low, high]), out)) in qs.iter().zip(pairs).zip(out).enumerate() {
            let (d_low, m_low) = (d * f32::from(low.0), dmin * f32::from(low.1));
            let (d_high, m_high) = (d * f32::from(high.0), dmin * f32::from(high.1));
            let (y_low, y_high) = out.split_at_mut(32);
            for (((&q, &h), y_low), y_high) in qs.iter().zip(qh).zip(y_low).zip(y_high) {
                let h = h >> (2 * c);
                *y_low = d_low * f32::from(q & 15 | (h & 1) << 4) - m_low;
                *y_high = d_high * f32::from(q >> 4 | (h >> 1 & 1) << 4) - m_high;
            }
        }
    }
}
