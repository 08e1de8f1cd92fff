//! Writing: metadata and descriptions first, then tensor data in a stream, so that no tensor need be in memory whole.
//!
//! [`GgufWriter`] collects what the head of the file says and checks it by the reader's rules; [`GgufStream`] then
//! takes the data of each tensor in the announced order and adds the padding, after the last one too (llama.cpp
//! refuses a file without it). [`GgufFile`] streams into a temporary file that takes the target's place only when
//! it is complete and on disk.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    vec,
};

use super::{
    Value, encode, layout,
    packed::{self, Packed},
};
use crate::{FormatError, QuantType, TempFile, quant::PanelType};

/// The head of a GGUF file in the making. Keys and tensors are written in the order they are given.
#[derive(Clone, Debug, Default)]
pub struct GgufWriter {
    entries: Vec<(String, Value)>,
    keys: HashSet<String>,
    tensors: Vec<Announced>,
    names: HashSet<String>,
    packed: Vec<(String, Packed)>,
}

/// A tensor whose data will follow.
#[derive(Clone, Debug)]
pub(super) struct Announced {
    pub(super) name: String,
    pub(super) dims: Vec<usize>,
    pub(super) ty: QuantType,
    pub(super) bytes: usize,
}

impl GgufWriter {
    /// A file without metadata and tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a metadata entry. `general.alignment` (a power of two, u32) also sets the alignment of tensor data.
    ///
    /// # Errors
    /// [`FormatError::OutOfRange`] or [`FormatError::InvalidCharacter`] if `key` is not 1 to 65,535 characters of
    /// printable ASCII, [`FormatError::DuplicateKey`] if it is taken, [`FormatError::InvalidAlignment`] or
    /// [`FormatError::MetadataKind`] for an alignment that cannot be used.
    pub fn put(&mut self, key: &str, value: impl Into<Value>) -> Result<(), FormatError> {
        let value = value.into();
        layout::check_count("metadata count", self.entries.len())?;
        layout::check_key_len(key.len() as u64, 0)?;
        layout::check_key(key, 0)?;
        if key == layout::ALIGNMENT_KEY {
            layout::alignment(Some(&value))?;
        }
        if !self.keys.insert(key.to_owned()) {
            return Err(FormatError::DuplicateKey { key: key.to_owned(), offset: 0 });
        }
        self.entries.push((key.to_owned(), value));
        Ok(())
    }

    /// Announces a tensor with extents `dims`, the contiguous one first.
    ///
    /// # Errors
    /// [`FormatError::OutOfRange`], [`FormatError::InvalidCharacter`], [`FormatError::PartialBlock`] or
    /// [`FormatError::SizeOverflow`] if name or shape break a rule of the format, [`FormatError::DuplicateTensor`] if
    /// the name is taken.
    pub fn declare(&mut self, name: &str, dims: &[usize], ty: QuantType) -> Result<(), FormatError> {
        layout::check_count("tensor count", self.tensors.len())?;
        layout::check_tensor_name_len(name.len() as u64, 0)?;
        layout::check_tensor_name(name, 0)?;
        let bytes = layout::tensor_bytes(name, dims, ty, 0)?;
        if !self.names.insert(name.to_owned()) {
            return Err(FormatError::DuplicateTensor { tensor: name.to_owned() });
        }
        self.tensors.push(Announced { name: name.to_owned(), dims: dims.to_vec(), ty, bytes });
        Ok(())
    }

    /// Announces a packed tensor: `dims`, the contiguous one first, are those of a matrix or of a stack of matrices of
    /// whole panels, which become a tensor of bytes and a description of it. A file with such tensors should also
    /// [`put`](Self::put) `general.alignment`, as [`PACK_ALIGNMENT`](super::PACK_ALIGNMENT).
    ///
    /// # Errors
    /// As [`declare`](Self::declare), with [`FormatError::PackDims`] for a shape that has no panels of `ty`.
    pub fn declare_packed(&mut self, name: &str, dims: &[usize], ty: PanelType) -> Result<(), FormatError> {
        let no_panels = || FormatError::PackDims { tensor: name.to_owned(), ty, dims: dims.to_vec() };
        let (packed, bytes) = Packed::new(ty, dims).ok_or_else(no_panels)?;
        self.declare(name, &[bytes], QuantType::I8)?;
        self.packed.push((name.to_owned(), packed));
        Ok(())
    }

    /// Starts the file at `path`; whatever is there stays untouched until [`GgufFile::finish`].
    ///
    /// # Errors
    /// [`FormatError::Io`] if the temporary file beside `path` cannot be made or written; [`FormatError::DuplicateKey`]
    /// if tensors are packed and their description was put already; [`FormatError::OutOfRange`] for more than 256 MiB
    /// of metadata.
    pub fn create(self, path: impl AsRef<Path>) -> Result<GgufFile, FormatError> {
        let (temp, file) = TempFile::beside(path.as_ref())?;
        let stream = self.stream(BufWriter::new(file), path.as_ref())?;
        Ok(GgufFile { stream, temp })
    }

    /// Starts a file in any `sink`, for instance a `Vec<u8>`.
    ///
    /// # Errors
    /// [`FormatError::Io`] if `sink` fails; [`FormatError::DuplicateKey`] and [`FormatError::OutOfRange`] as for
    /// [`create`](Self::create).
    pub fn write_to<W: Write>(self, sink: W) -> Result<GgufStream<W>, FormatError> {
        self.stream(sink, Path::new("(stream)"))
    }

    fn stream<W: Write>(mut self, sink: W, target: &Path) -> Result<GgufStream<W>, FormatError> {
        if !self.packed.is_empty() {
            for (key, value) in packed::entries(&self.packed) {
                self.put(key, value)?;
            }
        }
        let alignment = self.entries.iter().find(|(key, _)| key == layout::ALIGNMENT_KEY);
        let alignment = layout::alignment(alignment.map(|(_, value)| value))?;
        let head = encode::head(&self.entries, &self.tensors, alignment)?;
        let mut stream = GgufStream {
            sink,
            target: target.to_owned(),
            alignment,
            tensors: self.tensors.into_iter(),
            written: 0,
            failed: false,
        };
        stream.write_all(&head)?;
        Ok(stream)
    }
}

/// A GGUF file whose head is written and whose tensor data is on its way into `W`.
///
/// After an error nothing more can be written: what `W` has got is no GGUF file.
#[derive(Debug)]
pub struct GgufStream<W> {
    sink: W,
    target: PathBuf,
    alignment: usize,
    /// Tensors whose data is not complete.
    tensors: vec::IntoIter<Announced>,
    /// Bytes written of the first of them.
    written: usize,
    failed: bool,
}

impl<W: Write> GgufStream<W> {
    /// Writes all data of the tensor called `name`, which must be the next one announced.
    ///
    /// # Errors
    /// [`FormatError::WriteOrder`] if another tensor is next, [`FormatError::LengthMismatch`] if `data` is not as
    /// long as its shape demands, [`FormatError::Io`] if the sink fails.
    pub fn write_tensor(&mut self, name: &str, data: &[u8]) -> Result<(), FormatError> {
        let expected = self.left(name)?;
        if data.len() != expected {
            let found = data.len();
            return Err(FormatError::LengthMismatch { what: "tensor data", expected, found });
        }
        self.write_part(name, data)
    }

    /// Writes the next bytes of the tensor called `name`; its data may come in any number of parts.
    ///
    /// # Errors
    /// As [`write_tensor`](Self::write_tensor), with `part` being too long instead of not as long.
    pub fn write_part(&mut self, name: &str, part: &[u8]) -> Result<(), FormatError> {
        let left = self.left(name)?;
        if part.len() > left {
            let (what, found) = ("part of tensor data", part.len());
            return Err(FormatError::LengthMismatch { what, expected: left, found });
        }
        self.write_all(part)?;
        self.written += part.len();
        if part.len() == left {
            let padding = self.written.next_multiple_of(self.alignment) - self.written;
            self.write_all(&vec![0; padding])?;
            self.tensors.next();
            self.written = 0;
        }
        Ok(())
    }

    /// Ends the file and hands the sink back, flushed.
    ///
    /// # Errors
    /// [`FormatError::WriteOrder`] if tensor data is missing, [`FormatError::Io`] if the sink fails.
    pub fn finish(mut self) -> Result<W, FormatError> {
        if let Some(next) = self.tensors.next() {
            return Err(FormatError::WriteOrder { expected: next.name, found: String::new() });
        }
        self.usable()?;
        self.sink.flush().map_err(io_error("write", &self.target))?;
        Ok(self.sink)
    }

    /// Bytes that are still to come of the tensor called `name`.
    fn left(&self, name: &str) -> Result<usize, FormatError> {
        match self.tensors.as_slice().first() {
            // `written` stays below the size of a tensor that is not complete.
            Some(next) if next.name == name => Ok(next.bytes - self.written),
            next => {
                let expected = next.map(|next| next.name.clone()).unwrap_or_default();
                Err(FormatError::WriteOrder { expected, found: name.to_owned() })
            }
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        self.usable()?;
        let written = self.sink.write_all(bytes);
        self.failed = written.is_err();
        written.map_err(io_error("write", &self.target))
    }

    fn usable(&self) -> Result<(), FormatError> {
        let failed = || io::Error::other("an earlier write failed");
        if self.failed { Err(io_error("write", &self.target)(failed())) } else { Ok(()) }
    }
}

/// A GGUF file that takes its name when it is complete.
///
/// Until [`finish`](Self::finish) it is a temporary file in the target's folder, removed if it is dropped.
#[derive(Debug)]
pub struct GgufFile {
    stream: GgufStream<BufWriter<File>>,
    temp: TempFile,
}

impl GgufFile {
    /// As [`GgufStream::write_tensor`].
    ///
    /// # Errors
    /// As [`GgufStream::write_tensor`].
    pub fn write_tensor(&mut self, name: &str, data: &[u8]) -> Result<(), FormatError> {
        self.stream.write_tensor(name, data)
    }

    /// As [`GgufStream::write_part`].
    ///
    /// # Errors
    /// As [`GgufStream::write_part`].
    pub fn write_part(&mut self, name: &str, part: &[u8]) -> Result<(), FormatError> {
        self.stream.write_part(name, part)
    }

    /// Puts the file on disk and in place of whatever had its name, in one step: a crash leaves the old file or the
    /// new one.
    ///
    /// # Errors
    /// [`FormatError::WriteOrder`] if tensor data is missing, [`FormatError::Io`] if the system refuses.
    pub fn finish(self) -> Result<(), FormatError> {
        let Self { stream, temp } = self;
        let failed = |action| io_error(action, temp.target());
        let file = stream.finish()?.into_inner().map_err(|error| failed("write")(error.into_error()))?;
        file.sync_all().map_err(failed("sync"))?;
        // Windows renames only closed files.
        drop(file);
        temp.rename()
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FormatError {
    move |source| FormatError::Io { action, path: path.to_owned(), source }
}
