//! Formats of packed tensors: the weights of 16 rows side by side, in the order in which they are multiplied.
//!
//! A panel is 16 rows; along the depth it is a sequence of units, which hold codes and scales of all of them. What is
//! where in a unit is told in `docs/packing.md` and beside the code that packs, in `halfbyte-kernels`; here are the
//! names and sizes that a file needs to be checked.

use super::QuantType;
use crate::FormatError;

/// Rows of a panel. The last rows of a matrix take a whole one.
pub const PANEL_ROWS: usize = 16;

/// How the weights of a panel are stored. Not `#[non_exhaustive]`: who handles panels handles each kind, or does not
/// build.
#[expect(non_camel_case_types, reason = "the field's standard names")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PanelType {
    /// The values of [`QuantType::Q4_0`].
    Q4_0,
    /// The values of [`QuantType::Q5_0`].
    Q5_0,
    /// The values of [`QuantType::Q8_0`].
    Q8_0,
    /// The values of [`QuantType::Q4_K`].
    Q4_K,
    /// The values of [`QuantType::Q5_K`].
    Q5_K,
    /// The values of [`QuantType::Q6_K`].
    Q6_K,
    /// 4 bits, one f16 scale a group, as AWQ and GPTQ have them: `y = s · (q - z)`.
    U4 {
        /// Inputs that share a scale.
        group: U4Group,
        /// Whether each group has a zero point `z` of 4 bits; it is 8 otherwise.
        zeros: bool,
    },
}

/// Inputs that share a scale in [`PanelType::U4`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum U4Group {
    /// 32 inputs.
    G32,
    /// 64 inputs.
    G64,
    /// 128 inputs.
    G128,
}

impl U4Group {
    /// The number of inputs.
    pub const fn inputs(self) -> usize {
        match self {
            Self::G32 => 32,
            Self::G64 => 64,
            Self::G128 => 128,
        }
    }
}

impl PanelType {
    /// Every format.
    pub const ALL: [Self; 12] = [
        Self::Q4_0,
        Self::Q5_0,
        Self::Q8_0,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
        Self::U4 { group: U4Group::G32, zeros: false },
        Self::U4 { group: U4Group::G32, zeros: true },
        Self::U4 { group: U4Group::G64, zeros: false },
        Self::U4 { group: U4Group::G64, zeros: true },
        Self::U4 { group: U4Group::G128, zeros: false },
        Self::U4 { group: U4Group::G128, zeros: true },
    ];

    /// The format that holds the values of `ty`; `None` if there is none.
    pub const fn of(ty: QuantType) -> Option<Self> {
        match ty {
            QuantType::Q4_0 => Some(Self::Q4_0),
            QuantType::Q5_0 => Some(Self::Q5_0),
            QuantType::Q8_0 => Some(Self::Q8_0),
            QuantType::Q4_K => Some(Self::Q4_K),
            QuantType::Q5_K => Some(Self::Q5_K),
            QuantType::Q6_K => Some(Self::Q6_K),
            _ => None,
        }
    }

    /// The lower-case name used in files: `q4_0`, `u4_g128_z`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Q4_0 => "q4_0",
            Self::Q5_0 => "q5_0",
            Self::Q8_0 => "q8_0",
            Self::Q4_K => "q4_k",
            Self::Q5_K => "q5_k",
            Self::Q6_K => "q6_k",
            Self::U4 { group: U4Group::G32, zeros: false } => "u4_g32",
            Self::U4 { group: U4Group::G32, zeros: true } => "u4_g32_z",
            Self::U4 { group: U4Group::G64, zeros: false } => "u4_g64",
            Self::U4 { group: U4Group::G64, zeros: true } => "u4_g64_z",
            Self::U4 { group: U4Group::G128, zeros: false } => "u4_g128",
            Self::U4 { group: U4Group::G128, zeros: true } => "u4_g128_z",
        }
    }

    /// The format called `name`, exactly so.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ty| ty.name() == name)
    }

    /// Inputs of a unit: the depth of a packed matrix is a multiple of it.
    pub const fn unit_len(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q5_0 | Self::Q8_0 => 64,
            Self::U4 { .. } => 128,
            Self::Q4_K | Self::Q5_K | Self::Q6_K => 256,
        }
    }

    /// Bytes of a unit of all 16 rows, a multiple of 16.
    pub const fn unit_bytes(self) -> usize {
        // As many as the same rows have otherwise.
        let row = match self {
            Self::Q4_0 => 2 * QuantType::Q4_0.block_bytes(),
            Self::Q5_0 => 2 * QuantType::Q5_0.block_bytes(),
            Self::Q8_0 => 2 * QuantType::Q8_0.block_bytes(),
            Self::Q4_K => QuantType::Q4_K.block_bytes(),
            Self::Q5_K => QuantType::Q5_K.block_bytes(),
            Self::Q6_K => QuantType::Q6_K.block_bytes(),
            Self::U4 { group, zeros } => 128 / 2 + 128 / group.inputs() * if zeros { 3 } else { 2 },
        };
        PANEL_ROWS * row
    }

    /// Bytes of a matrix of `rows` rows of `depth` inputs.
    ///
    /// # Errors
    /// [`FormatError::LengthMismatch`] if `depth` is not a whole number of units, or the bytes cannot be counted in a
    /// `usize`.
    pub fn matrix_bytes(self, rows: usize, depth: usize) -> Result<usize, FormatError> {
        let unit = self.unit_len();
        let units = (depth / unit).checked_mul(rows.div_ceil(PANEL_ROWS)).filter(|_| depth.is_multiple_of(unit));
        units.and_then(|units| units.checked_mul(self.unit_bytes())).ok_or(FormatError::LengthMismatch {
            what: "row of a packed matrix, in elements",
            expected: depth - depth % unit,
            found: depth,
        })
    }
}
