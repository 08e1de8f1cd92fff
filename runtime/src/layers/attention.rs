//! Grouped-query attention: project, rotate, append to the cache, attend, project back.

use halfbyte_kernels::{
    ops,
    ops::{AttentionGqa, add},
};

use super::{Exec, Linear};
use crate::{RuntimeError, config::ModelConfig, exec::Scratch, kv::LayerKv};

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

impl Attention {
    /// `x += O attention(rope(Q h), rope(K h), V h)` for `h = scratch.normed`, at positions `start..start + tokens`.
    ///
    /// `scratch.cos` and `scratch.sin` hold the rotations of these positions. Query head `i` reads key-value head
    /// `i / (heads / kv_heads)`; scores are scaled by `1 / sqrt(head_dim)`; position `p` sees
    /// `max(0, p + 1 - window)..=p`.
    pub(crate) fn forward(
        &self,
        exec: Exec<'_>,
        config: &ModelConfig,
        scratch: &mut Scratch,
        kv: &mut LayerKv<'_>,
        start: usize,
        tokens: usize,
    ) -> Result<(), RuntimeError> {
        let (q_rows, kv_rows, head_dim) = (config.q_rows(), config.kv_rows(), config.head_dim);
        let normed = &scratch.normed[..tokens * config.hidden];
        let q = &mut scratch.q[..tokens * q_rows];
        let k = &mut scratch.k[..tokens * kv_rows];
        let v = &mut scratch.v[..tokens * kv_rows];
        self.q.forward(exec, normed, q)?;
        self.k.forward(exec, normed, k)?;
        self.v.forward(exec, normed, v)?;

        let half = config.rope_dim / 2;
        let rotations = scratch.cos.chunks_exact(half).zip(scratch.sin.chunks_exact(half));
        let rows = q.chunks_exact_mut(q_rows).zip(k.chunks_exact_mut(kv_rows)).zip(v.chunks_exact(kv_rows));
        for ((pos, (cos, sin)), ((q, k), v)) in (start..).zip(rotations).zip(rows) {
            ops::rope_neox(exec.kernels, q, head_dim, cos, sin)?;
            ops::rope_neox(exec.kernels, k, head_dim, cos, sin)?;
            ops::kv_append(exec.kernels, &kv.layout, kv.keys, pos, k)?;
            ops::kv_append(exec.kernels, &kv.layout, kv.values, pos, v)?;
        }

        // One chunk is the query group of one key-value head at one position: (heads / kv_heads, head_dim).
        let group = config.heads / config.kv_heads * head_dim;
        let (layout, keys, values) = (&kv.layout, &*kv.keys, &*kv.values);
        let scale = 1.0 / (head_dim as f32).sqrt();
        let attended = &mut scratch.attended[..tokens * q_rows];
        let q = &*q;
        exec.team.chunks(attended, group, &|chunk, out| {
            let (token, kv_head) = (chunk / config.kv_heads, chunk % config.kv_heads);
            let end = start + token + 1;
            let first = end.saturating_sub(config.window.unwrap_or(end));
            let step = AttentionGqa { layout, keys, values, visible: first..end, scale };
            ops::attention_gqa(exec.kernels, &step, kv_head, &q[chunk * group..][..group], out)
        })?;

        let delta = &mut scratch.delta[..tokens * config.hidden];
        self.o.forward(exec, attended, delta)?;
        add(exec.kernels, &mut scratch.x[..tokens * config.hidden], delta)?;
        Ok(())
    }
}
