//! One head of one position into the cache.

use super::{LANES, Simd};
use crate::KvType;

/// Stores `row: (head_dim,)` into `cell`, `head_dim` elements of `ty`. See [`ops::kv_append`](crate::ops::kv_append).
#[inline(always)]
pub(crate) fn kv_append<S: Simd>(s: S, ty: KvType, cell: &mut [u8], row: &[f32]) {
    match ty {
        KvType::F32 => {
            for (cell, x) in cell.as_chunks_mut().0.iter_mut().zip(row) {
                *cell = x.to_le_bytes();
            }
        }
        KvType::F16 => {
            let (cells, cell_tail) = cell.as_chunks_mut::<{ 2 * LANES }>();
            let (rows, row_tail) = row.as_chunks::<LANES>();
            for (cell, row) in cells.iter_mut().zip(rows) {
                s.store_f16(s.load(row), cell);
            }
            if !cell_tail.is_empty() {
                let mut halves = [0; 2 * LANES];
                s.store_f16(s.load_part(row_tail, 0.0), &mut halves);
                for (cell, half) in cell_tail.iter_mut().zip(halves) {
                    *cell = half;
                }
            }
        }
    }
}
