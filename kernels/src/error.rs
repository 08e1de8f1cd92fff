//! The one error type of this crate: each variant names what is wrong and carries the limit and the value.
//!
//! Every error is found before a kernel starts, so an operation that fails has written nothing.

use std::{error::Error, fmt};

use halfbyte_formats::QuantType;

use crate::Isa;

/// Why an operation was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KernelError {
    /// A length or a dimension does not fit the others.
    ShapeMismatch {
        /// The argument.
        what: &'static str,
        /// Elements (bytes, for data) the other arguments call for.
        expected: usize,
        /// Elements (bytes, for data) it has.
        found: usize,
    },
    /// A length is not a whole number of units.
    NotMultiple {
        /// The argument.
        what: &'static str,
        /// Elements of one unit.
        unit: usize,
        /// Elements it has.
        found: usize,
    },
    /// A dimension that must be at least one is zero, or a range that must hold something is empty.
    Empty {
        /// The argument.
        what: &'static str,
    },
    /// An index, or the end of a range, lies past the limit.
    OutOfRange {
        /// The argument.
        what: &'static str,
        /// The largest value allowed.
        limit: usize,
        /// The value.
        found: usize,
    },
    /// A range ends before it starts.
    RangeReversed {
        /// The argument.
        what: &'static str,
        /// Its start.
        start: usize,
        /// Its end.
        end: usize,
    },
    /// A size in bytes does not fit the address space.
    TooLarge {
        /// What was to be measured.
        what: &'static str,
    },
    /// No kernel multiplies this format.
    UnsupportedType {
        /// The format.
        ty: QuantType,
    },
    /// This format cannot be stored in panels.
    NoPanels {
        /// The format.
        ty: QuantType,
    },
    /// The matrix is multiplied with activations of another kind.
    ActivationMismatch {
        /// The kind that [`PackedMatrix::activations`](crate::PackedMatrix::activations) names.
        expected: &'static str,
        /// The kind given.
        found: &'static str,
    },
    /// The matrix was made by the kernels of an instruction set that has others for its format and layout.
    LayoutMismatch {
        /// The layout of the matrix.
        found: &'static str,
    },
    /// This CPU lacks the instruction set.
    UnsupportedIsa {
        /// The instruction set.
        isa: Isa,
    },
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ShapeMismatch { what, expected, found } => {
                write!(f, "{what}: expected a length of {expected}, found {found}")
            }
            Self::NotMultiple { what, unit, found } => {
                write!(f, "{what}: a length of {found} is not a multiple of {unit}")
            }
            Self::Empty { what } => write!(f, "{what} is empty"),
            Self::OutOfRange { what, limit, found } => {
                write!(f, "{what}: {found} is past the limit of {limit}")
            }
            Self::RangeReversed { what, start, end } => {
                write!(f, "{what}: the range starts at {start} and ends at {end}")
            }
            Self::TooLarge { what } => write!(f, "{what} does not fit the address space"),
            Self::UnsupportedType { ty } => write!(f, "no kernel multiplies {}", ty.name()),
            Self::NoPanels { ty } => write!(f, "{} cannot be stored in panels", ty.name()),
            Self::ActivationMismatch { expected, found } => {
                write!(f, "the matrix is multiplied with {expected} activations, these are {found}")
            }
            Self::LayoutMismatch { found } => {
                write!(f, "no kernel of this instruction set reads {found} of this format")
            }
            Self::UnsupportedIsa { isa } => {
                write!(f, "this cpu does not run the {} kernels", isa.name())
            }
        }
    }
}

impl Error for KernelError {}

/// `Ok` when `found == expected`.
pub(crate) fn same_len(what: &'static str, expected: usize, found: usize) -> Result<(), KernelError> {
    if found == expected { Ok(()) } else { Err(KernelError::ShapeMismatch { what, expected, found }) }
}

/// `Ok` when `found` is a whole number of units of `unit > 0` elements.
pub(crate) fn whole_units(what: &'static str, unit: usize, found: usize) -> Result<(), KernelError> {
    if found.is_multiple_of(unit) { Ok(()) } else { Err(KernelError::NotMultiple { what, unit, found }) }
}

/// `Ok` when the dimension is not zero.
pub(crate) fn not_zero(what: &'static str, len: usize) -> Result<(), KernelError> {
    if len == 0 { Err(KernelError::Empty { what }) } else { Ok(()) }
}

/// `a * b`, or the error that says whose size does not fit.
pub(crate) fn product(what: &'static str, a: usize, b: usize) -> Result<usize, KernelError> {
    a.checked_mul(b).ok_or(KernelError::TooLarge { what })
}
