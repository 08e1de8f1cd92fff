//! The formats without scales: F32, F16, BF16 and signed bytes, little-endian, each a "block" of one element.
//!
//! ```text
//! F16   bit 15: sign   14..10: exponent + 15   9..0: fraction
//! BF16  bit 15: sign   14..7: exponent + 127   6..0: fraction     = the upper half of an f32
//! ```
//! Encoding rounds to nearest, ties to even.

use half::{bf16, f16};

use super::{BlockFormat, EncodeBlock, QuantType, cast};

/// Plain single precision.
#[derive(Clone, Copy, Debug)]
pub struct F32;

impl BlockFormat for F32 {
    const TYPE: QuantType = QuantType::F32;
    const LEN: usize = 1;
    const BYTES: usize = 4;

    #[inline]
    fn decode(block: &[u8], out: &mut [f32]) {
        let Some((block, [y])) = cast::arrays(block, out) else {
            return;
        };
        *y = f32::from_le_bytes(*block);
    }
}

impl EncodeBlock for F32 {
    const MAX_ABS: f32 = f32::MAX;

    #[inline]
    fn encode(values: &[f32], block: &mut [u8]) {
        let Some(([x], block)) = cast::arrays_mut(values, block) else {
            return;
        };
        *block = x.to_le_bytes();
    }
}

/// Plain half precision.
#[derive(Clone, Copy, Debug)]
pub struct F16;

impl BlockFormat for F16 {
    const TYPE: QuantType = QuantType::F16;
    const LEN: usize = 1;
    const BYTES: usize = 2;

    #[inline]
    fn decode(block: &[u8], out: &mut [f32]) {
        let Some((block, [y])) = cast::arrays(block, out) else {
            return;
        };
        *y = cast::scale(*block);
    }
}

impl EncodeBlock for F16 {
    const MAX_ABS: f32 = 65504.0;

    #[inline]
    fn encode(values: &[f32], block: &mut [u8]) {
        let Some(([x], block)) = cast::arrays_mut(values, block) else {
            return;
        };
        *block = f16::from_f32(*x).to_le_bytes();
    }
}

/// Brain floating point.
#[derive(Clone, Copy, Debug)]
pub struct BF16;

impl BlockFormat for BF16 {
    const TYPE: QuantType = QuantType::BF16;
    const LEN: usize = 1;
    const BYTES: usize = 2;

    #[inline]
    fn decode(block: &[u8], out: &mut [f32]) {
        let Some((&[b0, b1], [y])) = cast::arrays(block, out) else {
            return;
        };
        *y = f32::from_le_bytes([0, 0, b0, b1]);
    }
}

impl EncodeBlock for BF16 {
    /// The largest finite value, 2^127 * (2 - 2^-7).
    const MAX_ABS: f32 = f32::from_bits(0x7f7f_0000);

    #[inline]
    fn encode(values: &[f32], block: &mut [u8]) {
        let Some(([x], block)) = cast::arrays_mut(values, block) else {
            return;
        };
        *block = bf16::from_f32(*x).to_le_bytes();
    }
}

/// Plain signed bytes; decoding gives the integers.
#[derive(Clone, Copy, Debug)]
pub struct I8;

impl BlockFormat for I8 {
    const TYPE: QuantType = QuantType::I8;
    const LEN: usize = 1;
    const BYTES: usize = 1;

    #[inline]
    fn decode(block: &[u8], out: &mut [f32]) {
        let Some((&block, [y])) = cast::arrays(block, out) else {
            return;
        };
        *y = f32::from(i8::from_le_bytes(block));
    }
}
