//! Q8_0: 32 elements in 34 bytes, signed bytes, one scale.
//!
//! ```text
//! bytes 0..2   d      f16
//!       2..34  qs[j]  i8: element j
//! y = d * q
//! ```
//! Source: `block_q8_0`, `dequantize_row_q8_0`, `quantize_row_q8_0_ref` in ggml.

use half::f16;

use super::{BlockFormat, EncodeBlock, QuantType, cast};

/// 8 bits, one scale per 32.
#[derive(Clone, Copy, Debug)]
pub struct Q8_0;

impl BlockFormat for Q8_0 {
    const TYPE: QuantType = QuantType::Q8_0;
    const LEN: usize = 32;
    const BYTES: usize = 34;

    #[inline]
    fn decode(block: &[u8], out: &mut [f32]) {
        let Some((block, out)) = cast::arrays::<34, 32>(block, out) else {
            return;
        };
        let (d, qs) = cast::split::<2, 32, 34>(block);
        let d = cast::scale(*d);
        for (&q, y) in qs.iter().zip(out) {
            *y = f32::from(q as i8) * d;
        }
    }
}

impl EncodeBlock for Q8_0 {
    /// The scale is the largest magnitude over 127.
    const MAX_ABS: f32 = 127.0 * 65504.0;

    /// d = max |x| / 127, q = round(x / d), halves away from zero; the division uses d before it is rounded to f16.
    fn encode(values: &[f32], block: &mut [u8]) {
        let Some((values, block)) = cast::arrays_mut::<34, 32>(values, block) else {
            return;
        };
        let d = cast::largest(values).abs() / 127.0;
        let inverse = cast::inverse(d);
        let [d0, d1, qs @ ..] = block;
        [*d0, *d1] = f16::from_f32(d).to_le_bytes();
        for (q, x) in qs.iter_mut().zip(values) {
            *q = (x * inverse).round() as i8 as u8;
        }
    }
}
