//! One head of one position into the cache.

use half::f16;

use crate::KvType;

/// Stores `row: (head_dim,)` into `cell`, `head_dim` elements of `ty`. See [`ops::kv_append`](crate::ops::kv_append).
pub(super) fn kv_append(ty: KvType, cell: &mut [u8], row: &[f32]) {
    match ty {
        KvType::F32 => {
            for (cell, x) in cell.as_chunks_mut().0.iter_mut().zip(row) {
                *cell = x.to_le_bytes();
            }
        }
        KvType::F16 => {
            for (cell, &x) in cell.as_chunks_mut().0.iter_mut().zip(row) {
                *cell = f16::from_f32(x).to_le_bytes();
            }
        }
    }
}
