//! One head of one position into a page of the cache.

use half::f16;

use crate::ops::kv::cell;
use crate::{KvLayout, KvPart, KvType, kv8};

/// See [`ops::kv_append`](crate::ops::kv_append).
pub(super) fn kv_append(layout: &KvLayout, part: KvPart, half: &mut [u8], slot: usize, row: &[f32]) {
    match layout.ty {
        KvType::Int8 => kv8::append(half, part, slot, row),
        KvType::F32 => {
            for (cell, x) in cell(half, slot, 4 * row.len()).as_chunks_mut().0.iter_mut().zip(row) {
                *cell = x.to_le_bytes();
            }
        }
        KvType::F16 => {
            for (cell, &x) in cell(half, slot, 2 * row.len()).as_chunks_mut().0.iter_mut().zip(row) {
                *cell = f16::from_f32(x).to_le_bytes();
            }
        }
    }
}
