//! GGUF containers: reading over a memory map or from bytes, writing by streaming.

mod metadata;
mod reader;
mod writer;

pub use metadata::{Metadata, Value};
pub use reader::{Gguf, Tensor};
pub use writer::GgufWriter;
