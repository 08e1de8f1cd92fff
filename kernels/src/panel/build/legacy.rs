//! Q4_0, Q5_0, Q8_0: blocks of one group, whose scale comes first.

use halfbyte_formats::quant::{BlockFormat, Q4_0, Q5_0, Q8_0};

use super::{RowMajor, Scales, Sink, Source, StoredLanes, at};
use crate::panel::{Kind, ROWS};

impl Source for RowMajor<Q4_0> {
    const KIND: Kind = Kind::of::<Q4_0>();
    const GROUPS: usize = 1;
    const BYTES: usize = ROWS * Q4_0::BYTES;

    #[inline(always)]
    unsafe fn unit<L: StoredLanes, S: Sink<L>>(l: L, rows: &[*const u8; ROWS], index: usize, sink: &mut S) {
        let block = at(rows, Q4_0::BYTES * index);
        // SAFETY: the first 16 of the 18 bytes of block `index`.
        let [d, ..] = unsafe { l.columns(block) };
        // SAFETY: the last 16.
        let found = unsafe { l.columns(at(&block, 2)) };
        let nibble = l.splat(0x0f0f_0f0f);
        sink.begin(l, 0, 0);
        unrolled!(i in [0, 1, 2, 3] {
            sink.line(l, 0, 0, i, l.and(found[i], nibble));
            sink.line(l, 0, 0, i + 4, l.and(l.shr(found[i], 4), nibble));
        });
        sink.end(l, 0, 0, Scales::one(l.halves(d)));
    }
}

impl Source for RowMajor<Q5_0> {
    const KIND: Kind = Kind::of::<Q5_0>();
    const GROUPS: usize = 1;
    const BYTES: usize = ROWS * Q5_0::BYTES;

    #[inline(always)]
    unsafe fn unit<L: StoredLanes, S: Sink<L>>(l: L, rows: &[*const u8; ROWS], index: usize, sink: &mut S) {
        let block = at(rows, Q5_0::BYTES * index);
        // SAFETY: the first 16 of the 22 bytes of block `index`.
        let [d, ..] = unsafe { l.columns(block) };
        // SAFETY: bytes 2 to 18, of which the first four are the fifth bits.
        let [fifths, ..] = unsafe { l.columns(at(&block, 2)) };
        // SAFETY: the last 16.
        let found = unsafe { l.columns(at(&block, 6)) };
        let (nibble, fifth) = (l.splat(0x0f0f_0f0f), l.splat(0x1010_1010));
        // Bits 0 to 3 of a word, times this, are bits 4, 12, 20 and 28.
        let (four, spread) = (l.splat(15), l.splat(0x0204_0810));
        sink.begin(l, 0, 0);
        unrolled!(i in [0, 1, 2, 3, 4, 5, 6, 7] {
            let shift = i as i32;
            let codes = l.and(l.shr(found[i % 4], shift / 4 * 4), nibble);
            let bits = l.mul_words(l.and(l.shr(fifths, 4 * shift), four), spread);
            sink.line(l, 0, 0, i, l.or(codes, l.and(bits, fifth)));
        });
        sink.end(l, 0, 0, Scales::one(l.halves(d)));
    }
}

impl Source for RowMajor<Q8_0> {
    const KIND: Kind = Kind::of::<Q8_0>();
    const GROUPS: usize = 1;
    const BYTES: usize = ROWS * Q8_0::BYTES;

    #[inline(always)]
    unsafe fn unit<L: StoredLanes, S: Sink<L>>(l: L, rows: &[*const u8; ROWS], index: usize, sink: &mut S) {
        let block = at(rows, Q8_0::BYTES * index);
        // SAFETY: the first 16 of the 34 bytes of block `index`.
        let [d, ..] = unsafe { l.columns(block) };
        let sign = l.splat(0x8080_8080);
        sink.begin(l, 0, 0);
        unrolled!(half in [0, 1] {
            // SAFETY: bytes 2 to 18, and the last 16.
            let found = unsafe { l.columns(at(&block, 2 + 16 * half)) };
            unrolled!(i in [0, 1, 2, 3] {
                sink.line(l, 0, 0, 4 * half + i, l.xor(found[i], sign));
            });
        });
        sink.end(l, 0, 0, Scales::one(l.halves(d)));
    }
}
