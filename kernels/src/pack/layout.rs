//! How the blocks of a matrix are arranged in memory.
//!
//! A table entry names the layout its kernels read; a [`PackedMatrix`](super::PackedMatrix) remembers the one it has,
//! so that data arranged for one tier is an error in another, not garbage.

/// An arrangement of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PackLayout {
    /// As stored in a file: the blocks of row 0 in ascending `k`, then those of row 1.
    RowMajor,
}

impl PackLayout {
    /// The name used in error messages.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::RowMajor => "row-major",
        }
    }
}
