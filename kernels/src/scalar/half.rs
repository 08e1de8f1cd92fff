//! Half precision to single without a branch, so that a run of elements becomes vector code.
//!
//! ```text
//! f16   s eeeee ffffffffff                    exponent bias 15
//! f32   s eeeeeeee fffffffffffffffffffffff    exponent bias 127
//! ```
//! Shifted into place, the exponent is too small by 112; a multiplication by 2^112 mends it, for subnormals too, and is
//! exact. Only infinity and NaN need their exponent filled in.

use halfbyte_formats::QuantType;
use halfbyte_formats::quant::BlockFormat;

/// The same format as [`quant::F16`](halfbyte_formats::quant::F16), decoded by the formula above.
pub(super) struct Half;

impl BlockFormat for Half {
    const TYPE: QuantType = QuantType::F16;
    const LEN: usize = 1;
    const BYTES: usize = 2;

    #[inline]
    fn decode(block: &[u8], out: &mut [f32]) {
        // Not by a pattern of two bytes: the compiler would load them apart.
        if let (Ok(bits), [y]) = (block.try_into(), out) {
            *y = to_f32(u16::from_le_bytes(bits));
        }
    }
}

/// The value of the half with these bits, exactly.
#[inline]
fn to_f32(bits: u16) -> f32 {
    const TWO_TO_112: f32 = f32::from_bits((112 + 127) << 23);
    const INFINITY: u32 = 0x7c00 << 13;
    let bits = u32::from(bits);
    let sign = (bits & 0x8000) << 16;
    let magnitude = (bits & 0x7fff) << 13;
    let value = (f32::from_bits(magnitude) * TWO_TO_112).to_bits();
    let special = if magnitude >= INFINITY { 0xff << 23 } else { 0 };
    f32::from_bits(sign | value | special)
}

#[cfg(test)]
mod tests {
    use super::to_f32;

    /// Every half there is (under miri a sample).
    #[test]
    fn agrees_with_the_half_crate() {
        for bits in (0..=u16::MAX).step_by(if cfg!(miri) { 97 } else { 1 }) {
            let expected = half::f16::from_bits(bits).to_f32();
            let found = to_f32(bits);
            assert!(
                found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()),
                "{bits:#06x}: {found} is not {expected}"
            );
        }
    }
}
