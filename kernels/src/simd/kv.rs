//! One head of one position into a page of the cache.

use super::{LANES, Simd};
use crate::ops::kv::cell;
use crate::{KvLayout, KvPart, KvType, kv8};

/// See [`ops::kv_append`](crate::ops::kv_append).
#[inline(always)]
pub(crate) fn kv_append<S: Simd>(s: S, layout: &KvLayout, part: KvPart, half: &mut [u8], slot: usize, row: &[f32]) {
    match layout.ty {
        KvType::Int8 => kv8::append(half, part, slot, row),
        KvType::F32 => {
            for (cell, x) in cell(half, slot, 4 * row.len()).as_chunks_mut().0.iter_mut().zip(row) {
                *cell = x.to_le_bytes();
            }
        }
        KvType::F16 => {
            let (cells, cell_tail) = cell(half, slot, 2 * row.len()).as_chunks_mut::<{ 2 * LANES }>();
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
