//! IQ4_XS: 256 elements in 136 bytes; the table of IQ4_NL with 8 sub-blocks of 32 and 6-bit scales around zero.
//!
//! ```text
//! bytes 0..2     d       f16
//!       2..4     u16, bits 2b..2b+2: upper bits of scale b, b in 0..8
//!       4..8     byte i: bits 0..4: lower bits of scale 2 i, bits 4..8: of scale 2 i + 1
//!       8..136   qs[16 b + j], j in 0..16: bits 0..4: element 32 b + j, bits 4..8: element 32 b + 16 + j
//! y = (d * (scale - 32)) * VALUES[q]      scale of sub-block b
//! ```
//! Source: `block_iq4_xs`, `dequantize_row_iq4_xs` in ggml.

use super::{BlockFormat, IQ4_NL, QuantType, cast, iq4_nl};

/// 4 bits through a table, one scale per 32.
#[expect(non_camel_case_types, reason = "the field's standard name")]
#[derive(Clone, Copy, Debug)]
pub struct IQ4_XS;

impl IQ4_XS {
    /// The eight scales in bytes 2 to 8 of a block, each in -32..32.
    #[inline(always)]
    pub fn scales(packed: &[u8; 6]) -> [i8; 8] {
        let &[h0, h1, ref low @ ..] = packed;
        let high = u16::from_le_bytes([h0, h1]);
        let mut scales = [0; 8];
        let low = low.iter().flat_map(|byte| [byte & 15, byte >> 4]);
        for (b, (scale, low)) in scales.iter_mut().zip(low).enumerate() {
            *scale = (low | ((high >> (2 * b) & 3) as u8) << 4) as i8 - 32;
        }
        scales
    }
}

impl BlockFormat for IQ4_XS {
    const TYPE: QuantType = QuantType::IQ4_XS;
    const LEN: usize = 256;
    const BYTES: usize = 136;

    #[inline]
    fn decode(block: &[u8], out: &mut [f32]) {
        let Some((block, out)) = cast::arrays::<136, 256>(block, out) else {
            return;
        };
        let (&[d0, d1, ref scales @ ..], qs) = cast::split::<8, 128, 136>(block);
        let d = cast::scale([d0, d1]);
        let sub_blocks = qs.as_chunks::<16>().0.iter().zip(out.as_chunks_mut::<32>().0);
        for ((qs, out), scale) in sub_blocks.zip(Self::scales(scales)) {
            iq4_nl::decode_nibbles(&IQ4_NL::VALUES, d * f32::from(scale), qs, out);
        }
    }
}
