//! Attention of a run of tokens over the key-value cache.

use std::ops::Range;

use crate::error::{KernelError, not_zero, product, same_len, whole_units};
use crate::{Kernels, KvLayout, Tile};

/// What queries attend to: one layer's cache and, for each token, the part of it that it sees.
#[derive(Clone, Debug)]
pub struct AttentionGqa<'a> {
    /// Shape of `keys`, and of `values`.
    pub layout: &'a KvLayout,
    /// Keys `(kv_heads, capacity, head_dim)`, as [`kv_append`](super::kv_append) wrote them.
    pub keys: &'a [u8],
    /// Values, likewise.
    pub values: &'a [u8],
    /// The position of the first token; the others follow it.
    pub pos: usize,
    /// Positions that a token sees: its own and those right before it. `None`: all from the first one on.
    pub window: Option<usize>,
    /// Factor of the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
}

impl AttentionGqa<'_> {
    /// What token number `token` of the call sees: `max(0, p + 1 - window)..p + 1` for its position `p`.
    pub(crate) fn visible(&self, token: usize) -> Range<usize> {
        let end = self.pos + token + 1;
        end.saturating_sub(self.window.unwrap_or(end))..end
    }
}

/// Queries of consecutive tokens: the first elements of rows that lie `stride` apart.
#[derive(Clone, Copy, Debug)]
pub struct Queries<'a> {
    /// From the first token's first query head on. What lies behind the last token's does not matter.
    pub data: &'a [f32],
    /// Elements from one token to the next.
    pub stride: usize,
}

/// Causal grouped-query attention of the query heads that share `kv_head`, for a run of tokens whose keys and values are in
/// the cache already: `out[t][h] = Σ_j softmax_j(scale · q[t][h] · key[j]) · value[j]` over the positions `j` that token `t`
/// sees (Vaswani et al. 2017, eq. 1; grouping: Ainslie et al. 2023).
///
/// Shapes: `q` and `out: (tokens, heads, head_dim)`, any number of tokens and heads; those of `out` count. Softmax runs
/// online (Milakov and Gimelshein 2018) over tiles of 64 positions that start at absolute multiples of 64, merged in
/// ascending order: a token's result depends on the positions it sees only, not on the tokens beside it, and what it does
/// not see may hold anything, even NaN. The scratch is on the stack, at most 64 KiB.
///
/// # Errors
/// [`KernelError::Empty`] if a head has no elements or the window no position, [`KernelError::OutOfRange`] for a token past the
/// cache or a head it does not have, [`KernelError::NotMultiple`] if `out` is not whole heads,
/// [`KernelError::ShapeMismatch`] for `keys` or `values`, or if `q` ends before the last token's queries do.
pub fn attention_gqa(
    k: &Kernels,
    a: &AttentionGqa<'_>,
    kv_head: usize,
    q: Queries<'_>,
    out: &mut Tile<'_>,
) -> Result<(), KernelError> {
    let (tokens, rows) = (out.tokens(), out.rows());
    not_zero("head_dim", a.layout.head_dim)?;
    not_zero("attention window", a.window.unwrap_or(1))?;
    same_len("attention keys", a.layout.len_bytes()?, a.keys.len())?;
    same_len("attention values", a.keys.len(), a.values.len())?;
    whole_units("attention output", a.layout.head_dim, rows)?;
    if kv_head >= a.layout.kv_heads {
        let limit = a.layout.kv_heads.saturating_sub(1);
        return Err(KernelError::OutOfRange { what: "kv_head", limit, found: kv_head });
    }
    if tokens == 0 || rows == 0 {
        return Ok(());
    }
    let end = a.pos.saturating_add(tokens);
    if end > a.layout.capacity {
        return Err(KernelError::OutOfRange { what: "visible positions", limit: a.layout.capacity, found: end });
    }
    let needed = product("attention queries", tokens - 1, q.stride)?.checked_add(rows);
    let needed = needed.ok_or(KernelError::TooLarge { what: "attention queries" })?;
    if q.data.len() < needed {
        same_len("attention queries", needed, q.data.len())?;
    }
    // SAFETY: `k` proves that this CPU runs its table; the shapes were checked above.
    unsafe { (k.table().attention_gqa)(a, kv_head, q, out) };
    Ok(())
}
