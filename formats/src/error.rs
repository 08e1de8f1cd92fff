//! The one error type of this crate: each variant says what is wrong and carries the offset, the limit and the value.

use std::{io, path::PathBuf};

use crate::QuantType;

/// Why bytes were refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The operating system refused to open, map, read or write a file.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb: `open`, `map`, `write`, `rename`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A value reaches past the end of what there is.
    #[error("{what} at offset {offset} needs {need} bytes, {have} are there")]
    OutOfBounds {
        /// The field being read.
        what: &'static str,
        /// Where it starts, in bytes.
        offset: u64,
        /// Bytes needed.
        need: u64,
        /// Bytes left.
        have: u64,
    },
    /// A buffer has the wrong length for the operation asked of it.
    #[error("{what}: expected a length of {expected}, found {found}")]
    LengthMismatch {
        /// The buffer.
        what: &'static str,
        /// Length expected.
        expected: usize,
        /// Length found.
        found: usize,
    },
    /// This crate reads a storage format but does not write it.
    #[error("no encoder for {ty}")]
    NoEncoder {
        /// The format.
        ty: QuantType,
    },
    /// A value that a storage format cannot represent.
    #[error("{ty} cannot store {value} at index {index}: the largest magnitude is {limit}")]
    Unencodable {
        /// The format.
        ty: QuantType,
        /// Index of the value in the slice given.
        index: usize,
        /// The value: NaN, infinite or too large.
        value: f32,
        /// The largest magnitude the format can hold.
        limit: f32,
    },
}
