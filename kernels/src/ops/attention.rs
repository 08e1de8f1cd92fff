//! Attention of one position over the key-value cache.

use std::ops::Range;

use crate::error::{KernelError, not_zero, same_len, whole_units};
use crate::{Kernels, KvLayout};

/// What a query attends to: one layer's cache and the part of it that is visible.
#[derive(Clone, Debug)]
pub struct AttentionGqa<'a> {
    /// Shape of `keys`, and of `values`.
    pub layout: &'a KvLayout,
    /// Keys `(kv_heads, capacity, head_dim)`, as [`kv_append`](super::kv_append) wrote them.
    pub keys: &'a [u8],
    /// Values, likewise.
    pub values: &'a [u8],
    /// The cache positions this query sees: causal mask and sliding window are this range.
    pub visible: Range<usize>,
    /// Factor of the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
}

/// Grouped-query attention of the query heads that share `kv_head`:
/// `out[h] = Σ_j softmax_j(scale · q[h] · key[j]) · value[j]` over the visible positions `j` (Vaswani et al. 2017, eq. 1;
/// grouping: Ainslie et al. 2023).
///
/// Shapes: `q` and `out: (heads, head_dim)`, any number of heads. Softmax runs online (Milakov and Gimelshein 2018) over
/// tiles of 64 positions that start at absolute multiples of 64, merged in ascending order: the result depends on the
/// visible positions only, and needs no scratch memory.
///
/// # Errors
/// [`KernelError::Empty`] if no position is visible or a head has no elements, [`KernelError::RangeReversed`] and
/// [`KernelError::OutOfRange`] for a range outside the cache or a head it does not have, [`KernelError::NotMultiple`] if
/// `q` is not whole heads, [`KernelError::ShapeMismatch`] for `keys`, `values` or `out`.
pub fn attention_gqa(
    k: &Kernels,
    a: &AttentionGqa<'_>,
    kv_head: usize,
    q: &[f32],
    out: &mut [f32],
) -> Result<(), KernelError> {
    let Range { start, end } = a.visible.clone();
    not_zero("head_dim", a.layout.head_dim)?;
    same_len("attention keys", a.layout.len_bytes()?, a.keys.len())?;
    same_len("attention values", a.keys.len(), a.values.len())?;
    whole_units("attention queries", a.layout.head_dim, q.len())?;
    same_len("attention output", q.len(), out.len())?;
    if kv_head >= a.layout.kv_heads {
        let limit = a.layout.kv_heads.saturating_sub(1);
        return Err(KernelError::OutOfRange { what: "kv_head", limit, found: kv_head });
    }
    if start > end {
        return Err(KernelError::RangeReversed { what: "visible positions", start, end });
    }
    not_zero("visible positions", end - start)?;
    if end > a.layout.capacity {
        return Err(KernelError::OutOfRange { what: "visible positions", limit: a.layout.capacity, found: end });
    }
    // SAFETY: `k` proves that this CPU runs its table; the shapes were checked above.
    unsafe { (k.table().attention_gqa)(a, kv_head, q, out) };
    Ok(())
}
