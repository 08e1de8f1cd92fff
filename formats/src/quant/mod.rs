//! Quantised block formats: geometry, decoding to `f32`, encoding from `f32`.

use crate::FormatError;

/// How the numbers of a tensor are stored.
#[expect(non_camel_case_types, reason = "the field's standard names")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum QuantType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// Brain floating point.
    BF16,
    /// 4 bits, 32 to a block, one scale.
    Q4_0,
    /// 4 bits, 32 to a block, scale and minimum.
    Q4_1,
    /// 5 bits, 32 to a block, one scale.
    Q5_0,
    /// 5 bits, 32 to a block, scale and minimum.
    Q5_1,
    /// 8 bits, 32 to a block, one scale.
    Q8_0,
    /// 4 bits, 256 to a block of 8 sub-blocks with 6-bit scales and minima.
    Q4_K,
    /// 5 bits, 256 to a block of 8 sub-blocks with 6-bit scales and minima.
    Q5_K,
    /// 6 bits, 256 to a block of 16 sub-blocks with 8-bit scales.
    Q6_K,
    /// 4 bits, 32 to a block, one scale, values from a non-linear table.
    IQ4_NL,
    /// Plain bytes.
    I8,
}

impl QuantType {
    /// Elements in a block (1 for the plain types).
    pub const fn block_len(self) -> usize {
        todo!()
    }
    /// Bytes in a block.
    pub const fn block_bytes(self) -> usize {
        todo!()
    }
    /// The lower-case name used on command lines: `q4_0`, `q4_k`, `f16`.
    pub const fn name(self) -> &'static str {
        todo!()
    }
    /// Bytes of a row of `len` elements.
    ///
    /// # Errors
    /// [`FormatError::LengthMismatch`] if `len` is not a whole number of blocks.
    pub fn row_bytes(self, len: usize) -> Result<usize, FormatError> {
        let _ = len;
        todo!()
    }
}

/// Decodes `src` (whole blocks of `ty`) into `dst`.
///
/// # Errors
/// [`FormatError::LengthMismatch`] if the lengths do not belong together.
pub fn decode(ty: QuantType, src: &[u8], dst: &mut [f32]) -> Result<(), FormatError> {
    let _ = (ty, src, dst);
    todo!()
}

/// Encodes `src` into `dst` (whole blocks of `ty`).
///
/// # Errors
/// [`FormatError::LengthMismatch`] as for [`decode`]; an error if `ty` has no encoder.
pub fn encode(ty: QuantType, src: &[f32], dst: &mut [u8]) -> Result<(), FormatError> {
    let _ = (ty, src, dst);
    todo!()
}
