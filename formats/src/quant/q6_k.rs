//! Q6_K: 256 elements in 210 bytes; 16 sub-blocks of 16 with signed byte scales under one f16 scale.
//!
//! ```text
//! bytes 0..128   ql[64 h + i], h in 0..2, i in 0..64: lower four bits of two elements,
//!                bits 0..4: element 128 h + i, bits 4..8: element 128 h + 64 + i
//!     128..192   qh[32 h + l], l in 0..32: upper two bits of four elements,
//!                bits 2t..2t+2: element 128 h + 32 t + l, t in 0..4
//!     192..208   sc[e / 16]  i8, scale of element e
//!     208..210   d           f16
//! y = (d * sc) * (q - 32)
//! ```
//! Source: `block_q6_K`, `dequantize_row_q6_K` in ggml.

use super::{BlockFormat, QuantType, cast};

/// 6 bits, one scale per 16.
#[expect(non_camel_case_types, reason = "the field's standard name")]
#[derive(Clone, Copy, Debug)]
pub struct Q6_K;

impl BlockFormat for Q6_K {
    const TYPE: QuantType = QuantType::Q6_K;
    const LEN: usize = 256;
    const BYTES: usize = 210;

    #[inline]
    fn decode(block: &[u8], out: &mut [f32]) {
        let Some((block, out)) = cast::arrays::<210, 256>(block, out) else {
            return;
        };
        let (ql, rest) = cast::split::<128, 82, 210>(block);
        let (qh, rest) = cast::split::<64, 18, 82>(rest);
        let (scales, d) = cast::split::<16, 2, 18>(rest);
        let d = cast::scale(*d);
        let scales = scales.map(|sc| d * f32::from(sc as i8));
        let halves = ql.as_chunks::<64>().0.iter().zip(qh.as_chunks::<32>().0);
        let halves = halves
            .zip(scales.as_chunks::<8>().0)
            .zip(out.as_chunks_mut::<128>().0);
        for (((ql, qh), scales), out) in halves {
            // Quarter t holds elements 32 t .. 32 t + 32 of this half; each has two scales.
            let quarters = out
                .as_chunks_mut::<32>()
                .0
                .iter_mut()
                .zip(scales.as_chunks::<2>().0);
            for (t, (out, &[first, second])) in quarters.enumerate() {
                let (ql_even, ql_odd) = cast::split::<32, 32, 64>(ql);
                let ql = if t % 2 == 0 { ql_even } else { ql_odd };
                let quants = ql.iter().zip(qh).map(|(&l, &h)| {
                    let low = if t < 2 { l & 15 } else { l >> 4 };
                    f32::from((low | (h >> (2 * t) & 3) << 4) as i8 - 32)
                });
                for (l, (y, q)) in out.iter_mut().zip(quants).enumerate() {
                    *y = if l < 16 { first * q } else { second * q };
                }
            }
        }
    }
}
