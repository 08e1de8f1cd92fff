//! Bounds-checked little-endian cursor over untrusted bytes.
//!
//! Every read names the field it is for and answers a short buffer with [`FormatError::OutOfBounds`]; nothing
//! here can panic, allocate or move past the end. The GGUF reader is built on it.

use crate::FormatError;

/// Reads forward through `bytes`, remembering how far it has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Distance from the start, in bytes.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The same in the width that error messages use.
    pub(crate) fn offset(&self) -> u64 {
        self.at as u64
    }

    /// The bytes not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or(&[])
    }

    /// `count`, if that many items of at least `each` bytes are left; reads nothing.
    ///
    /// This is the check that stands before every allocation whose size a file chose.
    pub(crate) fn room_for(&self, what: &'static str, count: u64, each: u64) -> Result<usize, FormatError> {
        let have = self.rest().len() as u64;
        let need = count.saturating_mul(each);
        let count = usize::try_from(count).ok().filter(|_| need <= have);
        count.ok_or(FormatError::OutOfBounds { what, offset: self.offset(), need, have })
    }

    /// The next `len` bytes.
    pub(crate) fn take(&mut self, what: &'static str, len: u64) -> Result<&'a [u8], FormatError> {
        let taken = usize::try_from(len).ok().and_then(|len| self.rest().get(..len));
        let Some(taken) = taken else {
            let have = self.rest().len() as u64;
            return Err(FormatError::OutOfBounds { what, offset: self.offset(), need: len, have });
        };
        self.at += taken.len();
        Ok(taken)
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, FormatError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, FormatError> {
        self.array(what).map(u64::from_le_bytes)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], FormatError> {
        let (offset, have) = (self.offset(), self.rest().len() as u64);
        let Some(bytes) = self.rest().first_chunk::<N>() else {
            return Err(FormatError::OutOfBounds { what, offset, need: N as u64, have });
        };
        self.at += N;
        Ok(*bytes)
    }
}
