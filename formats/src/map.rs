//! Opening files: a read-only memory map, or a private copy.
//!
//! The one module of the container code with `unsafe`, for the call that maps. It refuses everything that is not
//! a regular file before touching it (opening a FIFO would block, `/dev/zero` never ends) and hands on [`Bytes`].

use std::{
    fs::{self, File, FileType, Metadata},
    io::{self, Read},
    ops::Range,
    path::Path,
};

use crate::{Bytes, FormatError, storage::Owner};

/// How a file's bytes come into memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Load {
    /// Map it read-only: nothing is read before it is used, and the pages are shared with other processes.
    ///
    /// If another process **shortens the file while it is mapped**, touching the lost pages raises SIGBUS, which
    /// ends the process; if it rewrites the file in place, tensor data changes under the reader. Replace model
    /// files by renaming a new one over them (as [`GgufWriter`](crate::gguf::GgufWriter) does): that is safe.
    #[default]
    Map,
    /// Read all of it into a private buffer: slower, takes the memory at once, immune to later changes.
    Copy,
}

/// The bytes of the regular file at `path`.
pub(crate) fn load(path: &Path, how: Load) -> Result<Bytes, FormatError> {
    let failed = |action| move |source| FormatError::Io { action, path: path.to_owned(), source };
    let (file, metadata) = open_regular(path)?;
    let too_large = |_| failed("load")(io::Error::from(io::ErrorKind::FileTooLarge));
    let len = usize::try_from(metadata.len()).map_err(too_large)?;
    if len == 0 {
        // An empty file cannot be mapped everywhere; the parser says what is wrong with it.
        return Ok(Bytes::from(Vec::new()));
    }
    let bytes = match how {
        Load::Map => Bytes::of(map(&file, len).map_err(failed("map"))?),
        Load::Copy => Bytes::from(copy(&file, len).map_err(failed("read"))?),
    };
    let found = file.metadata().map_err(failed("open"))?.len();
    if bytes.len() as u64 != found {
        return Err(FormatError::FileChanged { path: path.to_owned(), expected: len as u64, found });
    }
    Ok(bytes)
}

/// Opens a file to be read, and no folder, device or pipe: a pipe would be waited for.
///
/// # Errors
/// [`FormatError::NotRegularFile`]; [`FormatError::Io`] if the system refuses.
pub fn open_regular(path: &Path) -> Result<(File, Metadata), FormatError> {
    let failed = |source| FormatError::Io { action: "open", path: path.to_owned(), source };
    let regular = |metadata: Metadata| match refusal(metadata.file_type()) {
        Some(kind) => Err(FormatError::NotRegularFile { path: path.to_owned(), kind }),
        None => Ok(metadata),
    };
    // Asked once by name, because opening a FIFO waits for its writer, and once of the open file, because the
    // name may have been given to something else in between.
    regular(fs::metadata(path).map_err(failed)?)?;
    let file = File::open(path).map_err(failed)?;
    let metadata = regular(file.metadata().map_err(failed)?)?;
    Ok((file, metadata))
}

/// A mapped file.
struct Mapped {
    map: memmap2::Mmap,
    /// Whether the system was asked for large pages, and knows them.
    large_pages: bool,
}

impl Owner for Mapped {
    fn bytes(&self) -> &[u8] {
        &self.map
    }

    fn read_ahead(&self, range: Range<usize>) {
        // Advice: whoever uses the bytes waits for them in any case.
        #[cfg(unix)]
        let _ = self.map.advise_range(memmap2::Advice::WillNeed, range.start, range.len());
        #[cfg(not(unix))]
        let _ = range;
    }

    fn read_sparsely(&self) {
        // Then it reads one large page at a time. Without, it would read one small page at a time, which takes too
        // long.
        #[cfg(unix)]
        if self.large_pages {
            let _ = self.map.advise(memmap2::Advice::Random);
        }
    }
}

#[expect(unsafe_code, reason = "mapping a file is unsafe: other processes can change it")]
fn map(file: &File, len: usize) -> io::Result<Mapped> {
    // SAFETY: the map is read-only and private to this process, and `len` is the length of the open file, so all
    // pages exist now. Nothing in Rust can stop another process from shortening or rewriting the file; `Load::Map`
    // documents that this is SIGBUS or changed data. No code here relies on two reads giving the same byte: lengths
    // are re-checked where they are used, and text is validated on a private copy.
    let map = unsafe { memmap2::MmapOptions::new().len(len).map(file) }?;
    // Where the file system keeps large folios, what is read from now on is cached and mapped 2 MiB at a time: on a
    // machine with Linux 6.18 and ext4 two threads then read 51 instead of 38 GB/s. It is advice; elsewhere nothing
    // happens.
    #[cfg(target_os = "linux")]
    let large_pages = map.advise(memmap2::Advice::HugePage).is_ok();
    #[cfg(not(target_os = "linux"))]
    let large_pages = false;
    Ok(Mapped { map, large_pages })
}

fn copy(file: &File, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
    // Not one byte more than was announced, should the file be growing; the caller compares the lengths.
    file.take(len as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The name of a kind of file that is never a model, `None` for a regular one.
fn refusal(kind: FileType) -> Option<&'static str> {
    if kind.is_file() {
        return None;
    }
    if kind.is_dir() {
        return Some("a directory");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return Some("a FIFO");
        }
        if kind.is_char_device() || kind.is_block_device() {
            return Some("a device");
        }
        if kind.is_socket() {
            return Some("a socket");
        }
    }
    Some("not a regular file")
}
