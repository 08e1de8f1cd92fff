//! Grouped-query attention of a run of tokens: online softmax over tiles of 64 keys, the pages of the cache, and over
//! splits of 1024.
//!
//! ```text
//! rows: (token, query head), 64 at a time
//! for each tile of keys that one of the rows sees, ascending:
//!   keys, transposed:  tile[d][key]          once for all rows; 128 of the dimensions of a head at a time
//!   s[row][key]        = Σ_d q[row][d] · tile[d][key]                      lanes are keys
//!   m' = max(m, max s · scale);  p = exp(s · scale - m');  l = l · exp(m - m') + Σ p
//!   values:            tile[key][d]
//!   out[row][d]        = out[row][d] · exp(m - m') + Σ_key p[row][key] · tile[key][d]     lanes are dimensions
//! at the end of a split:  merged into those before it, if there are any (see `split.rs`)
//! out[row] /= l
//! ```
//! Sums run over ascending `d`, and ascending keys, one fma a step; `l` has a lane for each residue of the key modulo
//! 16. So a token's bits depend on its visible positions alone. A row's share of a tile ends where what it sees ends: a
//! later token's value is not multiplied by zero, it is not multiplied, because it might be infinite.
//!
//! That is for keys and values of f32 and f16; those of 8 bits are multiplied as integers, see `eight.rs`.
//!
//! Scratch is 102 KiB of the stack, 105 on Arm, where panels are larger: what one type of cache needs (for 8 bits three
//! panels, and queries, scores and weights of 32 rows: 62; else a tile of 128 x 64 numbers, scores of 64 rows, and sums
//! of one product: 51), states of 64 rows, and what is merged so far, which is touched only where there is more than
//! one split.

mod ahead;
mod eight;
mod rows;
mod split;
mod tile;

use std::mem::{ManuallyDrop, MaybeUninit};

pub(crate) use self::eight::{Eight, KIND};
use self::rows::{Row, rows, rows_of_part};
pub(crate) use self::split::attention_merge;
use self::split::{pages, whole};
use self::tile::Head;
use super::product::ROWS;
use super::{Half, Simd, Single};
use crate::ops::attention::{KV_SPLIT, of_part_mut, splits};
use crate::ops::kv::{KV_PAGE as KEYS, MAX_HEAD_DIM};
use crate::ops::{AttentionGqa, Queries};
use crate::{KvType, Tile};

/// Dimensions of a head that a tile holds.
const DIMS: usize = 128;
/// Rows that share a tile.
const BLOCK: usize = 64;

/// See [`ops::attention_gqa`](crate::ops::attention_gqa).
///
/// # Safety
/// The shapes are those that it checks.
#[inline(always)]
pub(crate) unsafe fn attention_gqa<S: Simd, E: Eight>(
    s: S,
    a: &AttentionGqa<'_>,
    kv_head: usize,
    q: Queries<'_>,
    out: &mut Tile<'_>,
) {
    let mut scratch = Scratch::new();
    let Scratch { room, rows: places, totals } = &mut scratch;
    let room = room.as_mut_ptr();
    let totals = totals.as_mut_ptr().cast();
    let dim = a.layout.head_dim;
    let all = out.tokens() * (out.rows() / dim);
    let seen = a.visible(0).start..a.visible(out.tokens().saturating_sub(1)).end;
    let block = if splits(&seen).len() > 1 { BLOCK.min(MAX_HEAD_DIM / dim) } else { BLOCK };
    let block = if a.layout.ty == KvType::Int8 { block.min(eight::BLOCK) } else { block };
    for first in (0..all).step_by(block) {
        let rows = rows(a, q, first..all.min(first + block), out, places);
        match a.layout.ty {
            // SAFETY: by the contract of this function: the queries and all that they see are there; rows that see
            // several splits are as many as have room in `totals`.
            KvType::F32 => unsafe { whole(s, &Head::<Single>::new(a, room.cast()), a, kv_head, rows, totals) },
            // SAFETY: as above.
            KvType::F16 => unsafe { whole(s, &Head::<Half>::new(a, room.cast()), a, kv_head, rows, totals) },
            KvType::Int8 => {
                // SAFETY: as above; the tier's functions run where this one does.
                let head = unsafe { eight::Head::<E>::new(a, room.cast(), rows) };
                // SAFETY: as above.
                unsafe { whole(s, &head, a, kv_head, rows, totals) };
            }
        }
    }
}

/// See [`ops::attention_part`](crate::ops::attention_part).
///
/// # Safety
/// The shapes are those that it checks.
#[inline(always)]
pub(crate) unsafe fn attention_part<S: Simd, E: Eight>(
    s: S,
    a: &AttentionGqa<'_>,
    kv_head: usize,
    split: usize,
    q: &[f32],
    part: &mut [f32],
) {
    let mut scratch = Scratch::new();
    let Scratch { room, rows: places, .. } = &mut scratch;
    let room = room.as_mut_ptr();
    let dim = a.layout.head_dim;
    let positions = split * KV_SPLIT..(split + 1) * KV_SPLIT;
    let [sums, maxima, totals] = of_part_mut(part, q.len() / dim);
    let block = eight::BLOCK;
    let states = maxima.chunks_mut(block).zip(totals.chunks_mut(block));
    for ((q, sums), (maxima, totals)) in q.chunks(block * dim).zip(sums.chunks_mut(block * dim)).zip(states) {
        let (rows, positions) = (rows_of_part(a, q, sums, places), positions.clone());
        match a.layout.ty {
            // SAFETY: by the contract of this function: the queries and what they see of the split are there.
            KvType::F32 => unsafe { pages(s, &Head::<Single>::new(a, room.cast()), a, kv_head, positions, rows) },
            // SAFETY: as above.
            KvType::F16 => unsafe { pages(s, &Head::<Half>::new(a, room.cast()), a, kv_head, positions, rows) },
            KvType::Int8 => {
                // SAFETY: as above; the tier's functions run where this one does.
                let head = unsafe { eight::Head::<E>::new(a, room.cast(), rows) };
                // SAFETY: as above.
                unsafe { pages(s, &head, a, kv_head, positions, rows) };
            }
        }
        for ((max, total), row) in maxima.iter_mut().zip(totals).zip(rows) {
            let state = row.state(s);
            (*max, *total) = (state.max, state.sum);
        }
    }
}

/// Written before it is read, whatever part of it that is.
struct Scratch {
    room: MaybeUninit<Room>,
    rows: [MaybeUninit<Row>; BLOCK],
    /// `[row][d]`: the sums of the splits before the present one.
    totals: MaybeUninit<[f32; MAX_HEAD_DIM]>,
}

/// What [`ops::attention_gqa`](crate::ops::attention_gqa) says.
const _: () = assert!(size_of::<Scratch>() <= 106 << 10);

/// What one type of cache needs.
#[repr(C)]
union Room {
    tiles: ManuallyDrop<Tiles>,
    eight: ManuallyDrop<eight::Scratch>,
}

#[repr(C, align(64))]
struct Tiles {
    /// `[d][key]`, then `[key][d]`.
    tile: MaybeUninit<[f32; KEYS * DIMS]>,
    /// `[row][key]`: scores, then weights.
    scores: MaybeUninit<[f32; BLOCK * KEYS]>,
    /// `[row][d]`: sums over the tile.
    sums: MaybeUninit<[f32; ROWS * DIMS]>,
}

impl Scratch {
    #[inline(always)]
    fn new() -> Self {
        let rows = [const { MaybeUninit::uninit() }; BLOCK];
        Self { room: MaybeUninit::uninit(), rows, totals: MaybeUninit::uninit() }
    }
}
