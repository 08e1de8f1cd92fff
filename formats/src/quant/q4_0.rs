//! Q4_0: 32 elements in 18 bytes, 4 bits each around zero, one scale.
//!
//! ```text
//! bytes 0..2   d      f16
//!       2..18  qs[j]  bits 0..4: element j, bits 4..8: element j + 16
//! y = d * (q - 8)
//! ```
//! Source: `block_q4_0`, `dequantize_row_q4_0`, `quantize_row_q4_0_ref` in ggml.

use half::f16;

use super::{BlockFormat, EncodeBlock, QuantType, cast};

/// 4 bits, one scale per 32.
#[derive(Clone, Copy, Debug)]
pub struct Q4_0;

impl BlockFormat for Q4_0 {
    const TYPE: QuantType = QuantType::Q4_0;
    const LEN: usize = 32;
    const BYTES: usize = 18;

    #[inline]
    fn decode(block: &[u8], out: &mut [f32]) {
        let Some((block, out)) = cast::arrays::<18, 32>(block, out) else {
            return;
        };
        let (d, qs) = cast::split::<2, 16, 18>(block);
        let d = cast::scale(*d);
        let (low, high) = out.split_at_mut(16);
        for ((&q, low), high) in qs.iter().zip(low).zip(high) {
            *low = f32::from((q & 15) as i8 - 8) * d;
            *high = f32::from((q >> 4) as i8 - 8) * d;
        }
    }
}

impl EncodeBlock for Q4_0 {
    /// The scale is an eighth of the largest value.
    const MAX_ABS: f32 = 8.0 * 65504.0;

    /// d = (the value of largest magnitude) / -8, so that value becomes q = 0 exactly; q = min(15, trunc(x / d + 8.5)).
    fn encode(values: &[f32], block: &mut [u8]) {
        let Some((values, block)) = cast::arrays_mut::<18, 32>(values, block) else {
            return;
        };
        let d = cast::largest(values) / -8.0;
        let inverse = cast::inverse(d);
        let q = |x: f32| ((x * inverse + 8.5) as u8).min(15);
        let [d0, d1, qs @ ..] = block;
        [*d0, *d1] = f16::from_f32(d).to_le_bytes();
        let (low, high) = values.split_at(16);
        for ((byte, &low), &high) in qs.iter_mut().zip(low).zip(high) {
            *byte = q(low) | q(high) << 4;
        }
    }
}
