//! Weights as the kernels read them.

mod layout;
mod matrix;

pub(crate) use layout::PackLayout;
pub use matrix::PackedMatrix;
pub(crate) use matrix::WeightRows;
