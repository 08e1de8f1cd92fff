//! Quantised block formats: geometry, decoding to `f32`, encoding from `f32`.
//!
//! A row of weights is stored as a run of blocks: 32 or 256 small integers that share one or more scales. Every
//! format is one file here (bit diagram, formula, scalar code) with a marker type that implements
//! [`BlockFormat`]; [`QuantType`] is the value a file carries, and `QuantType::format` is the table that joins
//! the two, one line per format. Bytes come from a file (or leave for one); floats go to the packers and oracles of
//! the layers above. The formulas are those of ggml (`ggml/src/ggml-quants.c`), in its order of roundings, so
//! decoding is bit-equal to it.

mod cast;
mod groups;
mod iq4_nl;
mod iq4_xs;
mod k_scales;
mod mix;
mod mxfp4;
mod panel;
mod plain;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;
mod search;

pub use groups::{GROUP, Group, GroupFormat};
pub use iq4_nl::IQ4_NL;
pub use iq4_xs::IQ4_XS;
pub use k_scales::unpack as unpack_k_scales;
pub use mix::{Mix, ModelTraits};
pub use mxfp4::MXFP4;
pub use panel::{PANEL_ROWS, PanelType, U4Group};
pub use plain::{BF16, F16, F32, I8};
pub use q2_k::Q2_K;
pub use q3_k::Q3_K;
pub use q4_0::Q4_0;
pub use q4_1::Q4_1;
pub use q4_k::Q4_K;
pub use q5_0::Q5_0;
pub use q5_1::Q5_1;
pub use q5_k::Q5_K;
pub use q6_k::Q6_K;
pub use q8_0::Q8_0;

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
    /// 2 bits, 256 to a block of 16 sub-blocks with 4-bit scales and minima.
    Q2_K,
    /// 3 bits, 256 to a block of 16 sub-blocks with 6-bit scales.
    Q3_K,
    /// 4 bits, 256 to a block of 8 sub-blocks with 6-bit scales and minima.
    Q4_K,
    /// 5 bits, 256 to a block of 8 sub-blocks with 6-bit scales and minima.
    Q5_K,
    /// 6 bits, 256 to a block of 16 sub-blocks with 8-bit scales.
    Q6_K,
    /// 4 bits, 32 to a block, one scale, values from a non-linear table.
    IQ4_NL,
    /// 4 bits, 256 to a block of 8 sub-blocks with 6-bit scales, values from a non-linear table.
    IQ4_XS,
    /// 4-bit floats, 32 to a block, the scale a power of two.
    MXFP4,
    /// Plain bytes.
    I8,
}

/// The code of one storage format, for use by generic callers (a dot product over decoded blocks, say).
pub trait BlockFormat {
    /// The value that names this format.
    const TYPE: QuantType;
    /// Elements in a block.
    const LEN: usize;
    /// Bytes in a block.
    const BYTES: usize;

    /// Decodes one block: `block.len() == BYTES`, `out.len() == LEN`.
    ///
    /// Neither allocates nor panics. Other lengths are a bug of the caller: debug builds assert, release builds
    /// leave `out` as it was.
    fn decode(block: &[u8], out: &mut [f32]);
}

/// A format that can also be written.
pub trait EncodeBlock: BlockFormat {
    /// The largest magnitude a value may have so that every stored scale stays finite.
    const MAX_ABS: f32;

    /// Encodes one block: `values.len() == LEN`, no magnitude above `MAX_ABS`, no NaN, `block.len() == BYTES`.
    ///
    /// Lengths as for [`BlockFormat::decode`]; other values give some block, never a panic.
    fn encode(values: &[f32], block: &mut [u8]);
}

/// One line of the format table.
struct Format {
    ggml_id: u32,
    name: &'static str,
    len: usize,
    bytes: usize,
    decode: fn(&[u8], &mut [f32]),
    encoder: Option<Encoder>,
}

/// The writing half of a line.
#[derive(Clone, Copy)]
struct Encoder {
    max_abs: f32,
    encode: fn(&[f32], &mut [u8]),
}

impl Format {
    const fn read_only<F: BlockFormat>(ggml_id: u32, name: &'static str) -> Self {
        let (len, bytes) = (F::LEN, F::BYTES);
        Self { ggml_id, name, len, bytes, decode: decode_blocks::<F>, encoder: None }
    }

    const fn both<F: EncodeBlock>(ggml_id: u32, name: &'static str) -> Self {
        let encoder = Encoder { max_abs: F::MAX_ABS, encode: encode_blocks::<F> };
        Self { encoder: Some(encoder), ..Self::read_only::<F>(ggml_id, name) }
    }
}

impl QuantType {
    /// Every format, in the order of the enum.
    pub const ALL: [Self; 17] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2_K,
        Self::Q3_K,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
        Self::IQ4_NL,
        Self::IQ4_XS,
        Self::MXFP4,
        Self::I8,
    ];

    /// The table: ids from `enum ggml_type` in `ggml/include/ggml.h`, names as its type traits print them.
    const fn format(self) -> &'static Format {
        match self {
            Self::F32 => const { &Format::both::<F32>(0, "f32") },
            Self::F16 => const { &Format::both::<F16>(1, "f16") },
            Self::BF16 => const { &Format::both::<BF16>(30, "bf16") },
            Self::Q4_0 => const { &Format::both::<Q4_0>(2, "q4_0") },
            Self::Q4_1 => const { &Format::read_only::<Q4_1>(3, "q4_1") },
            Self::Q5_0 => const { &Format::both::<Q5_0>(6, "q5_0") },
            Self::Q5_1 => const { &Format::read_only::<Q5_1>(7, "q5_1") },
            Self::Q8_0 => const { &Format::both::<Q8_0>(8, "q8_0") },
            Self::Q2_K => const { &Format::read_only::<Q2_K>(10, "q2_k") },
            Self::Q3_K => const { &Format::read_only::<Q3_K>(11, "q3_k") },
            Self::Q4_K => const { &Format::both::<Q4_K>(12, "q4_k") },
            Self::Q5_K => const { &Format::read_only::<Q5_K>(13, "q5_k") },
            Self::Q6_K => const { &Format::both::<Q6_K>(14, "q6_k") },
            Self::IQ4_NL => const { &Format::read_only::<IQ4_NL>(20, "iq4_nl") },
            Self::IQ4_XS => const { &Format::read_only::<IQ4_XS>(23, "iq4_xs") },
            Self::MXFP4 => const { &Format::read_only::<MXFP4>(39, "mxfp4") },
            Self::I8 => const { &Format::read_only::<I8>(24, "i8") },
        }
    }

    /// The number that stands for this format in GGUF files.
    pub const fn ggml_id(self) -> u32 {
        self.format().ggml_id
    }

    /// The format behind a GGUF type number, if this crate knows it.
    pub fn from_ggml_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|ty| ty.ggml_id() == id)
    }

    /// The lower-case name used on command lines: `q4_0`, `q4_k`, `f16`.
    pub const fn name(self) -> &'static str {
        self.format().name
    }

    /// The format called `name`; case does not matter.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ty| ty.name().eq_ignore_ascii_case(name))
    }

    /// Elements in a block (1 for the plain types).
    pub const fn block_len(self) -> usize {
        self.format().len
    }

    /// Bytes in a block.
    pub const fn block_bytes(self) -> usize {
        self.format().bytes
    }

    /// Whether [`encode`] can write this format.
    pub const fn has_encoder(self) -> bool {
        self.format().encoder.is_some()
    }

    /// Bytes of a row of `len` elements.
    ///
    /// # Errors
    /// [`FormatError::LengthMismatch`] if `len` is not a whole number of blocks, or the row's bytes cannot be counted
    /// in a `usize`.
    pub fn row_bytes(self, len: usize) -> Result<usize, FormatError> {
        let block = self.block_len();
        let bytes = if len.is_multiple_of(block) { (len / block).checked_mul(self.block_bytes()) } else { None };
        bytes.ok_or(FormatError::LengthMismatch {
            what: "row of a block format, in elements",
            expected: len - len % block,
            found: len,
        })
    }
}

impl std::fmt::Display for QuantType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Decodes `src` (whole blocks of `ty`) into `dst`.
///
/// # Errors
/// [`FormatError::LengthMismatch`] if the lengths do not belong together.
pub fn decode(ty: QuantType, src: &[u8], dst: &mut [f32]) -> Result<(), FormatError> {
    let expected = ty.row_bytes(dst.len())?;
    if src.len() != expected {
        return Err(FormatError::LengthMismatch { what: "blocks to decode, in bytes", expected, found: src.len() });
    }
    (ty.format().decode)(src, dst);
    Ok(())
}

/// Encodes `src` into `dst` (whole blocks of `ty`).
///
/// # Errors
/// [`FormatError::LengthMismatch`] as for [`decode`]; [`FormatError::NoEncoder`] if this crate only reads `ty`;
/// [`FormatError::Unencodable`] for a NaN, an infinity, or a magnitude whose scale the format cannot hold (then `dst`
/// is untouched).
pub fn encode(ty: QuantType, src: &[f32], dst: &mut [u8]) -> Result<(), FormatError> {
    let Some(Encoder { max_abs: limit, encode }) = ty.format().encoder else {
        return Err(FormatError::NoEncoder { ty });
    };
    let expected = ty.row_bytes(src.len())?;
    if dst.len() != expected {
        return Err(FormatError::LengthMismatch { what: "blocks to encode, in bytes", expected, found: dst.len() });
    }
    // A NaN fails every comparison, so it counts as too large.
    let fits = |x: &f32| x.abs() <= limit;
    if let Some((index, &value)) = src.iter().enumerate().find(|(_, x)| !fits(x)) {
        return Err(FormatError::Unencodable { ty, index, value, limit });
    }
    encode(src, dst);
    Ok(())
}

fn decode_blocks<F: BlockFormat>(src: &[u8], dst: &mut [f32]) {
    for (block, out) in src.chunks_exact(F::BYTES).zip(dst.chunks_exact_mut(F::LEN)) {
        F::decode(block, out);
    }
}

fn encode_blocks<F: EncodeBlock>(src: &[f32], dst: &mut [u8]) {
    for (values, block) in src.chunks_exact(F::LEN).zip(dst.chunks_exact_mut(F::BYTES)) {
        F::encode(values, block);
    }
}
