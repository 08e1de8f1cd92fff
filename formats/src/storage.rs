//! A shared, immutable run of bytes: the owner (memory map, buffer, static data) is counted, the range is fixed.
//!
//! Everything that borrows from a model file holds one of these, so no public type needs a lifetime and the file
//! stays mapped exactly as long as something still reads it.

use std::{fmt, ops::Deref, ops::Range, sync::Arc};

use crate::FormatError;

/// What [`Bytes`] can be views of.
pub(crate) trait Owner: Send + Sync {
    /// All bytes, always the same.
    fn bytes(&self) -> &[u8];

    /// See [`Bytes::read_ahead`].
    fn read_ahead(&self, range: Range<usize>);

    /// See [`Bytes::read_sparsely`].
    fn read_sparsely(&self);
}

/// Bytes that are in memory.
struct Held<T>(T);

impl<T: AsRef<[u8]> + Send + Sync> Owner for Held<T> {
    fn bytes(&self) -> &[u8] {
        self.0.as_ref()
    }

    fn read_ahead(&self, _: Range<usize>) {}

    fn read_sparsely(&self) {}
}

/// A cheap-to-clone view of `len` bytes inside a shared owner.
#[derive(Clone)]
pub struct Bytes {
    owner: Arc<dyn Owner>,
    range: Range<usize>,
}

impl Bytes {
    /// Takes over `owner` and views all of it.
    pub fn from_owner(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self::of(Held(owner))
    }

    pub(crate) fn of(owner: impl Owner + 'static) -> Self {
        let range = 0..owner.bytes().len();
        Self { owner: Arc::new(owner), range }
    }

    /// Has the system read these bytes of a mapped file, all at once, in the background, and nothing around them.
    /// Without this they are read when they are used, in larger pieces.
    pub fn read_ahead(&self) {
        self.owner.read_ahead(self.range.clone());
    }

    /// Tells the system that the file these bytes are from has parts that may never be used: what is used brings a
    /// piece of at most 2 MiB into memory, and no more on suspicion.
    pub fn read_sparsely(&self) {
        self.owner.read_sparsely();
    }

    /// A view of `range`, counted from the start of this view.
    ///
    /// # Errors
    /// [`FormatError::OutOfBounds`] if the range does not lie inside this view.
    pub fn slice(&self, range: Range<usize>) -> Result<Self, FormatError> {
        let outside = || FormatError::OutOfBounds {
            what: "byte range",
            offset: range.start as u64,
            need: range.end.saturating_sub(range.start) as u64,
            have: self.range.len() as u64,
        };
        if range.start > range.end || range.end > self.range.len() {
            return Err(outside());
        }
        // Neither sum can wrap: both are at most `self.range.end`.
        let start = self.range.start + range.start;
        let end = self.range.start + range.end;
        Ok(Self { owner: Arc::clone(&self.owner), range: start..end })
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // An owner whose `as_ref` shrank would be a bug of that type; an empty view is the safe answer.
        self.owner.bytes().get(self.range.clone()).unwrap_or(&[])
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from_owner(bytes)
    }
}

impl From<&'static [u8]> for Bytes {
    fn from(bytes: &'static [u8]) -> Self {
        Self::from_owner(bytes)
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({} bytes)", self.len())
    }
}
