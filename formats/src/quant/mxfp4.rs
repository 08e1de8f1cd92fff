//! MXFP4: 32 elements in 17 bytes, 4-bit floats (E2M1) under one power of two (E8M0).
//!
//! ```text
//! byte  0      E      exponent + 128, the scale of doubled values
//! bytes 1..17  qs[j]  bits 0..4: element j, bits 4..8: element j + 16
//! y = 2^(E - 128) * VALUES[q]
//! ```
//! The standard counts E = 255 as NaN; ggml as 2^127, and so do we.
//! Source: `block_mxfp4`, `kvalues_mxfp4`, `ggml_e8m0_to_fp32_half`, `dequantize_row_mxfp4` in ggml; values from the
//! OCP Microscaling Formats specification 1.0, section 5.3.3.

use super::{BlockFormat, QuantType, cast, iq4_nl};

/// 4-bit floats, one power of two per 32.
#[derive(Clone, Copy, Debug)]
pub struct MXFP4;

impl MXFP4 {
    /// Twice what each E2M1 number stands for, so that all are integers.
    pub const VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

    /// 2^(`exponent` - 128), exactly: 0 and 1 give subnormal numbers.
    #[inline(always)]
    pub const fn scale(exponent: u8) -> f32 {
        match exponent {
            0 | 1 => f32::from_bits(1 << (21 + exponent)),
            _ => f32::from_bits((exponent as u32 - 1) << 23),
        }
    }
}

impl BlockFormat for MXFP4 {
    const TYPE: QuantType = QuantType::MXFP4;
    const LEN: usize = 32;
    const BYTES: usize = 17;

    #[inline]
    fn decode(block: &[u8], out: &mut [f32]) {
        let Some((&[exponent, ref qs @ ..], out)) = cast::arrays::<17, 32>(block, out) else {
            return;
        };
        iq4_nl::decode_nibbles(&Self::VALUES, Self::scale(exponent), qs, out);
    }
}
