//! The key-value cache of one layer, as bytes in a fixed order.
//!
//! Keys and values each have a buffer `(kv_heads, capacity, head_dim)`: a head's keys are contiguous, so attention reads
//! straight through them. [`kv_append`] writes what [`attention_gqa`](super::attention_gqa) reads.

use crate::Kernels;
use crate::error::{KernelError, not_zero, product, same_len};

/// How the numbers of a cache are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KvType {
    /// IEEE single precision, little-endian.
    F32,
    /// IEEE half precision, little-endian, rounded to nearest even.
    F16,
}

impl KvType {
    /// Bytes of one element.
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

/// The shape of one layer's keys, or values: `(kv_heads, capacity, head_dim)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KvLayout {
    /// How elements are stored.
    pub ty: KvType,
    /// Key-value heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Positions there is room for.
    pub capacity: usize,
}

impl KvLayout {
    /// Bytes of the whole buffer: `kv_heads · capacity · head_dim · size of an element`.
    ///
    /// # Errors
    /// [`KernelError::TooLarge`] if that does not fit a `usize`.
    pub fn len_bytes(&self) -> Result<usize, KernelError> {
        product("kv cache", self.kv_heads, self.head_len_bytes()?)
    }

    /// Bytes of one head: all its positions.
    pub(crate) fn head_len_bytes(&self) -> Result<usize, KernelError> {
        product("kv cache", self.capacity, self.cell_bytes()?)
    }

    /// Bytes of one position of one head.
    fn cell_bytes(&self) -> Result<usize, KernelError> {
        product("kv cache", self.head_dim, self.ty.size_bytes())
    }
}

/// Writes the keys (or values) of position `pos`, all heads: `cache[h][pos][..] = row[h][..]`.
///
/// Shapes: `cache` is `layout.len_bytes()` long, `row: (kv_heads, head_dim)`.
///
/// # Errors
/// [`KernelError::ShapeMismatch`] for `cache` or `row`, [`KernelError::OutOfRange`] if `pos >= capacity`,
/// [`KernelError::Empty`] if a head has no elements.
pub fn kv_append(k: &Kernels, layout: &KvLayout, cache: &mut [u8], pos: usize, row: &[f32]) -> Result<(), KernelError> {
    not_zero("head_dim", layout.head_dim)?;
    same_len("kv cache", layout.len_bytes()?, cache.len())?;
    same_len("kv row", product("kv row", layout.kv_heads, layout.head_dim)?, row.len())?;
    if pos >= layout.capacity {
        return Err(KernelError::OutOfRange {
            what: "kv position",
            limit: layout.capacity.saturating_sub(1),
            found: pos,
        });
    }
    // `capacity > pos >= 0`, so a head is not empty and `pos * cell` lies inside it.
    let (head, cell) = (layout.head_len_bytes()?, layout.cell_bytes()?);
    for (cache, row) in cache.chunks_exact_mut(head).zip(row.chunks_exact(layout.head_dim)) {
        if let Some(cell) = cache.get_mut(pos * cell..(pos + 1) * cell) {
            // SAFETY: `k` proves that this CPU runs its table; the shapes were checked above.
            unsafe { (k.table().kv_append)(layout.ty, cell, row) };
        }
    }
    Ok(())
}
