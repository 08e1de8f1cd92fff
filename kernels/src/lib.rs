//! Arithmetic: packed weights, and the operations of a transformer on a row range the caller chose.
//!
//! Nothing here starts a thread, allocates, opens a file or remembers anything: a [`Kernels`] is the choice of an
//! instruction set, made once and passed in; every function of [`ops`] checks its shapes once and then runs one entry
//! of that instruction set's table. Work is split by the caller, who hands each thread its own [`Tile`] of the output.
//!
//! Results do not depend on how the work was split: a token's numbers are bit-equal whatever row range, token batch or
//! neighbour tokens it was computed with (within one [`Isa`]).
//!
//! ```
//! use halfbyte_formats::{Bytes, QuantType};
//! use halfbyte_kernels::{Activations, Kernels, Tile, ops};
//!
//! # fn main() -> Result<(), halfbyte_kernels::KernelError> {
//! let kernels = Kernels::detect();
//! // Two rows of depth three.
//! let weights: Vec<u8> = [1.0f32, 2.0, 3.0, 0.5, 0.5, 0.5].iter().flat_map(|w| w.to_le_bytes()).collect();
//! let weights = kernels.pack(QuantType::F32, 2, 3, Bytes::from(weights))?;
//!
//! let mut out = [0.0; 2];
//! let x = Activations::F32(&[1.0, 1.0, 2.0]);
//! ops::matmul(&kernels, &weights, 0..2, x, ops::Store::Set, &mut Tile::new(&mut out, 1, 2)?)?;
//! assert_eq!(out, [9.0, 2.0]);
//! # Ok(())
//! # }
//! ```

#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]
#![warn(missing_docs, unreachable_pub, unnameable_types)]
#![warn(clippy::multiple_unsafe_ops_per_block, clippy::self_named_module_files)]

#[cfg(all(
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(all(target_endian = "little", target_pointer_width = "64"))
))]
compile_error!("the kernels of x86-64 and 64-bit Arm are for little-endian systems with pointers of 64 bits");

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod dispatch;
mod error;
mod isa;
mod kv8;
pub mod ops;
mod pack;
mod panel;
mod portable;
mod quant_tile;
mod quantized;
mod scalar;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod simd;
#[cfg(test)]
mod tests;
mod tile;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use error::KernelError;
pub use isa::{Isa, Kernels};
pub use ops::kv::{KV_PAGE, KvLayout, KvPages, KvPart, KvType, MAX_HEAD_DIM};
pub use pack::{PackLayout, PackedMatrix, U4Rows, pack_rows, pack_u4};
pub use quant_tile::QuantTile;
pub use quantized::{ActivationType, Activations, quantized_words};
pub use tile::Tile;
