//! The scalar attention with this tier's exponential.

use super::softmax::exp_sum;
use crate::ops::AttentionGqa;
use crate::scalar::attention::attention_by;

/// See [`ops::attention_gqa`](crate::ops::attention_gqa).
pub(super) fn attention_gqa(a: &AttentionGqa<'_>, kv_head: usize, q: &[f32], out: &mut [f32]) {
    attention_by(a, kv_head, q, out, exp_sum);
}
