//! Q4_K and Q5_K: blocks of eight groups, each with a scale and a minimum of 6 bits.

use halfbyte_formats::quant::{BlockFormat, GroupFormat, Q4_K, Q5_K};

use super::{Lanes, Scale, Unwritten, at, finish};
use crate::panel::{GROUPS, Kind, Panel, ROWS};
use crate::quantized::GROUP;

/// Groups of a block.
const BLOCK: usize = Q4_K::LEN / GROUP;

const _: () = assert!(GROUPS.is_multiple_of(BLOCK));

/// A [`BuildFn`](crate::panel::BuildFn).
///
/// # Safety
/// As there.
#[inline(always)]
pub(crate) unsafe fn q4_k<L: Lanes>(l: L, rows: &[*const u8; ROWS], groups: usize, panel: *mut Panel) {
    // SAFETY: the contract is the same.
    unsafe { blocks::<L, Q4_K, false>(l, rows, groups, panel) };
}

/// A [`BuildFn`](crate::panel::BuildFn).
///
/// # Safety
/// As there.
#[inline(always)]
pub(crate) unsafe fn q5_k<L: Lanes>(l: L, rows: &[*const u8; ROWS], groups: usize, panel: *mut Panel) {
    // SAFETY: the contract is the same.
    unsafe { blocks::<L, Q5_K, true>(l, rows, groups, panel) };
}

/// Blocks of `F`, which has fifth bits or not.
///
/// # Safety
/// As for [`q4_k`], of blocks of `F`.
#[inline(always)]
unsafe fn blocks<L: Lanes, F: GroupFormat, const FIFTHS: bool>(
    l: L,
    rows: &[*const u8; ROWS],
    groups: usize,
    panel: *mut Panel,
) {
    // SAFETY: `panel` can be written.
    let Unwritten { codes, scales, mins, .. } = unsafe { Unwritten::of(panel) };
    let (nibble, fifth) = (l.splat(0x0f0f_0f0f), l.splat(0x1010_1010));
    let groups_of = codes.as_chunks_mut::<BLOCK>().0.iter_mut();
    let pairs_of = scales.as_chunks_mut::<BLOCK>().0.iter_mut().zip(mins.as_chunks_mut::<BLOCK>().0);
    for (i, (codes, (scales, mins))) in groups_of.zip(pairs_of).enumerate().take(groups.div_ceil(BLOCK)) {
        let block = at(rows, F::BYTES * i);
        // SAFETY: the first 16 bytes of block `i`.
        unsafe { pairs(l, &block, scales, mins) };
        let (groups, _) = codes.as_chunks_mut::<2>();
        for half in 0..2 {
            // Words 4 half .. 4 half + 4 of each group: in the last 128 bytes those of two groups, in the 32 before of all.
            let mut bits = [l.splat(0); 4];
            if FIFTHS {
                // SAFETY: bytes 16 to 48 of a block of Q5_K.
                bits = unsafe { l.columns(at(&block, 16 + 16 * half)) };
            }
            for (j, [even, odd]) in groups.iter_mut().enumerate() {
                // SAFETY: of the last 128 bytes of the block.
                let found = unsafe { l.columns(at(&block, F::BYTES - 128 + 32 * j + 16 * half)) };
                for i in 0..4 {
                    let (mut low, mut high) = (l.and(found[i], nibble), l.and(l.shr(found[i], 4), nibble));
                    if FIFTHS {
                        low = l.or(low, l.and(l.shl(bits[i], 4), fifth));
                        high = l.or(high, l.and(l.shl(bits[i], 3), fifth));
                        bits[i] = l.shr(bits[i], 2);
                    }
                    l.store(low, &mut even[4 * half + i]);
                    l.store(high, &mut odd[4 * half + i]);
                }
            }
        }
    }
    // SAFETY: scales, minima and codes of these groups were written.
    unsafe { finish(l, Kind::of::<F>(), groups, panel) };
}

/// Scales and minima of a block: `d` and `dmin`, halves, then twelve bytes of 6-bit pairs.
///
/// ```text
/// words 0..4 of a row:  d | dmin,  s,  m,  x       byte b of a word, b in 0..4:
/// scale b     = s & 63      scale b + 4     = x & 15 | (s >> 6) << 4
/// minimum b   = m & 63      minimum b + 4   = x >> 4 | (m >> 6) << 4
/// ```
///
/// # Safety
/// 16 bytes can be read at each address.
#[inline(always)]
unsafe fn pairs<L: Lanes>(l: L, block: &[*const u8; ROWS], scales: &mut [Scale; BLOCK], mins: &mut [Scale; BLOCK]) {
    // SAFETY: by the contract of this function.
    let [head, s, m, x] = unsafe { l.columns(*block) };
    let (d, dmin) = (l.halves(head), l.halves(l.shr(head, 16)));
    let (six, four, two) = (l.splat(0x3f3f_3f3f), l.splat(0x0f0f_0f0f), l.splat(0x3030_3030));
    let scale_bytes = [l.and(s, six), l.or(l.and(x, four), l.and(l.shr(s, 2), two))];
    let min_bytes = [l.and(m, six), l.or(l.and(l.shr(x, 4), four), l.and(l.shr(m, 2), two))];
    let byte = l.splat(0xff);
    for four in 0..2 {
        for b in 0..4 {
            let shift = 8 * b as i32;
            let scale = l.floats(l.and(l.shr(scale_bytes[four], shift), byte));
            let min = l.floats(l.and(l.shr(min_bytes[four], shift), byte));
            l.store_floats(l.mul(d, scale), &mut scales[4 * four + b]);
            l.store_floats(l.mul(dmin, min), &mut mins[4 * four + b]);
        }
    }
}
