//! The key-value cache of one layer, in pages of [`KV_PAGE`] positions: bytes in a fixed order.
//!
//! A page is `(kv_heads, 2, half)`: for each head its keys, then its values, so that attention over a head reads
//! straight through them, and threads that write different heads write different bytes. [`kv_append`] writes what
//! [`attention_gqa`](super::attention_gqa) reads; nobody else needs to know what a half looks like inside.

use crate::error::{KernelError, not_zero, product, same_len, whole_units};
use crate::{Kernels, kv8};

/// Positions of a page. Page `i` holds positions `i · 64..(i + 1) · 64`, which is also a tile of attention.
pub const KV_PAGE: usize = 64;

/// Most elements of a head: attention keeps as many sums on the stack.
pub const MAX_HEAD_DIM: usize = 8192;

/// How the numbers of a cache are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KvType {
    /// IEEE single precision, little-endian. A half is `(KV_PAGE, head_dim)`.
    F32,
    /// IEEE half precision, little-endian, rounded to nearest even. A half is `(KV_PAGE, head_dim)`.
    F16,
    /// 8 bits, with one scale for each head and position: `x = scale · n`, `scale` an f16, `n` in -127..=127. For heads
    /// of a multiple of 32 elements, up to 256.
    Int8,
}

/// What a position leaves in a head's two halves of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvPart {
    /// In the first half.
    Keys,
    /// In the second half.
    Values,
}

/// The shape of one layer's pages: `(kv_heads, 2, half)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KvLayout {
    /// How elements are stored.
    pub ty: KvType,
    /// Key-value heads.
    pub kv_heads: usize,
    /// Elements of a head, at most [`MAX_HEAD_DIM`].
    pub head_dim: usize,
}

impl KvLayout {
    /// Bytes of the keys, or values, of one head in a page.
    ///
    /// # Errors
    /// [`KernelError::TooLarge`] if that does not fit a `usize`.
    pub fn half_bytes(&self) -> Result<usize, KernelError> {
        let size = match self.ty {
            KvType::F32 => KV_PAGE * 4,
            KvType::F16 => KV_PAGE * 2,
            KvType::Int8 => {
                let bytes = self.head_dim.checked_add(kv8::SCALE_BYTES);
                return product("kv page", bytes.ok_or(KernelError::TooLarge { what: "kv page" })?, KV_PAGE);
            }
        };
        product("kv page", self.head_dim, size)
    }

    /// Bytes of a page: `kv_heads · 2 · half_bytes()`.
    ///
    /// # Errors
    /// As [`half_bytes`](Self::half_bytes).
    pub fn page_bytes(&self) -> Result<usize, KernelError> {
        product("kv page", product("kv page", self.kv_heads, 2)?, self.half_bytes()?)
    }

    /// `Ok` when a head has elements, not too many, and as many as the type can store.
    ///
    /// # Errors
    /// [`KernelError::Empty`], [`KernelError::OutOfRange`], [`KernelError::NotMultiple`].
    pub fn check_head(&self) -> Result<(), KernelError> {
        not_zero("head_dim", self.head_dim)?;
        if self.head_dim > MAX_HEAD_DIM {
            return Err(KernelError::OutOfRange { what: "head_dim", limit: MAX_HEAD_DIM, found: self.head_dim });
        }
        if self.ty == KvType::Int8 {
            whole_units("head_dim", kv8::DIMS, self.head_dim)?;
            if self.head_dim > kv8::MAX_DIM {
                return Err(KernelError::OutOfRange { what: "head_dim", limit: kv8::MAX_DIM, found: self.head_dim });
            }
        }
        Ok(())
    }
}

/// Where the pages of one layer are.
pub trait KvPages: Sync {
    /// The bytes of page `index`, `layout.page_bytes()` of them; none if there is no such page. Asked once for each
    /// tile and head, and to be answered alike each time: if it is not, results mean nothing.
    fn page(&self, index: usize) -> &[u8];
}

impl<P: AsRef<[u8]> + Sync> KvPages for Vec<P> {
    fn page(&self, index: usize) -> &[u8] {
        self.get(index).map_or(&[], AsRef::as_ref)
    }
}

/// Writes the keys (or values) of one head at `slot`, which is the position modulo [`KV_PAGE`].
///
/// Shapes: `half` is `layout.half_bytes()` long, `row: (head_dim)`.
///
/// # Errors
/// [`KernelError::ShapeMismatch`] for `half` or `row`, [`KernelError::OutOfRange`] if `slot >= KV_PAGE` or a head has
/// more than [`MAX_HEAD_DIM`] elements, [`KernelError::Empty`] if it has none.
pub fn kv_append(
    k: &Kernels,
    layout: &KvLayout,
    part: KvPart,
    half: &mut [u8],
    slot: usize,
    row: &[f32],
) -> Result<(), KernelError> {
    layout.check_head()?;
    same_len("kv half", layout.half_bytes()?, half.len())?;
    same_len("kv row", layout.head_dim, row.len())?;
    if slot >= KV_PAGE {
        return Err(KernelError::OutOfRange { what: "kv slot", limit: KV_PAGE - 1, found: slot });
    }
    // SAFETY: `k` proves that this CPU runs its table; the shapes were checked above.
    unsafe { (k.table().kv_append)(layout, part, half, slot, row) };
    Ok(())
}

/// Position `slot` of a half that is `(KV_PAGE, len_bytes)`.
pub(crate) fn cell(half: &mut [u8], slot: usize, len_bytes: usize) -> &mut [u8] {
    half.get_mut(slot * len_bytes..(slot + 1) * len_bytes).unwrap_or_default()
}
