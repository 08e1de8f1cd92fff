//! Bytes on disk to typed, checked views: GGUF files, quantised block formats, Hugging Face directories.
//!
//! This crate knows nothing of CPUs or models. A file is parsed once, by one validating pass, into values
//! that cannot be wrong; every later layer borrows from them. Tensor data is never copied: a [`Bytes`] is a
//! counted reference into the memory map (or into a buffer the caller gave).

#![deny(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::cast_possible_truncation
    )
)]

#[cfg(feature = "gguf")]
mod bytes;
mod error;
#[cfg(feature = "gguf")]
pub mod gguf;
#[cfg(feature = "import")]
pub mod import;
#[cfg(feature = "gguf")]
mod map;
#[allow(clippy::cast_possible_truncation, reason = "encoders round to the width that is stored")]
pub mod quant;
mod storage;
#[cfg(feature = "gguf")]
mod temp;

pub use error::{Foreign, FormatError};
#[cfg(feature = "gguf")]
pub use map::open_regular;
pub use quant::QuantType;
pub use storage::Bytes;
#[cfg(feature = "gguf")]
pub use temp::TempFile;
