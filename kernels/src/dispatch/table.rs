//! The table of one tier: the kernels of each layout of weights, for every other operation one function.
//!
//! The scalar table is complete; a faster tier writes only what it beats: `KernelTable { .., ..super::TABLE }`.
//! [`ops`](crate::ops) is the only caller: it has checked the shapes, and a [`Kernels`](crate::Kernels) is its proof
//! that this CPU runs the tier. Both are what the `unsafe` in these types stands for: the functions use instructions
//! that other CPUs lack, and read and write exactly what the shapes in the documentation of the operation say.

use crate::ops::{AttentionGqa, Queries};
use crate::pack::{PackLayout, WeightRows};
use crate::panel::PanelKernel;
use crate::{KvLayout, KvPart, Tile};

/// `out[t][r] = Σ_k w[r][k] · x[t][k]`: `w: (out.rows(), depth)` row-major, `x: (out.tokens(), depth)`, `depth > 0`.
pub(crate) type MatmulFn = unsafe fn(w: WeightRows<'_>, depth: usize, x: &[f32], out: &mut Tile<'_>);

/// Rounds whole groups of a tile to 8 bits: token `t < tokens <= 4` has its inputs from `x[t * stride]` on, `out` is
/// `WORDS * tokens` words a group, without flags. Bit `t` of the result is set if an input of token `t` is not finite
/// or beyond `MAX_INPUT`.
pub(crate) type QuantizeFn = unsafe fn(x: &[f32], stride: usize, tokens: usize, out: &mut [u32]) -> u32;

/// `x` and `out: (tokens, weight.len())`.
pub(crate) type LayerNormFn = unsafe fn(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]);

/// `half: (layout.half_bytes())`, `slot < KV_PAGE`, `row: (head_dim)`.
pub(crate) type KvAppendFn = unsafe fn(layout: &KvLayout, part: KvPart, half: &mut [u8], slot: usize, row: &[f32]);

/// `q: (heads, head_dim)`, `part: (part_len(heads, head_dim))`; the split has visible positions.
pub(crate) type AttentionPartFn =
    unsafe fn(a: &AttentionGqa<'_>, kv_head: usize, split: usize, q: &[f32], part: &mut [f32]);

/// How one format in one layout is multiplied.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kernel {
    /// With activations as they are.
    Float {
        /// One token.
        gemv: MatmulFn,
        /// Any number of tokens; bit-equal to `gemv` for each of them.
        gemm: MatmulFn,
    },
    /// With activations of 8 bits.
    Panels(PanelKernel),
}

/// The functions of one tier. Contracts (shapes, formulas) stand at the functions of [`ops`](crate::ops).
#[derive(Clone, Copy, Debug)]
pub(crate) struct KernelTable {
    /// The kernel of weights in a layout; `None` if there is none.
    pub(crate) kernel: fn(PackLayout) -> Option<Kernel>,
    pub(crate) quantize: QuantizeFn,
    pub(crate) rms_norm: unsafe fn(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]),
    pub(crate) layer_norm: LayerNormFn,
    pub(crate) rope_neox: unsafe fn(x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]),
    pub(crate) silu_mul: unsafe fn(gate: &mut [f32], up: &[f32]),
    pub(crate) add: unsafe fn(x: &mut [f32], y: &[f32]),
    pub(crate) softmax: unsafe fn(x: &mut [f32]),
    pub(crate) kv_append: KvAppendFn,
    pub(crate) attention_gqa: unsafe fn(a: &AttentionGqa<'_>, kv_head: usize, q: Queries<'_>, out: &mut Tile<'_>),
    pub(crate) attention_part: AttentionPartFn,
    pub(crate) attention_merge: unsafe fn(head_dim: usize, parts: &[f32], out: &mut [f32]),
}
