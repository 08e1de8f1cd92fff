//! Q2_K: 256 elements in 84 bytes; 16 sub-blocks of 16 with 4-bit scales and minima under two f16 scales.
//!
//! ```text
//! bytes 0..16    sc[e / 16]   bits 0..4: scale, bits 4..8: minimum, of the sub-block of element e
//!      16..80    qs[32 h + l], h in 0..2, l in 0..32: four elements,
//!                bits 2t..2t+2: element 128 h + 32 t + l, t in 0..4
//!      80..82    d       f16, scale of the scales
//!      82..84    dmin    f16, scale of the minima
//! y = (d * scale) * q - dmin * minimum
//! ```
//! Source: `block_q2_K`, `dequantize_row_q2_K` in ggml.

use super::{BlockFormat, QuantType, cast};

/// 2 bits, scale and minimum per 16.
#[expect(non_camel_case_types, reason = "the field's standard name")]
#[derive(Clone, Copy, Debug)]
pub struct Q2_K;

impl BlockFormat for Q2_K {
    const TYPE: QuantType = QuantType::Q2_K;
    const LEN: usize = 256;
    const BYTES: usize = 84;

    #[inline]
    fn decode(block: &[u8], out: &mut [f32]) {
        let Some((block, out)) = cast::arrays::<84, 256>(block, out) else {
            return;
        };
        let (scales, rest) = cast::split::<16, 68, 84>(block);
        let (qs, &[d0, d1, m0, m1]) = cast::split::<64, 4, 68>(rest);
        let (d, dmin) = (cast::scale([d0, d1]), cast::scale([m0, m1]));
        let scales = scales.map(|sc| (d * f32::from(sc & 15), dmin * f32::from(sc >> 4)));
        let halves = qs.as_chunks::<32>().0.iter().zip(scales.as_chunks::<8>().0).zip(out.as_chunks_mut::<128>().0);
        for ((qs, scales), out) in halves {
            let quarters = scales.as_chunks::<2>().0.iter().zip(out.as_chunks_mut::<32>().0);
            for (t, (scales, out)) in quarters.enumerate() {
                let sub_blocks = qs.as_chunks::<16>().0.iter().zip(scales).zip(out.as_chunks_mut::<16>().0);
                for ((qs, &(d, m)), out) in sub_blocks {
                    for (q, y) in qs.iter().zip(out) {
                        *y = d * f32::from(q >> (2 * t) & 3) - m;
                    }
                }
            }
        }
    }
}
