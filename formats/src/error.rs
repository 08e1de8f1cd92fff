//! The one error type of this crate: each variant says what is wrong and carries the offset, the limit and the value.
//!
//! The file is over 400 lines because every field has its line of documentation; there is next to no code in it.

use std::{fmt, io, path::PathBuf};

use crate::{QuantType, quant::PanelType};

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
    /// The file is none at all, or another format.
    #[error("not a GGUF file: {found}")]
    NotGguf {
        /// What it looks like instead.
        found: Foreign,
    },
    /// A GGUF file for big-endian machines.
    #[error("big-endian GGUF file (version field {found:#010x}): only little-endian files are read; convert it again")]
    BigEndian {
        /// The version field, read as little-endian.
        found: u32,
    },
    /// A GGUF version this crate does not know.
    #[error("GGUF version {found} at offset 4: only versions 2 and 3 are read")]
    UnsupportedVersion {
        /// The version.
        found: u32,
    },
    /// A number outside the range its field allows.
    #[error("{what} at offset {offset} is {found}, allowed is {min} to {max}")]
    OutOfRange {
        /// The field.
        what: &'static str,
        /// Where it is, in bytes.
        offset: u64,
        /// The number.
        found: u64,
        /// Smallest number allowed.
        min: u64,
        /// Largest number allowed.
        max: u64,
    },
    /// A character that has no place in a name.
    #[error("{what} at offset {offset} holds the character {found:?}")]
    InvalidCharacter {
        /// The kind of name.
        what: &'static str,
        /// Where the name starts, in bytes.
        offset: u64,
        /// The first bad character.
        found: char,
    },
    /// Text that is not UTF-8.
    #[error("{what} at offset {offset} is not UTF-8")]
    NotUtf8 {
        /// The field.
        what: &'static str,
        /// Where the text starts, in bytes.
        offset: u64,
    },
    /// Two metadata entries have the same key.
    #[error("the key {key:?} at offset {offset} is there twice")]
    DuplicateKey {
        /// The key.
        key: String,
        /// Where it is met again, in bytes.
        offset: u64,
    },
    /// Two tensors have the same name, in one file or in two shards.
    #[error("the tensor {tensor:?} is there twice")]
    DuplicateTensor {
        /// The name.
        tensor: String,
    },
    /// An array of arrays.
    #[error("the value of {key:?} at offset {offset} is an array of arrays")]
    NestedArray {
        /// The metadata key.
        key: String,
        /// Where the array starts, in bytes.
        offset: u64,
    },
    /// A metadata value has another kind than its reader needs.
    #[error("metadata {key:?} should be {expected}, it is {found}")]
    MetadataKind {
        /// The metadata key.
        key: String,
        /// The kind needed, in words.
        expected: &'static str,
        /// The kind found, in words.
        found: &'static str,
    },
    /// A metadata integer is negative or too large.
    #[error("metadata {key:?} is {found}, allowed is 0 to {limit}")]
    MetadataRange {
        /// The metadata key.
        key: String,
        /// The integer.
        found: i128,
        /// The largest one allowed.
        limit: u64,
    },
    /// A metadata entry that must be there is not.
    #[error("metadata {key:?} is missing")]
    MissingMetadata {
        /// The metadata key.
        key: &'static str,
    },
    /// An alignment that cannot be used.
    #[error("general.alignment is {found}: it must be a power of two of at most {limit}")]
    InvalidAlignment {
        /// The alignment, in bytes.
        found: u32,
        /// The largest one allowed.
        limit: usize,
    },
    /// A tensor is stored in a format this crate does not read.
    #[error("tensor {tensor:?} has the type {name} (number {id} at offset {offset}), which is not supported")]
    UnsupportedTensorType {
        /// The tensor.
        tensor: String,
        /// The type's name, `unknown` if it has none.
        name: &'static str,
        /// The type's number.
        id: u32,
        /// Where the number is, in bytes.
        offset: u64,
    },
    /// The rows of a tensor are not whole blocks.
    #[error(
        "tensor {tensor:?} described at offset {offset} has rows of {len}, not a multiple of {block} as {ty} needs"
    )]
    PartialBlock {
        /// The tensor.
        tensor: String,
        /// Where its description starts, in bytes.
        offset: u64,
        /// Its format.
        ty: QuantType,
        /// Elements in a row.
        len: usize,
        /// Elements in a block.
        block: usize,
    },
    /// A shape too large to count.
    #[error("the size of tensor {tensor:?} described at offset {offset} overflows")]
    SizeOverflow {
        /// The tensor.
        tensor: String,
        /// Where its description starts, in bytes.
        offset: u64,
    },
    /// Tensor data does not follow the tensor before it.
    #[error(
        "tensor {tensor:?} described at offset {offset} has its data at {found}, expected {expected} (in file order, no gaps)"
    )]
    TensorOffset {
        /// The tensor.
        tensor: String,
        /// Where its description starts, in bytes.
        offset: u64,
        /// Start of its data, counted from the data section, by the shapes before it.
        expected: usize,
        /// Start of its data as stored.
        found: u64,
    },
    /// Tensor data is missing at the end.
    #[error(
        "the file is cut short: tensor {tensor:?} ends at byte {need}, the file at {have} (an incomplete download?)"
    )]
    Truncated {
        /// The first tensor that is not complete.
        tensor: String,
        /// Length the file needs for it, in bytes.
        need: usize,
        /// Length of the file, in bytes.
        have: usize,
    },
    /// Bytes after the end.
    #[error(
        "the file goes on for {found} bytes after its tensor data, which ends at offset {offset} (two downloads in one?)"
    )]
    TrailingBytes {
        /// Where the file should end.
        offset: usize,
        /// Number of bytes after that.
        found: usize,
    },
    /// A shard of a split file whose name does not tell the names of the others.
    #[error("{} is shard {no} of {count}, but its name does not end in {expected}", path.display())]
    ShardName {
        /// The file.
        path: PathBuf,
        /// Its number, from 1.
        no: usize,
        /// Number of shards.
        count: usize,
        /// How the name should end.
        expected: String,
    },
    /// The shards of a split file do not belong together.
    #[error("shard {shard} of a split file: {what} is {found}, expected {expected}")]
    ShardMismatch {
        /// Number of the shard, from 1.
        shard: usize,
        /// What differs.
        what: &'static str,
        /// Expected value.
        expected: String,
        /// Value found.
        found: String,
    },
    /// Something that is not a regular file.
    #[error("{} is {kind}, not a file", path.display())]
    NotRegularFile {
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A file changed its length while it was being opened.
    #[error("{} changed from {expected} to {found} bytes while it was opened", path.display())]
    FileChanged {
        /// The file.
        path: PathBuf,
        /// Length at first.
        expected: u64,
        /// Length later.
        found: u64,
    },
    /// The system did not give the memory for something a file really contains.
    #[error("no memory for {what}: {need} bytes")]
    OutOfMemory {
        /// The thing.
        what: &'static str,
        /// Its size in bytes.
        need: u64,
    },
    /// The GGUF library refused something that this crate's own checks had passed.
    #[error("{what} at offset {offset} was refused by the GGUF library")]
    Library {
        /// The field.
        what: &'static str,
        /// Where it starts, in bytes.
        offset: u64,
        /// The library's reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file that should be JSON is not.
    #[error("{} is not valid JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The header of a safetensors file is malformed, or the file is not as long as it says.
    #[error("{} is not a valid safetensors file", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A field in a checkpoint's JSON files is missing, out of range, or asks for something not supported.
    #[error("{}: {field} is {found}, expected {expected}", path.display())]
    CheckpointField {
        /// The file.
        path: PathBuf,
        /// The field: names and indices, joined by dots.
        field: String,
        /// What it should be, in words.
        expected: String,
        /// The value, or `missing`.
        found: String,
    },
    /// A tokenizer cuts text into pieces in a way this crate has no name for.
    #[error("unknown pre-tokenizer: {found} (known are those of qwen2, dbrx, llama-bpe and gpt-4o)")]
    PreTokenizer {
        /// The regular expression, or what is there instead of one.
        found: String,
    },
    /// A tensor that the architecture needs is not there.
    #[error("the tensor {tensor:?} is missing")]
    MissingTensor {
        /// Its name.
        tensor: String,
    },
    /// A tensor does not have the extents that the hyperparameters give it.
    #[error("the tensor {tensor:?} has the shape {found:?}, expected {expected:?}")]
    TensorShape {
        /// Its name.
        tensor: String,
        /// Extents expected, the contiguous one last.
        expected: Vec<usize>,
        /// Extents found.
        found: Vec<usize>,
    },
    /// The elements of a checkpoint's tensor are not F32, F16 or BF16.
    #[error("the tensor {tensor:?} has elements of type {found}, expected F32, F16 or BF16")]
    TensorElement {
        /// Its name.
        tensor: String,
        /// The element type.
        found: String,
    },
    /// A checkpoint has tensors that its architecture does not.
    #[error("{count} tensors have no place in the model, the first is {first:?}")]
    UnusedTensors {
        /// The first of them by name.
        first: String,
        /// Their number.
        count: usize,
    },
    /// The multi-token-prediction layer of a checkpoint that has none was asked for.
    #[error("the checkpoint has no multi-token-prediction layer")]
    NoMtpLayer,
    /// Something went wrong with the data of one tensor.
    #[error("in tensor {tensor:?}")]
    InTensor {
        /// The tensor.
        tensor: String,
        /// What it was.
        source: Box<FormatError>,
    },
    /// A file packed by a version of this crate that lays tensors out otherwise.
    #[error("halfbyte.pack.version is {found}, {known} is read: pack the original again")]
    PackVersion {
        /// The version of the file.
        found: usize,
        /// The version this crate knows.
        known: u32,
    },
    /// Arrays of the description of packed tensors do not belong together.
    #[error("metadata {key:?} has {found} elements, expected {expected} for the tensors in halfbyte.pack.names")]
    PackLength {
        /// The metadata key.
        key: &'static str,
        /// Elements it has.
        found: usize,
        /// Elements it should have.
        expected: usize,
    },
    /// A packed tensor that is not in the file.
    #[error("halfbyte.pack.names has {tensor:?} at index {index}, which is no tensor")]
    PackMissing {
        /// Where it is named.
        index: usize,
        /// The name.
        tensor: String,
    },
    /// A packed tensor that is described more than once.
    #[error("halfbyte.pack.names has {tensor:?} again at index {index}")]
    PackTwice {
        /// Where it is named again.
        index: usize,
        /// The name.
        tensor: String,
    },
    /// A packed tensor that is not a run of bytes.
    #[error("packed tensor {tensor:?} (index {index}) is stored as {ty} {dims:?}, not as i8 of one dimension")]
    PackStored {
        /// Where it is named.
        index: usize,
        /// The name.
        tensor: String,
        /// Its format.
        ty: QuantType,
        /// Its extents.
        dims: Vec<usize>,
    },
    /// A packed tensor in a format this crate does not know.
    #[error("halfbyte.pack.types has the unknown format {found:?} at index {index}, for tensor {tensor:?}")]
    PackType {
        /// Where the format stands.
        index: usize,
        /// The tensor.
        tensor: String,
        /// The format's name.
        found: String,
    },
    /// The shape of a packed tensor does not match its bytes.
    #[error("packed tensor {tensor:?} (index {index}) has {bytes} bytes, which is not what {shape:?} in {} takes", ty.name())]
    PackShape {
        /// Where it is named.
        index: usize,
        /// The tensor.
        tensor: String,
        /// Its format.
        ty: PanelType,
        /// Depth, rows and count by the description.
        shape: [u64; 3],
        /// Bytes of the tensor.
        bytes: usize,
    },
    /// A shape that cannot be packed.
    #[error("tensor {tensor:?} of shape {dims:?} cannot be packed as {}", ty.name())]
    PackDims {
        /// The tensor.
        tensor: String,
        /// The format.
        ty: PanelType,
        /// Its extents, the contiguous one first.
        dims: Vec<usize>,
    },
    /// Tensor data is written in another order than announced, or not all of it.
    #[error("tensor data is written out of order: {expected:?} is next, not {found:?}")]
    WriteOrder {
        /// The tensor whose data must come next; empty if all are written.
        expected: String,
        /// The tensor that was given; empty if there was none.
        found: String,
    },
}

/// What a file that is not GGUF looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Foreign {
    /// No bytes at all.
    Empty,
    /// Nothing but zeros at the start.
    Zeros,
    /// A web page.
    Html,
    /// JSON text.
    Json,
    /// A pointer of Git LFS.
    GitLfs,
    /// A zip archive, which a PyTorch checkpoint is too.
    Zip,
    /// A program.
    Elf,
    /// A safetensors checkpoint.
    Safetensors,
    /// One of the formats before GGUF: ggml, ggmf, ggjt, ggla.
    OldGgml,
    /// Nothing known.
    Unknown {
        /// The first bytes.
        magic: [u8; 4],
    },
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "it is empty",
            Self::Zeros => "it starts with zeros (a download that was never filled?)",
            Self::Html => "it is a web page (the download saved a login or error page instead of the model)",
            Self::Json => "it is JSON text (an error message instead of the model?)",
            Self::GitLfs => "it is a Git LFS pointer (run `git lfs pull` to fetch the model itself)",
            Self::Zip => "it is a zip archive or PyTorch checkpoint",
            Self::Elf => "it is a program (ELF)",
            Self::Safetensors => "it is a safetensors checkpoint (convert it first)",
            Self::OldGgml => "it is in a GGML format from before GGUF (convert the original model again)",
            Self::Unknown { magic } => return write!(f, "it starts with \"{}\"", magic.escape_ascii()),
        })
    }
}
