//! Q5_0: 32 elements in 22 bytes, 5 bits each around zero, one scale.
//!
//! ```text
//! bytes 0..2   d      f16
//!       2..6   qh     u32, bit e: fifth bit of element e
//!       6..22  qs[j]  bits 0..4: element j, bits 4..8: element j + 16
//! y = d * (q - 16)
//! ```
//! Source: `block_q5_0`, `dequantize_row_q5_0`, `quantize_row_q5_0_ref` in ggml.

use half::f16;

use super::{BlockFormat, EncodeBlock, QuantType, cast};

/// 5 bits, one scale per 32.
#[derive(Clone, Copy, Debug)]
pub struct Q5_0;

impl BlockFormat for Q5_0 {
    const TYPE: QuantType = QuantType::Q5_0;
    const LEN: usize = 32;
    const BYTES: usize = 22;

    #[inline]
    fn decode(block: &[u8], out: &mut [f32]) {
        let Some((block, out)) = cast::arrays::<22, 32>(block, out) else {
            return;
        };
        let (&[d0, d1, h0, h1, h2, h3], qs) = cast::split::<6, 16, 22>(block);
        let d = cast::scale([d0, d1]);
        let qh = u32::from_le_bytes([h0, h1, h2, h3]);
        let (low, high) = out.split_at_mut(16);
        for (j, ((&q, low), high)) in qs.iter().zip(low).zip(high).enumerate() {
            let fifth = |e: usize| (qh >> e & 1) as u8 * 16;
            *low = f32::from((q & 15 | fifth(j)) as i8 - 16) * d;
            *high = f32::from((q >> 4 | fifth(j + 16)) as i8 - 16) * d;
        }
    }
}

impl EncodeBlock for Q5_0 {
    /// The scale is a sixteenth of the largest value.
    const MAX_ABS: f32 = 16.0 * 65504.0;

    /// d = (the value of largest magnitude) / -16, so that value becomes q = 0; q = min(31, trunc(x / d + 16.5)).
    fn encode(values: &[f32], block: &mut [u8]) {
        let Some((values, block)) = cast::arrays_mut::<22, 32>(values, block) else { return };
        let d = cast::largest(values) / -16.0;
        let inverse = cast::inverse(d);
        let q = |x: f32| ((x * inverse + 16.5) as u8).min(31);
        let [d0, d1, h0, h1, h2, h3, qs @ ..] = block;
        [*d0, *d1] = f16::from_f32(d).to_le_bytes();
        let (low, high) = values.split_at(16);
        let mut qh = 0;
        for (j, ((byte, &low), &high)) in qs.iter_mut().zip(low).zip(high).enumerate() {
            let (low, high) = (q(low), q(high));
            *byte = low & 15 | high << 4;
            qh |= u32::from(low >> 4) << j | u32::from(high >> 4) << (j + 16);
        }
        [*h0, *h1, *h2, *h3] = qh.to_le_bytes();
    }
}
