//! Q6_K: blocks of eight groups, each half of which has a scale of 8 bits.

use halfbyte_formats::quant::{BlockFormat, Q6_K};

use super::{Lanes, Unwritten, at, finish};
use crate::panel::{GROUPS, Kind, Panel, ROWS};
use crate::quantized::GROUP;

/// Groups of a block.
const BLOCK: usize = Q6_K::LEN / GROUP;

const _: () = assert!(GROUPS.is_multiple_of(BLOCK));

/// A [`BuildFn`](crate::panel::BuildFn).
///
/// ```text
/// words of a row:   four of ql at 64 h + 16 i, four at 64 h + 32 + 16 i, four of qh at 128 + 32 h + 16 i      h, i in 0..2
/// become lines 4 i .. 4 i + 4 of groups 4 h + t:
///   t = 0: ql & 15      | qh      & 3 << 4          t = 2: ql >> 4      | qh >> 4 & 3 << 4
///   t = 1: ql + 32 & 15 | qh >> 2 & 3 << 4          t = 3: ql + 32 >> 4 | qh >> 6 & 3 << 4
/// ```
///
/// # Safety
/// As there.
#[inline(always)]
pub(crate) unsafe fn q6_k<L: Lanes>(l: L, rows: &[*const u8; ROWS], groups: usize, panel: *mut Panel) {
    // SAFETY: `panel` can be written.
    let Unwritten { codes, scales, scales_high, .. } = unsafe { Unwritten::of(panel) };
    let (nibble, two) = (l.splat(0x0f0f_0f0f), l.splat(0x3030_3030));
    let codes = codes.as_chunks_mut::<BLOCK>().0.iter_mut();
    let scales = scales.as_chunks_mut::<BLOCK>().0.iter_mut().zip(scales_high.as_chunks_mut::<BLOCK>().0);
    for (i, (codes, (low, high))) in codes.zip(scales).enumerate().take(groups.div_ceil(BLOCK)) {
        let block = at(rows, Q6_K::BYTES * i);
        // SAFETY: the last 16 of the 210 bytes of block `i`.
        let [.., d] = unsafe { l.columns(at(&block, 194)) };
        let d = l.halves(l.shr(d, 16));
        // SAFETY: the 16 scales.
        let bytes = unsafe { l.columns(at(&block, 192)) };
        for (group, (low, high)) in low.iter_mut().zip(high).enumerate() {
            // Four signed bytes: the halves of one group, then those of the next.
            let shift = 16 * (group % 2) as i32;
            let (a, b) = (l.shl(bytes[group / 2], 24 - shift), l.shl(bytes[group / 2], 16 - shift));
            l.store_floats(l.mul(d, l.floats(l.sar(a, 24))), low);
            l.store_floats(l.mul(d, l.floats(l.sar(b, 24))), high);
        }
        for (h, [g0, g1, g2, g3]) in codes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            for half in 0..2 {
                // SAFETY: of the first 128 bytes of the block.
                let even = unsafe { l.columns(at(&block, 64 * h + 16 * half)) };
                // SAFETY: likewise.
                let odd = unsafe { l.columns(at(&block, 64 * h + 32 + 16 * half)) };
                // SAFETY: of the next 64.
                let upper = unsafe { l.columns(at(&block, 128 + 32 * h + 16 * half)) };
                for i in 0..4 {
                    let (line, even, odd, upper) = (4 * half + i, even[i], odd[i], upper[i]);
                    l.store(l.or(l.and(even, nibble), l.and(l.shl(upper, 4), two)), &mut g0[line]);
                    l.store(l.or(l.and(odd, nibble), l.and(l.shl(upper, 2), two)), &mut g1[line]);
                    l.store(l.or(l.and(l.shr(even, 4), nibble), l.and(upper, two)), &mut g2[line]);
                    l.store(l.or(l.and(l.shr(odd, 4), nibble), l.and(l.shr(upper, 2), two)), &mut g3[line]);
                }
            }
        }
    }
    // SAFETY: both scales and the codes of these groups were written.
    unsafe { finish(l, Kind::of::<Q6_K>(), groups, panel) };
}
