//! Q6_K: blocks of eight groups, each half of which has a scale of 8 bits.

use halfbyte_formats::quant::{BlockFormat, Q6_K};

use super::{RowMajor, Scales, Sink, Source, StoredLanes, at};
use crate::panel::{Kind, ROWS};
use crate::quantized::{GROUP, LINES};

/// ```text
/// words of a row:   eight of ql at 64 h, eight at 64 h + 32, eight of qh at 128 + 32 h      h in 0..2
/// become the lines of groups 4 h + t:
///   t = 0: ql & 15      | qh      & 3 << 4          t = 2: ql >> 4      | qh >> 4 & 3 << 4
///   t = 1: ql + 32 & 15 | qh >> 2 & 3 << 4          t = 3: ql + 32 >> 4 | qh >> 6 & 3 << 4
/// ```
impl Source for RowMajor<Q6_K> {
    const KIND: Kind = Kind::of::<Q6_K>();
    const GROUPS: usize = Q6_K::LEN / GROUP;
    const BYTES: usize = ROWS * Q6_K::BYTES;

    #[inline(always)]
    unsafe fn unit<L: StoredLanes, S: Sink<L>>(l: L, rows: &[*const u8; ROWS], index: usize, sink: &mut S) {
        let block = at(rows, Q6_K::BYTES * index);
        let (nibble, two) = (l.splat(0x0f0f_0f0f), l.splat(0x3030_3030));
        // SAFETY: the last 16 of the 210 bytes of block `index`.
        let [.., d] = unsafe { l.columns(at(&block, 194)) };
        let d = l.halves(l.shr(d, 16));
        // SAFETY: the 16 scales.
        let scales = unsafe { l.columns(at(&block, 192)) };
        for h in 0..2 {
            // Eight words at 64 h, at 64 h + 32, at 128 + 32 h.
            let mut found = [[nibble; LINES]; 3];
            for (found, start) in found.iter_mut().zip([64 * h, 64 * h + 32, 128 + 32 * h]) {
                // SAFETY: of the first 192 bytes of the block.
                let first = unsafe { l.columns(at(&block, start)) };
                // SAFETY: likewise.
                let last = unsafe { l.columns(at(&block, start + 16)) };
                let ([a, b, c, d], [e, f, g, h]) = (first, last);
                *found = [a, b, c, d, e, f, g, h];
            }
            let [even, odd, upper] = found;
            for t in 0..4 {
                let lower = if t % 2 == 0 { even } else { odd };
                let mut lines = [nibble; LINES];
                for i in 0..LINES {
                    let high = if t < 2 { l.shl(upper[i], 4 - 2 * t) } else { l.shr(upper[i], 2 * t - 4) };
                    lines[i] = l.or(l.and(l.shr(lower[i], t / 2 * 4), nibble), l.and(high, two));
                }
                // Four signed bytes: the halves of one group, then those of the next.
                let group = 4 * h + t as usize;
                let (bytes, shift) = (scales[group / 2], 16 * (t % 2));
                let low = l.mul(d, l.floats(l.sar(l.shl(bytes, 24 - shift), 24)));
                let high = l.mul(d, l.floats(l.sar(l.shl(bytes, 16 - shift), 24)));
                sink.group(l, group, lines, Scales { low, high, min: low });
            }
        }
    }
}
