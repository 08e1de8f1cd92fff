//! Why a vocabulary was refused: each variant names the key, token or merge that is wrong.

use halfbyte_formats::FormatError;

/// Why no tokenizer could be built from a file's metadata.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A metadata value has the wrong kind or range.
    #[error(transparent)]
    Metadata(#[from] FormatError),
    /// A metadata key the tokenizer needs is absent.
    #[error("metadata key {key:?} is missing")]
    MissingKey {
        /// The full key.
        key: &'static str,
    },
    /// The kind of tokenizer is not known here.
    #[error("tokenizer model {found:?} is not supported (supported: {supported})")]
    UnknownModel {
        /// `tokenizer.ggml.model` of the file.
        found: String,
        /// Every supported one.
        supported: &'static str,
    },
    /// The pre-tokenizer is not known here; guessing one would change the ids.
    #[error("{} is not supported (supported: {supported})", if found.is_empty() { "no pre-tokenizer".to_owned() } else { format!("pre-tokenizer {found:?}") })]
    UnknownPre {
        /// `tokenizer.ggml.pre` of the file, or the one given as an option; empty if the file has none.
        found: String,
        /// Every supported one.
        supported: &'static str,
    },
    /// Two arrays that describe the same tokens differ in length.
    #[error("metadata key {key:?} has {found} elements for {expected} tokens")]
    LengthMismatch {
        /// The array.
        key: &'static str,
        /// Number of tokens.
        expected: usize,
        /// Its elements.
        found: usize,
    },
    /// The system did not give the memory for something that the file really contains.
    #[error("no memory for {what}: {bytes} bytes")]
    OutOfMemory {
        /// What for.
        what: &'static str,
        /// How much.
        bytes: usize,
    },
    /// The vocabulary is larger than any id can be, or its texts are.
    #[error("the vocabulary has {found} {what}, at most {limit} are supported")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How many.
        found: usize,
        /// Most supported.
        limit: usize,
    },
    /// A token is longer than any real one.
    #[error("token {id} is {bytes} bytes long, at most {limit} are supported")]
    TokenTooLong {
        /// Its id.
        id: u32,
        /// Length of its text.
        bytes: usize,
        /// Most supported.
        limit: usize,
    },
    /// Two tokens have the same text.
    #[error("tokens {first} and {second} are both {text:?}")]
    DuplicateToken {
        /// Id of the first.
        first: u32,
        /// Id of the second.
        second: u32,
        /// Their text.
        text: String,
    },
    /// A token type that GGUF does not define.
    #[error("token {id} has the unknown type {found}")]
    UnknownTokenType {
        /// Its id.
        id: u32,
        /// The stored type.
        found: usize,
    },
    /// A score that cannot be ordered.
    #[error("the score of token {id} is {found}")]
    InvalidScore {
        /// Its id.
        id: u32,
        /// The stored score.
        found: f32,
    },
    /// A byte token is not written `<0x00>` to `<0xFF>`.
    #[error("token {id} has type byte but the text {text:?}, expected <0x00> to <0xFF>")]
    InvalidByteToken {
        /// Its id.
        id: u32,
        /// Its text.
        text: String,
    },
    /// A byte has no token, so some text could not be encoded.
    #[error("no token stands for byte 0x{byte:02X}")]
    MissingByteToken {
        /// The byte.
        byte: u8,
    },
    /// A merge is not two parts with a space between them.
    #[error("merge {index} is {text:?}, expected two parts with a space between them")]
    InvalidMerge {
        /// Its rank.
        index: usize,
        /// Its text.
        text: String,
    },
    /// A merge names, or makes, a text that is not a normal token.
    #[error("merge {index} needs {part:?}, which is not a normal token")]
    UnknownMergePart {
        /// Its rank.
        index: usize,
        /// The text that is missing.
        part: String,
    },
    /// A special token's id is outside the vocabulary.
    #[error("metadata key {key:?} is {found}, the vocabulary has {tokens} tokens")]
    IdOutOfRange {
        /// The full key.
        key: &'static str,
        /// The stored id.
        found: usize,
        /// Number of tokens.
        tokens: usize,
    },
}
