//! GGUF containers: reading over a memory map or from bytes, writing by streaming.
//!
//! A file is: magic `GGUF`, version, two counts; key-value metadata; one description per tensor; then, aligned, the
//! data of the tensors in the same order. Versions 2 and 3, little-endian; split files are followed.
//!
//! Single values and descriptions are decoded by the primitives of `gguf-rs-lib`. Around them stands one validating
//! pass (`reader`, `decode`, `layout`, `packed`) that bounds every count, length and offset by the bytes that are there
//! before it is used, so parsing takes at most 4 times the file plus 1 MiB of memory and no input can make it panic.
//! What the metadata *means* is the runtime's business.
//!
//! ```
//! use halfbyte_formats::{FormatError, QuantType, gguf::{Gguf, GgufWriter}};
//!
//! # fn main() -> Result<(), FormatError> {
//! let mut writer = GgufWriter::new();
//! writer.put("general.architecture", "qwen2")?;
//! writer.put("qwen2.block_count", 1u32)?;
//! writer.declare("output_norm.weight", &[4], QuantType::F32)?;
//! let mut stream = writer.write_to(Vec::new())?;
//! stream.write_tensor("output_norm.weight", &[0; 16])?;
//!
//! let file = Gguf::from_bytes(stream.finish()?)?;
//! assert_eq!(file.metadata().usize("qwen2.block_count")?, Some(1));
//! assert_eq!(file.tensor("output_norm.weight").map(|t| t.data.len()), Some(16));
//! # Ok(())
//! # }
//! ```

mod decode;
mod encode;
mod foreign;
mod index;
mod layout;
mod longrope;
mod memory;
mod metadata;
mod packed;
mod reader;
mod split;
mod value;
mod writer;

pub use longrope::longrope_attn_factor;
pub use metadata::Metadata;
pub use packed::PACK_ALIGNMENT;
pub use reader::{Gguf, Tensor};
pub use value::{Array, Strings, Value};
pub use writer::{GgufFile, GgufStream, GgufWriter};

pub use crate::map::Load;
