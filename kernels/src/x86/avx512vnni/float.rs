//! The entries of the table that [`crate::simd`] has the code of.

use super::This;
use super::lanes::Zmm;
use crate::dispatch::table::Kernel;
use crate::dispatch::tier::Floats;
use crate::ops::{AttentionGqa, Queries};
use crate::pack::WeightRows;
use crate::simd::{self, Decode, Eight, Elements, Plain, TOKENS};
use crate::{KvLayout, KvPart, Tile};

/// Functions of the table, each as its namesake in [`crate::simd`].
macro_rules! entries {
    ($($name:ident($($arg:ident: $ty:ty),*);)*) => {$(
        #[doc = concat!("See [`simd::", stringify!($name), "`].")]
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
        pub(super) fn $name($($arg: $ty),*) {
            // SAFETY: as this function may run, the CPU has its features.
            simd::$name(unsafe { Zmm::new() }, $($arg),*);
        }
    )*};
}

entries! {
    rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]);
    layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]);
    rope_neox(x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]);
    silu_mul(gate: &mut [f32], up: &[f32]);
    add(x: &mut [f32], y: &[f32]);
    softmax(x: &mut [f32]);
    kv_append(layout: &KvLayout, part: KvPart, half: &mut [u8], slot: usize, row: &[f32]);
    attention_merge(head_dim: usize, parts: &[f32], out: &mut [f32]);
}

/// See [`simd::attention_gqa`].
///
/// # Safety
/// As there.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn attention_gqa<E: Eight>(a: &AttentionGqa<'_>, kv_head: usize, q: Queries<'_>, out: &mut Tile<'_>) {
    // SAFETY: as this function may run, the CPU has its features.
    let lanes = unsafe { Zmm::new() };
    // SAFETY: the contract is the same.
    unsafe { simd::attention_gqa::<_, E>(lanes, a, kv_head, q, out) };
}

/// See [`simd::attention_part`].
///
/// # Safety
/// As there.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn attention_part<E: Eight>(
    a: &AttentionGqa<'_>,
    kv_head: usize,
    split: usize,
    q: &[f32],
    part: &mut [f32],
) {
    // SAFETY: as this function may run, the CPU has its features.
    let lanes = unsafe { Zmm::new() };
    // SAFETY: the contract is the same.
    unsafe { simd::attention_part::<_, E>(lanes, a, kv_head, split, q, part) };
}

impl Floats for This {
    fn plain<E: Plain>() -> Kernel {
        Kernel::Float { gemv: gemv::<E>, gemm: decoded::<Elements<E>, TOKENS> }
    }

    fn blocks<D: Decode>() -> Kernel {
        Kernel::Float { gemv: decoded::<D, 1>, gemm: decoded::<D, TOKENS> }
    }
}

/// See [`simd::gemv`].
///
/// # Safety
/// As there.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn gemv<E: Plain>(w: WeightRows<'_>, _: usize, x: &[f32], out: &mut Tile<'_>) {
    // SAFETY: as this function may run, the CPU has its features.
    let lanes = unsafe { Zmm::new() };
    // SAFETY: the contract is the same.
    unsafe { simd::gemv::<_, E>(lanes, w, x, out) };
}

/// See [`simd::decoded`].
///
/// # Safety
/// As there.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn decoded<D: Decode, const T: usize>(w: WeightRows<'_>, depth: usize, x: &[f32], out: &mut Tile<'_>) {
    // SAFETY: as this function may run, the CPU has its features.
    let lanes = unsafe { Zmm::new() };
    // SAFETY: the contract is the same.
    unsafe { simd::decoded::<_, D, T>(lanes, w, depth, x, out) };
}
