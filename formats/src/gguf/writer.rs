//! Writing.

/// Streams a GGUF file.
#[derive(Debug)]
pub struct GgufWriter {}
