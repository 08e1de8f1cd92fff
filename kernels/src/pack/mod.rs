//! Weights as the kernels read them, and how row-major ones become panels.

mod codes;
mod format;
mod k;
mod layout;
mod legacy;
mod matrix;
mod q6_k;
mod rows;
mod u4;

pub(crate) use codes::group_bytes;
pub(crate) use format::{OfFormat, PanelFormat, decode_row, of_format};
pub use layout::PackLayout;
pub use matrix::PackedMatrix;
pub(crate) use matrix::WeightRows;
pub use rows::pack_rows;
pub(crate) use u4::U4;
pub use u4::{U4Rows, pack_u4};
