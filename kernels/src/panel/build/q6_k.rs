//! Q6_K: blocks of eight groups, each half of which has a scale of 8 bits.

use halfbyte_formats::quant::{BlockFormat, Q6_K};

use super::{Lanes, RowMajor, Scales, Sink, Source, StoredLanes, at};
use crate::panel::{Kind, ROWS};
use crate::quantized::GROUP;

impl Source for RowMajor<Q6_K> {
    const KIND: Kind = Kind::of::<Q6_K>();
    const GROUPS: usize = Q6_K::LEN / GROUP;
    const BYTES: usize = ROWS * Q6_K::BYTES;

    #[inline(always)]
    unsafe fn unit<L: StoredLanes, S: Sink<L>>(l: L, rows: &[*const u8; ROWS], index: usize, sink: &mut S) {
        let block = at(rows, Q6_K::BYTES * index);
        // SAFETY: the last 16 of the 210 bytes of block `index`.
        let [.., d] = unsafe { l.columns(at(&block, 194)) };
        let d = l.halves(l.shr(d, 16));
        // SAFETY: the 16 scales.
        let [a, b, c, e] = unsafe { l.columns(at(&block, 192)) };
        // SAFETY: a block.
        unsafe { half::<L, S>(l, &block, 0, d, [a, b], sink) };
        // SAFETY: likewise.
        unsafe { half::<L, S>(l, &block, 1, d, [c, e], sink) };
    }
}

/// ```text
/// words of a row:   four of ql at 64 h + 16 i, four at 64 h + 32 + 16 i, four of qh at 128 + 32 h + 16 i      h, i in 0..2
/// become lines 4 i .. 4 i + 4 of groups 4 h + t:
///   t = 0: ql & 15      | qh      & 3 << 4          t = 2: ql >> 4      | qh >> 4 & 3 << 4
///   t = 1: ql + 32 & 15 | qh >> 2 & 3 << 4          t = 3: ql + 32 >> 4 | qh >> 6 & 3 << 4
/// ```
///
/// # Safety
/// A block can be read at each address.
#[inline(always)]
unsafe fn half<L: Lanes, S: Sink<L>>(
    l: L,
    block: &[*const u8; ROWS],
    h: usize,
    d: L::Floats,
    scales: [L::Words; 2],
    sink: &mut S,
) {
    let (nibble, two) = (l.splat(0x0f0f_0f0f), l.splat(0x3030_3030));
    for slot in 0..4 {
        sink.begin(l, slot, 4 * h + slot);
    }
    unrolled!(half in [0, 1] {
        // SAFETY: of the first 128 bytes of the block.
        let even = unsafe { l.columns(at(block, 64 * h + 16 * half)) };
        // SAFETY: likewise.
        let odd = unsafe { l.columns(at(block, 64 * h + 32 + 16 * half)) };
        // SAFETY: of the next 64.
        let upper = unsafe { l.columns(at(block, 128 + 32 * h + 16 * half)) };
        unrolled!(i in [0, 1, 2, 3] {
            let (line, even, odd, upper) = (4 * half + i, even[i], odd[i], upper[i]);
            let lines = [
                l.or(l.and(even, nibble), l.and(l.shl(upper, 4), two)),
                l.or(l.and(odd, nibble), l.and(l.shl(upper, 2), two)),
                l.or(l.and(l.shr(even, 4), nibble), l.and(upper, two)),
                l.or(l.and(l.shr(odd, 4), nibble), l.and(l.shr(upper, 2), two)),
            ];
            unrolled!(slot in [0, 1, 2, 3] {
                sink.line(l, slot, 4 * h + slot, line, lines[slot]);
            });
        });
    });
    for slot in 0..4 {
        // Four signed bytes: the halves of one group, then those of the next.
        let (bytes, shift) = (scales[slot / 2], 16 * (slot % 2) as i32);
        let low = l.mul(d, l.floats(l.sar(l.shl(bytes, 24 - shift), 24)));
        let high = l.mul(d, l.floats(l.sar(l.shl(bytes, 16 - shift), 24)));
        sink.end(l, slot, 4 * h + slot, Scales { low, high, min: low });
    }
}
