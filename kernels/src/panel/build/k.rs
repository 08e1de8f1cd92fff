//! Q4_K and Q5_K: blocks of eight groups, each with a scale and a minimum of 6 bits.

use halfbyte_formats::quant::{BlockFormat, Q4_K, Q5_K};

use super::{Lanes, RowMajor, Scales, Sink, Source, StoredLanes, at};
use crate::panel::{Kind, ROWS};
use crate::quantized::{GROUP, LINES};

/// Groups of a block.
const BLOCK: usize = Q4_K::LEN / GROUP;

impl Source for RowMajor<Q4_K> {
    const KIND: Kind = Kind::of::<Q4_K>();
    const GROUPS: usize = BLOCK;
    const BYTES: usize = ROWS * Q4_K::BYTES;

    #[inline(always)]
    unsafe fn unit<L: StoredLanes, S: Sink<L>>(l: L, rows: &[*const u8; ROWS], index: usize, sink: &mut S) {
        let block = at(rows, Q4_K::BYTES * index);
        // SAFETY: the bytes of block `index`.
        unsafe { groups::<L, S, false>(l, &block, 16, sink) };
    }
}

impl Source for RowMajor<Q5_K> {
    const KIND: Kind = Kind::of::<Q5_K>();
    const GROUPS: usize = BLOCK;
    const BYTES: usize = ROWS * Q5_K::BYTES;

    #[inline(always)]
    unsafe fn unit<L: StoredLanes, S: Sink<L>>(l: L, rows: &[*const u8; ROWS], index: usize, sink: &mut S) {
        let block = at(rows, Q5_K::BYTES * index);
        // SAFETY: the bytes of block `index`.
        unsafe { groups::<L, S, true>(l, &block, 48, sink) };
    }
}

/// The groups of a block, whose 128 bytes of nibbles begin at `nibbles`: bytes `32 j .. 32 j + 32` have the codes of
/// groups `2 j` and `2 j + 1`. The 32 bytes before have the fifth bits, if there are such: those of group `g` as bit
/// `g`.
///
/// # Safety
/// A block of so many bytes can be read at each address.
#[inline(always)]
unsafe fn groups<L: Lanes, S: Sink<L>, const FIFTHS: bool>(
    l: L,
    block: &[*const u8; ROWS],
    nibbles: usize,
    sink: &mut S,
) {
    // SAFETY: the first 16 bytes.
    let pairs = unsafe { pairs(l, block) };
    let Pairs { d, dmin, scales: [first_scales, last_scales], mins: [first_mins, last_mins] } = pairs;
    let mut bits = [l.splat(0); LINES];
    if FIFTHS {
        // SAFETY: bytes 16 to 32.
        let first = unsafe { l.columns(at(block, 16)) };
        // SAFETY: bytes 32 to 48.
        let last = unsafe { l.columns(at(block, 32)) };
        for i in 0..4 {
            (bits[i], bits[i + 4]) = (first[i], last[i]);
        }
    }
    let mut four = Four { d, dmin, scales: first_scales, mins: first_mins, bits };
    // SAFETY: the first 64 of 128 bytes of nibbles.
    unsafe { four_groups::<L, S, FIFTHS>(l, &at(block, nibbles), 0, &mut four, sink) };
    (four.scales, four.mins) = (last_scales, last_mins);
    // SAFETY: the last 64.
    unsafe { four_groups::<L, S, FIFTHS>(l, &at(block, nibbles + 64), 4, &mut four, sink) };
}

/// What four groups have besides nibbles.
struct Four<L: Lanes> {
    d: L::Floats,
    dmin: L::Floats,
    /// Scales of the groups to come, a byte each, the next one first.
    scales: L::Words,
    mins: L::Words,
    /// Fifth bits of each line, the next group's first.
    bits: [L::Words; LINES],
}

/// Four groups from `first` on.
///
/// # Safety
/// Their 64 bytes of nibbles can be read.
#[inline(always)]
unsafe fn four_groups<L: Lanes, S: Sink<L>, const FIFTHS: bool>(
    l: L,
    nibbles: &[*const u8; ROWS],
    first: usize,
    four: &mut Four<L>,
    sink: &mut S,
) {
    let (nibble, fifth, byte) = (l.splat(0x0f0f_0f0f), l.splat(0x1010_1010), l.splat(0xff));
    for g in (first..first + 4).step_by(2) {
        sink.begin(l, 0, g);
        sink.begin(l, 1, g + 1);
        unrolled!(half in [0, 1] {
            // SAFETY: 16 of the 64 bytes.
            let found = unsafe { l.columns(at(nibbles, 16 * (g - first) + 16 * half)) };
            unrolled!(i in [0, 1, 2, 3] {
                let line = 4 * half + i;
                let (mut even, mut odd) = (l.and(found[i], nibble), l.and(l.shr(found[i], 4), nibble));
                if FIFTHS {
                    let bits = &mut four.bits[line];
                    even = l.or(even, l.and(l.shl(*bits, 4), fifth));
                    odd = l.or(odd, l.and(l.shl(*bits, 3), fifth));
                    *bits = l.shr(*bits, 2);
                }
                sink.line(l, 0, g, line, even);
                sink.line(l, 1, g + 1, line, odd);
            });
        });
        for slot in 0..2 {
            let scale = l.mul(four.d, l.floats(l.and(four.scales, byte)));
            let min = l.mul(four.dmin, l.floats(l.and(four.mins, byte)));
            sink.end(l, slot, g + slot, Scales { low: scale, high: scale, min });
            (four.scales, four.mins) = (l.shr(four.scales, 8), l.shr(four.mins, 8));
        }
    }
}

/// Scales and minima of a block, 6 bits a byte: groups 0 to 4, then 4 to 8.
struct Pairs<L: Lanes> {
    d: L::Floats,
    dmin: L::Floats,
    scales: [L::Words; 2],
    mins: [L::Words; 2],
}

/// The head of a block: `d` and `dmin`, halves, then twelve bytes of 6-bit pairs.
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
unsafe fn pairs<L: Lanes>(l: L, block: &[*const u8; ROWS]) -> Pairs<L> {
    // SAFETY: by the contract of this function.
    let [head, s, m, x] = unsafe { l.columns(*block) };
    let (six, four, two) = (l.splat(0x3f3f_3f3f), l.splat(0x0f0f_0f0f), l.splat(0x3030_3030));
    Pairs {
        d: l.halves(head),
        dmin: l.halves(l.shr(head, 16)),
        scales: [l.and(s, six), l.or(l.and(x, four), l.and(l.shr(s, 2), two))],
        mins: [l.and(m, six), l.or(l.and(l.shr(x, 4), four), l.and(l.shr(m, 2), two))],
    }
}
