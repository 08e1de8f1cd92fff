//! Q3_K: 256 elements in 110 bytes; 16 sub-blocks of 16 with 6-bit scales around zero under one f16 scale.
//!
//! ```text
//! bytes 0..32    hm[l], l in 0..32, bit b: third bit of element 32 b + l
//!      32..96    qs[32 h + l], h in 0..2, l in 0..32: lower two bits of four elements,
//!                bits 2t..2t+2: element 128 h + 32 t + l, t in 0..4
//!      96..104   byte i: bits 0..4: lower bits of scale i, bits 4..8: of scale 8 + i
//!     104..108   byte i, bits 2k..2k+2: upper bits of scale 4 k + i, k in 0..4
//!     108..110   d       f16
//! y = (d * (scale - 32)) * (q - 4)      scale of sub-block e / 16
//! ```
//! Source: `block_q3_K`, `dequantize_row_q3_K` in ggml.

use super::{BlockFormat, QuantType, cast};

/// 3 bits, one scale per 16.
#[expect(non_camel_case_types, reason = "the field's standard name")]
#[derive(Clone, Copy, Debug)]
pub struct Q3_K;

impl Q3_K {
    /// The sixteen scales in bytes 96 to 108 of a block, each in -32..32.
    #[inline(always)]
    pub fn scales(packed: &[u8; 12]) -> [i8; 16] {
        let (low, high) = cast::split::<8, 4, 12>(packed);
        let mut scales = [0; 16];
        for (k, scales) in scales.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let low = low.iter().skip(4 * (k % 2));
            for ((scale, low), high) in scales.iter_mut().zip(low).zip(high) {
                let low = if k < 2 { low & 15 } else { low >> 4 };
                *scale = (low | (high >> (2 * k) & 3) << 4) as i8 - 32;
            }
        }
        scales
    }
}

impl BlockFormat for Q3_K {
    const TYPE: QuantType = QuantType::Q3_K;
    const LEN: usize = 256;
    const BYTES: usize = 110;

    #[inline]
    fn decode(block: &[u8], out: &mut [f32]) {
        let Some((block, out)) = cast::arrays::<110, 256>(block, out) else {
            return;
        };
        let (high, rest) = cast::split::<32, 78, 110>(block);
        let (qs, rest) = cast::split::<64, 14, 78>(rest);
        let (scales, d) = cast::split::<12, 2, 14>(rest);
        let d = cast::scale(*d);
        let scales = Self::scales(scales).map(|sc| d * f32::from(sc));
        let halves = qs.as_chunks::<32>().0.iter().zip(scales.as_chunks::<8>().0).zip(out.as_chunks_mut::<128>().0);
        for (h, ((qs, scales), out)) in halves.enumerate() {
            let quarters = scales.as_chunks::<2>().0.iter().zip(out.as_chunks_mut::<32>().0);
            for (t, (scales, out)) in quarters.enumerate() {
                let quants = qs.as_chunks::<16>().0.iter().zip(high.as_chunks::<16>().0);
                for (((qs, high), d), out) in quants.zip(scales).zip(out.as_chunks_mut::<16>().0) {
                    for ((q, high), y) in qs.iter().zip(high).zip(out) {
                        let third = high >> (4 * h + t) & 1;
                        *y = d * f32::from((q >> (2 * t) & 3 | third << 2) as i8 - 4);
                    }
                }
            }
        }
    }
}
