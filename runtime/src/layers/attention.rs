//! Grouped-query attention: project, rotate, append to the cache, attend, project back.

use std::ops::Range;

use halfbyte_kernels::{
    KV_PAGE, KvPart, Tile, ops,
    ops::{AttentionGqa, KV_SPLIT, Queries},
};

use super::{Exec, Linear, linear::Store};
use crate::{
    RuntimeError,
    config::ModelConfig,
    exec::{Chunks, Grid, HalvesOfHeads, Rows, Scratch, Window},
    kv::LayerKv,
};

/// Tokens that attend together.
const BLOCK: usize = 16;

/// What a multiplication with keys or values costs beside one with weights: a single token has few queries for each.
const COST: usize = 3;

/// Weights of an attention half-layer.
pub(crate) struct Attention {
    /// (heads × head_dim, hidden).
    pub(crate) q: Linear,
    /// (kv_heads × head_dim, hidden).
    pub(crate) k: Linear,
    /// (kv_heads × head_dim, hidden).
    pub(crate) v: Linear,
    /// (hidden, heads × head_dim).
    pub(crate) o: Linear,
}

/// Which heads are projected.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heads {
    Queries,
    KeysAndValues,
    All,
}

/// Tokens of a pass that a step works on: `first..first + tokens` of it, at positions from `start + first` on. Tokens
/// of different sequences are counted from 0.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    /// Position of the first token of the pass, or 0.
    pub(crate) start: usize,
    pub(crate) first: usize,
    pub(crate) tokens: usize,
}

impl Attention {
    /// Whether one of the maps that read the normalised stream multiplies 8-bit activations.
    pub(crate) fn wants_q8(&self) -> bool {
        [&self.q, &self.k, &self.v].into_iter().any(Linear::wants_q8)
    }

    /// `q = rope(Q h)`, and into the cache `rope(K h)` and `V h`, one step for all heads: whoever computes a head also
    /// rotates it and puts it away. `h = scratch.normed`; `scratch.cos` and `scratch.sin` are for the whole pass.
    pub(crate) fn project(
        &self,
        exec: Exec<'_>,
        config: &ModelConfig,
        scratch: &mut Scratch,
        kv: &mut LayerKv<'_, '_>,
        which: Heads,
        run: Run,
    ) -> Result<(), RuntimeError> {
        let (tokens, dim) = (run.tokens, config.head_dim);
        let Scratch { normed, q, k, v, cos, sin, .. } = scratch;
        let (q, k, v) = (
            Rows::new(&mut q[..tokens * config.q_rows()], config.q_rows(), dim),
            Rows::new(&mut k[..tokens * config.kv_rows()], config.kv_rows(), dim),
            Rows::new(&mut v[..tokens * config.kv_rows()], config.kv_rows(), dim),
        );
        let (layout, start) = (kv.layout(), run.start + run.first);
        let (mut pages, slots) = kv.parts(start..start + tokens)?;
        let [keys, values] = pages.halves(layout.half_bytes()?);
        let queries = if which == Heads::KeysAndValues { 0 } else { config.heads };
        let kv_heads = if which == Heads::Queries { 0 } else { config.kv_heads };
        let split = (
            Window::new(0..queries, q),
            Window::new(queries..queries + kv_heads, (k, keys)),
            Window::new(queries + kv_heads..queries + 2 * kv_heads, (v, values)),
        );
        let half = config.rope_dim / 2;
        let rotation = |token: usize| {
            let at = (run.first + token) * half..(run.first + token + 1) * half;
            (&cos[at.clone()], &sin[at])
        };
        let rotate = |out: &mut Tile<'_>| {
            (0..tokens).try_for_each(|token| {
                let (cos, sin) = rotation(token);
                ops::rope_neox(exec.kernels, out.row_mut(token), dim, cos, sin)
            })
        };
        let append = |part: KvPart, mut halves: HalvesOfHeads<'_>, rows: &mut Tile<'_>| {
            (0..tokens).try_for_each(|token| {
                let (page, slot) = slots.of(token);
                rows.row_mut(token).chunks_exact(dim).enumerate().try_for_each(|(head, row)| {
                    ops::kv_append(exec.kernels, &layout, part, halves.half(page, head), slot, row)
                })
            })
        };
        let x = normed.of(tokens);
        let product = |map: &Linear, heads: &Range<usize>, out: &mut Tile<'_>| {
            map.rows(exec, heads.start * dim..heads.end * dim, x, Store::Set, out)
        };
        let work = self.q.grain(dim, tokens);
        exec.team.run(queries + 2 * kv_heads, work, split, |_, (q, k, v)| {
            if let Some((heads, mut q)) = q {
                product(&self.q, &heads, &mut q)?;
                rotate(&mut q)?;
            }
            if let Some((heads, (mut k, keys))) = k {
                product(&self.k, &heads, &mut k)?;
                rotate(&mut k)?;
                append(KvPart::Keys, keys, &mut k)?;
            }
            if let Some((heads, (mut v, values))) = v {
                product(&self.v, &heads, &mut v)?;
                append(KvPart::Values, values, &mut v)?;
            }
            Ok(())
        })
    }

    /// `x += O attention(q, keys, values)` for the tokens of `run`, which are the first rows of `scratch.q` and
    /// `scratch.x`.
    ///
    /// Query head `i` reads key-value head `i / (heads / kv_heads)`; scores are scaled by `1 / sqrt(head_dim)`;
    /// position `p` sees `max(0, p + 1 - window)..=p`.
    pub(crate) fn attend(
        &self,
        exec: Exec<'_>,
        config: &ModelConfig,
        scratch: &mut Scratch,
        kv: &LayerKv<'_, '_>,
        run: Run,
    ) -> Result<(), RuntimeError> {
        let (tokens, q_rows) = (run.tokens, config.q_rows());
        let Scratch { x, q, attended, parts, .. } = scratch;
        let (q, out) = (&q[..tokens * q_rows], &mut attended.f32[..tokens * q_rows]);
        let scale = 1.0 / (config.head_dim as f32).sqrt();
        let (layout, singles) = (&kv.layout(), kv.singles());
        let ((single_q, q), (single_out, out)) = (q.split_at(singles * q_rows), out.split_at_mut(singles * q_rows));
        if singles > 0 {
            attend_by_rows(exec, config, kv, scale, single_q, single_out)?;
        }
        let (pages, pos) = kv.seen(singles, run.start + run.first);
        let step = AttentionGqa { layout, pages: &pages, pos, window: config.window, scale };
        let whole_heads = config.kv_heads.is_multiple_of(exec.team.threads());
        if tokens - singles == 1 && step.splits().len() > 1 && !whole_heads {
            attend_in_parts(exec, &step, q, parts, out)?;
        } else {
            attend_to_heads(exec, &step, q, q_rows, out)?;
        }
        if self.o.wants_q8() {
            attended.round(exec, tokens)?;
        }
        self.o.forward(exec, attended.of(tokens), Store::Add, &mut x[..tokens * config.hidden])
    }
}

/// `out = attention(q)`, `(tokens, q_rows)`. One unit is the query group of one key-value head, for a block of tokens.
fn attend_to_heads(
    exec: Exec<'_>,
    step: &AttentionGqa<'_>,
    q: &[f32],
    q_rows: usize,
    out: &mut [f32],
) -> Result<(), RuntimeError> {
    let (kv_heads, tokens) = (step.layout.kv_heads, out.len() / q_rows);
    let group = q_rows / kv_heads;
    // Keys and values, in whole pages.
    let work = 2 * COST * BLOCK.min(tokens) * (step.pos + tokens).next_multiple_of(KV_PAGE) * group;
    let split = Grid::new(out, q_rows, [BLOCK, group]);
    exec.team.each(split.units(), work, split, |unit, mut out| {
        let (block, kv_head) = (unit / kv_heads, unit % kv_heads);
        let token = block * BLOCK;
        let step = AttentionGqa { pos: step.pos + token, ..step.clone() };
        let q = Queries { data: &q[token * q_rows + kv_head * group..], stride: q_rows };
        ops::attention_gqa(exec.kernels, &step, kv_head, q, &mut out)
    })
}

/// The same for tokens of different sequences. One unit is the query group of one key-value head, for one token.
fn attend_by_rows(
    exec: Exec<'_>,
    config: &ModelConfig,
    kv: &LayerKv<'_, '_>,
    scale: f32,
    q: &[f32],
    out: &mut [f32],
) -> Result<(), RuntimeError> {
    let (layout, kv_heads, q_rows) = (&kv.layout(), config.kv_heads, config.q_rows());
    let group = q_rows / kv_heads;
    let longest = (0..out.len() / q_rows).map(|row| kv.seen(row, 0).1 + 1).max().unwrap_or(1);
    let split = Grid::new(out, q_rows, [1, group]);
    let work = 2 * COST * longest.next_multiple_of(KV_PAGE) * group;
    exec.team.each(split.units(), work, split, |unit, mut out| {
        let (row, kv_head) = (unit / kv_heads, unit % kv_heads);
        let (pages, pos) = kv.seen(row, 0);
        let step = AttentionGqa { layout, pages: &pages, pos, window: config.window, scale };
        let q = Queries { data: &q[row * q_rows + kv_head * group..], stride: q_rows };
        ops::attention_gqa(exec.kernels, &step, kv_head, q, &mut out)
    })
}

/// The same for one token, when its heads alone would leave threads without work. One unit is the query group of one
/// key-value head over one split of the sequence; then heads are put together.
fn attend_in_parts(
    exec: Exec<'_>,
    step: &AttentionGqa<'_>,
    q: &[f32],
    parts: &mut [f32],
    out: &mut [f32],
) -> Result<(), RuntimeError> {
    let (kv_heads, dim, splits) = (step.layout.kv_heads, step.layout.head_dim, step.splits());
    let group = q.len() / kv_heads;
    let part = ops::part_len(group / dim, dim)?;
    let parts = &mut parts[..kv_heads * splits.len() * part];
    exec.team.each(kv_heads * splits.len(), 2 * COST * KV_SPLIT * group, Chunks::new(parts, part), |unit, part| {
        let (kv_head, split) = (unit / splits.len(), splits.start + unit % splits.len());
        ops::attention_part(exec.kernels, step, kv_head, split, &q[kv_head * group..][..group], part)
    })?;
    let parts = &*parts;
    exec.team.each(kv_heads, splits.len() * group, Chunks::new(out, group), |kv_head, out| {
        let parts = &parts[kv_head * splits.len() * part..][..splits.len() * part];
        ops::attention_merge(exec.kernels, dim, parts, out)
    })
}
