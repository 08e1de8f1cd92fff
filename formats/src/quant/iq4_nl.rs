//! IQ4_NL: 32 elements in 18 bytes, 4-bit indices into a table that is dense near zero, one scale.
//!
//! ```text
//! bytes 0..2   d      f16
//!       2..18  qs[j]  bits 0..4: element j, bits 4..8: element j + 16
//! y = d * VALUES[q]
//! ```
//! Source: `block_iq4_nl`, `kvalues_iq4nl`, `dequantize_row_iq4_nl` in ggml.

use super::{BlockFormat, QuantType, cast};

/// 4 bits through a table, one scale per 32.
#[expect(non_camel_case_types, reason = "the field's standard name")]
#[derive(Clone, Copy, Debug)]
pub struct IQ4_NL;

impl IQ4_NL {
    /// What each index stands for, before the scale.
    pub const VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
}

impl BlockFormat for IQ4_NL {
    const TYPE: QuantType = QuantType::IQ4_NL;
    const LEN: usize = 32;
    const BYTES: usize = 18;

    #[inline]
    fn decode(block: &[u8], out: &mut [f32]) {
        let Some((block, out)) = cast::arrays::<18, 32>(block, out) else {
            return;
        };
        let (d, qs) = cast::split::<2, 16, 18>(block);
        decode_nibbles(&Self::VALUES, cast::scale(*d), qs, out);
    }
}

/// `d * values[q]` for 32 indices: the low nibbles come first.
#[inline(always)]
pub(super) fn decode_nibbles(values: &[i8; 16], d: f32, qs: &[u8; 16], out: &mut [f32; 32]) {
    // A nibble is always inside the table; the default is never taken.
    let value = |q: u8| f32::from(values.get(usize::from(q & 15)).copied().unwrap_or(0));
    let (low, high) = out.split_at_mut(16);
    for ((&q, low), high) in qs.iter().zip(low).zip(high) {
        *low = d * value(q);
        *high = d * value(q >> 4);
    }
}
