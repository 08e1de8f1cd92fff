//! The operations: each function is a contract (shapes, formula, errors), checks its arguments once and then calls the
//! table of the chosen [`Kernels`](crate::Kernels).

mod act;
pub(crate) mod attention;
mod gather;
pub(crate) mod kv;
mod matmul;
mod norm;
mod rope;
mod softmax;
mod swiglu;

pub use act::{add, add_bias, silu_mul};
pub use attention::{AttentionGqa, KV_SPLIT, Queries, attention_gqa, attention_merge, attention_part, part_len};
pub use gather::gather;
pub use kv::kv_append;
pub use matmul::{Store, decode_row, matmul, matmul_scatter, quantize};
pub use norm::{layer_norm, rms_norm};
pub use rope::rope_neox;
pub use softmax::{argmax, softmax};
pub use swiglu::{SWIGLU_ROWS, swiglu};
