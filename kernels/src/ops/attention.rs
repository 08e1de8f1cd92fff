//! Attention of a run of tokens over the key-value cache.

use std::fmt;
use std::ops::Range;

use super::kv::{KV_PAGE, KvPages};
use crate::error::{KernelError, not_zero, product, same_len, whole_units};
use crate::{Kernels, KvLayout, Tile};

/// Positions of a split, which is whole pages.
///
/// What a query head sees is cut at absolute multiples of this. Each split gets an online softmax of its own (Milakov
/// and Gimelshein 2018): the largest score `m`, the sum of weights `l = Σ_j exp(s_j - m)` and the weighted values `o =
/// Σ_j exp(s_j - m) · value_j`. Splits are merged in ascending order, one after the other into the first:
///
/// ```text
/// m' = max(m, m_split);  a = exp(m - m');  b = exp(m_split - m')
/// l  = l · a + l_split · b;  o = o · a + o_split · b              at the end: out = o / l
/// ```
/// [`attention_gqa`] does all that in one call; [`attention_part`] does a split and [`attention_merge`] puts them
/// together, so that several threads can share a token. The bits are the same.
pub const KV_SPLIT: usize = 1024;

/// What queries attend to: one layer's cache and, for each token, the part of it that it sees.
#[derive(Clone)]
pub struct AttentionGqa<'a> {
    /// Shape of the pages.
    pub layout: &'a KvLayout,
    /// Keys and values, as [`kv_append`](super::kv_append) wrote them.
    pub pages: &'a dyn KvPages,
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
        let end = self.pos.saturating_add(token).saturating_add(1);
        end.saturating_sub(self.window.unwrap_or(end))..end
    }

    /// The splits in which the first token sees something, by number: split `i` is positions
    /// `i · KV_SPLIT..(i + 1) · KV_SPLIT`.
    #[must_use]
    pub fn splits(&self) -> Range<usize> {
        splits(&self.visible(0))
    }

    /// The keys of a head in a page, then its values, unless the page is not there.
    #[inline(always)]
    pub(crate) fn both_halves(&self, page: usize, kv_head: usize) -> Option<&[u8]> {
        let half = self.layout.half_bytes().ok()?;
        self.pages.page(page).get(2 * kv_head * half..2 * (kv_head + 1) * half)
    }

    /// The keys and the values of a head in a page, unless the page is not there.
    #[inline(always)]
    pub(crate) fn halves(&self, page: usize, kv_head: usize) -> Option<[&[u8]; 2]> {
        let both = self.both_halves(page, kv_head)?;
        let (keys, values) = both.split_at(both.len() / 2);
        Some([keys, values])
    }

    /// `Ok` when there is such a head, and each page that holds one of the positions.
    fn check(&self, kv_head: usize, positions: &Range<usize>) -> Result<(), KernelError> {
        self.layout.check_head()?;
        not_zero("attention window", self.window.unwrap_or(1))?;
        let bytes = self.layout.page_bytes()?;
        if kv_head >= self.layout.kv_heads {
            let limit = self.layout.kv_heads.saturating_sub(1);
            return Err(KernelError::OutOfRange { what: "kv_head", limit, found: kv_head });
        }
        for page in positions.start / KV_PAGE..positions.end.div_ceil(KV_PAGE) {
            let found = self.pages.page(page).len();
            if found < bytes {
                return Err(KernelError::ShapeMismatch { what: "kv page", expected: bytes, found });
            }
        }
        Ok(())
    }
}

impl fmt::Debug for AttentionGqa<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { layout, pages: _, pos, window, scale } = self;
        let mut f = f.debug_struct("AttentionGqa");
        f.field("layout", layout).field("pos", pos).field("window", window).field("scale", scale);
        f.finish_non_exhaustive()
    }
}

/// The splits that have one of the positions.
pub(crate) fn splits(positions: &Range<usize>) -> Range<usize> {
    positions.start / KV_SPLIT..positions.end.div_ceil(KV_SPLIT)
}

/// Those of the positions that are in a split.
pub(crate) fn within(positions: &Range<usize>, split: usize) -> Range<usize> {
    let (first, last) = (split.saturating_mul(KV_SPLIT), (split.saturating_add(1)).saturating_mul(KV_SPLIT));
    positions.start.max(first)..positions.end.min(last)
}

/// Queries of consecutive tokens: the first elements of rows that lie `stride` apart.
#[derive(Clone, Copy, Debug)]
pub struct Queries<'a> {
    /// From the first token's first query head on. What lies behind the last token's does not matter.
    pub data: &'a [f32],
    /// Elements from one token to the next.
    pub stride: usize,
}

/// Causal grouped-query attention of the query heads that share `kv_head`, for a run of tokens whose keys and values
/// are in the cache already: `out[t][h] = Σ_j softmax_j(scale · q[t][h] · key[j]) · value[j]` over the positions `j`
/// that token `t` sees (Vaswani et al. 2017, eq. 1; grouping: Ainslie et al. 2023).
///
/// Shapes: `q` and `out: (tokens, heads, head_dim)`, any number of tokens and heads; those of `out` count. Softmax runs
/// over pages, in ascending order, and over splits as [`KV_SPLIT`] says: a token's result depends on the positions it
/// sees only, not on the tokens beside it, and what it does not see may hold anything, even NaN; a key that it sees and
/// that has a NaN makes all of its result NaN. Pages in which no token sees anything are not asked for. The scratch is
/// on the stack, at most 106 KiB.
///
/// # Errors
/// [`KernelError::Empty`] if a head has no elements or the window no position, [`KernelError::OutOfRange`] for a head
/// that the cache does not have or that is too large, [`KernelError::NotMultiple`] if `out` is not whole heads,
/// [`KernelError::ShapeMismatch`] for a page that is missing or too short, or if `q` ends before the last token's
/// queries do, [`KernelError::TooLarge`] for positions that do not fit a `usize`.
pub fn attention_gqa(
    k: &Kernels,
    a: &AttentionGqa<'_>,
    kv_head: usize,
    q: Queries<'_>,
    out: &mut Tile<'_>,
) -> Result<(), KernelError> {
    let (tokens, rows) = (out.tokens(), out.rows());
    let end = a.pos.checked_add(tokens).ok_or(KernelError::TooLarge { what: "visible positions" })?;
    a.check(kv_head, &if tokens == 0 || rows == 0 { 0..0 } else { a.visible(0).start..end })?;
    whole_units("attention output", a.layout.head_dim, rows)?;
    if tokens == 0 || rows == 0 {
        return Ok(());
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

/// Elements of what [`attention_part`] leaves of `heads` query heads: `heads · (head_dim + 2)`.
///
/// # Errors
/// [`KernelError::TooLarge`] if that does not fit a `usize`.
pub fn part_len(heads: usize, head_dim: usize) -> Result<usize, KernelError> {
    product("attention part", heads, head_dim.saturating_add(2))
}

/// One split of the attention of one token, whose position is `a.pos`: of the query heads that share `kv_head`.
///
/// Shapes: `q: (heads, head_dim)`, `part: (part_len(heads, head_dim))`, which is the `o` of all heads, `(heads,
/// head_dim)`, then the `m` of all, then the `l` of all (see [`KV_SPLIT`]).
///
/// # Errors
/// As [`attention_gqa`], [`KernelError::Empty`] if the token sees nothing in the split, [`KernelError::ShapeMismatch`]
/// if `part` has another length.
pub fn attention_part(
    k: &Kernels,
    a: &AttentionGqa<'_>,
    kv_head: usize,
    split: usize,
    q: &[f32],
    part: &mut [f32],
) -> Result<(), KernelError> {
    let positions = within(&a.visible(0), split);
    a.check(kv_head, &positions)?;
    not_zero("attention split", positions.len())?;
    whole_units("attention queries", a.layout.head_dim, q.len())?;
    same_len("attention part", part_len(q.len() / a.layout.head_dim, a.layout.head_dim)?, part.len())?;
    // SAFETY: `k` proves that this CPU runs its table; the shapes were checked above.
    unsafe { (k.table().attention_part)(a, kv_head, split, q, part) };
    Ok(())
}

/// Puts the parts of a token together, which are those of all splits in which it sees something, in ascending order.
///
/// Shapes: `parts: (splits, part_len(heads, head_dim))` as [`attention_part`] left them, `out: (heads, head_dim)`.
///
/// # Errors
/// [`KernelError::Empty`] if a head has no elements or there is no split, [`KernelError::NotMultiple`] if `out` is not
/// whole heads or `parts` not whole parts.
pub fn attention_merge(k: &Kernels, head_dim: usize, parts: &[f32], out: &mut [f32]) -> Result<(), KernelError> {
    not_zero("head_dim", head_dim)?;
    whole_units("attention output", head_dim, out.len())?;
    if out.is_empty() {
        return Ok(());
    }
    not_zero("attention parts", parts.len())?;
    whole_units("attention parts", part_len(out.len() / head_dim, head_dim)?, parts.len())?;
    // SAFETY: `k` proves that this CPU runs its table; the shapes were checked above.
    unsafe { (k.table().attention_merge)(head_dim, parts, out) };
    Ok(())
}

/// One part of [`attention_merge`]'s: `o: (heads, head_dim)`, `m: (heads)`, `l: (heads)`.
pub(crate) fn of_part(part: &[f32], heads: usize) -> [&[f32]; 3] {
    let (sums, states) = part.split_at(part.len().saturating_sub(2 * heads));
    let (max, sum) = states.split_at(heads.min(states.len()));
    [sums, max, sum]
}

/// As [`of_part`], to be written.
pub(crate) fn of_part_mut(part: &mut [f32], heads: usize) -> [&mut [f32]; 3] {
    let (sums, states) = part.split_at_mut(part.len().saturating_sub(2 * heads));
    let (max, sum) = states.split_at_mut(heads.min(states.len()));
    [sums, max, sum]
}
