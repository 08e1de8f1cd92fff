//! Blocks without panels, decoded by vectors: the formulas and roundings of `halfbyte_formats::quant`.

use halfbyte_formats::quant::{IQ4_NL, IQ4_XS, MXFP4, Q2_K, Q3_K, Q4_1, Q5_1};

use super::{Decode, LANES, Simd};

/// What sixteen elements are written to.
type Sixteen = [f32; LANES];

/// `q · d + m` for 32 codes `q`.
#[inline(always)]
fn affine<S: Simd>(s: S, codes: [S::Codes; 2], [d, m]: [f32; 2], out: &mut [Sixteen; 2]) {
    for (codes, out) in codes.into_iter().zip(out) {
        s.store(s.add(s.mul(s.floats(codes), s.splat(d)), s.splat(m)), out);
    }
}

/// `d · values[q]` for 32 codes `q`, those of elements 0 to 15 in the low halves of the bytes.
#[inline(always)]
fn looked_up<S: Simd>(s: S, values: &[i8; 16], d: f32, codes: &[u8; 16], out: &mut [Sixteen; 2]) {
    for (codes, out) in nibbles(s, codes).into_iter().zip(out) {
        s.store(s.mul(s.splat(d), s.floats(s.look_up(values, codes))), out);
    }
}

/// The low halves of bytes, then the high ones.
#[inline(always)]
fn nibbles<S: Simd>(s: S, bytes: &[u8; 16]) -> [S::Codes; 2] {
    let bytes = s.codes(bytes);
    [s.field(bytes, 0, 15, 0), s.field(bytes, 4, 15, 0)]
}

/// Blocks of `BYTES` bytes with room for `SIXTEENS` times sixteen elements each.
#[inline(always)]
fn blocks<'a, const BYTES: usize, const SIXTEENS: usize>(
    blocks: &'a [u8],
    out: &'a mut [f32],
) -> impl Iterator<Item = (&'a [u8; BYTES], &'a mut [Sixteen; SIXTEENS])> {
    let out = out.as_chunks_mut::<LANES>().0.as_chunks_mut::<SIXTEENS>().0;
    blocks.as_chunks::<BYTES>().0.iter().zip(out)
}

impl Decode for Q4_1 {
    const LEN: usize = 32;
    const BYTES: usize = 20;

    #[inline(always)]
    fn decode<S: Simd>(s: S, data: &[u8], out: &mut [f32]) {
        for (&[d0, d1, m0, m1, ref codes @ ..], out) in blocks::<20, 2>(data, out) {
            affine(s, nibbles(s, codes), s.halves([d0, d1, m0, m1]), out);
        }
    }
}

impl Decode for Q5_1 {
    const LEN: usize = 32;
    const BYTES: usize = 24;

    #[inline(always)]
    fn decode<S: Simd>(s: S, data: &[u8], out: &mut [f32]) {
        for (&[d0, d1, m0, m1, h0, h1, h2, h3, ref codes @ ..], out) in blocks::<24, 2>(data, out) {
            let [low, high] = nibbles(s, codes);
            let fifth = |h: [u8; 2]| s.field(s.bits(u16::from_le_bytes(h)), 0, 1, 4);
            let codes = [s.or(low, fifth([h0, h1])), s.or(high, fifth([h2, h3]))];
            affine(s, codes, s.halves([d0, d1, m0, m1]), out);
        }
    }
}

impl Decode for IQ4_NL {
    const LEN: usize = 32;
    const BYTES: usize = 18;

    #[inline(always)]
    fn decode<S: Simd>(s: S, data: &[u8], out: &mut [f32]) {
        for (block, out) in blocks::<18, 2>(data, out) {
            let &[d0, d1, c0, c1, ..] = block;
            let ([d, _], [_, _, codes @ ..]) = (s.halves([d0, d1, c0, c1]), block);
            looked_up(s, &Self::VALUES, d, codes, out);
        }
    }
}

impl Decode for MXFP4 {
    const LEN: usize = 32;
    const BYTES: usize = 17;

    #[inline(always)]
    fn decode<S: Simd>(s: S, data: &[u8], out: &mut [f32]) {
        for (&[exponent, ref codes @ ..], out) in blocks::<17, 2>(data, out) {
            looked_up(s, &Self::VALUES, Self::scale(exponent), codes, out);
        }
    }
}

impl Decode for IQ4_XS {
    const LEN: usize = 256;
    const BYTES: usize = 136;

    #[inline(always)]
    fn decode<S: Simd>(s: S, data: &[u8], out: &mut [f32]) {
        for (&[d0, d1, s0, s1, s2, s3, s4, s5, ref codes @ ..], out) in blocks::<136, 16>(data, out) {
            let [d, _] = s.halves([d0, d1, s0, s1]);
            let scales = Self::scales(&[s0, s1, s2, s3, s4, s5]);
            let groups = codes.as_chunks::<16>().0.iter().zip(out.as_chunks_mut::<2>().0);
            for ((codes, out), scale) in groups.zip(scales) {
                looked_up(s, &IQ4_NL::VALUES, d * f32::from(scale), codes, out);
            }
        }
    }
}

impl Decode for Q2_K {
    const LEN: usize = 256;
    const BYTES: usize = 84;

    #[inline(always)]
    fn decode<S: Simd>(s: S, data: &[u8], out: &mut [f32]) {
        for (block, out) in blocks::<84, 16>(data, out) {
            let (vectors, &[d0, d1, m0, m1]) = block.as_chunks::<16>() else { return };
            let [scales, codes @ ..] = vectors else { return };
            let [low, high] = nibbles(s, scales);
            let [d, m] = s.halves([d0, d1, m0, m1]);
            let (mut scales, mut mins) = ([0.0; LANES], [0.0; LANES]);
            s.store(s.mul(s.splat(d), s.floats(low)), &mut scales);
            s.store(s.mul(s.splat(m), s.floats(high)), &mut mins);
            let factors = scales.into_iter().zip(mins);
            for ((i, out), (d, m)) in out.iter_mut().enumerate().zip(factors) {
                let Some((codes, shift)) = two_bits(codes, i) else { return };
                let q = s.floats(s.field(s.codes(codes), shift, 3, 0));
                s.store(s.sub(s.mul(s.splat(d), q), s.splat(m)), out);
            }
        }
    }
}

impl Decode for Q3_K {
    const LEN: usize = 256;
    const BYTES: usize = 110;

    #[inline(always)]
    fn decode<S: Simd>(s: S, data: &[u8], out: &mut [f32]) {
        for (block, out) in blocks::<110, 16>(data, out) {
            let (vectors, rest) = block.as_chunks::<16>();
            let (Some(packed), &[.., s10, s11, d0, d1]) = (rest.first_chunk(), rest) else { return };
            let [high, more, codes @ ..] = vectors else { return };
            let [_, d] = s.halves([s10, s11, d0, d1]);
            for ((i, out), scale) in out.iter_mut().enumerate().zip(Self::scales(packed)) {
                let Some((codes, shift)) = two_bits(codes, i) else { return };
                let q = s.field(s.codes(codes), shift, 3, 0);
                let third = s.field(s.codes(if i % 2 == 0 { high } else { more }), i as i32 / 2, 1, 2);
                let q = s.sub(s.floats(s.or(q, third)), s.splat(4.0));
                s.store(s.mul(s.splat(d * f32::from(scale)), q), out);
            }
        }
    }
}

/// Where the lower two bits of elements `16 i .. 16 i + 16` of a block are: which bytes, and from which bit on.
#[inline(always)]
fn two_bits(codes: &[[u8; 16]], i: usize) -> Option<(&[u8; 16], i32)> {
    Some((codes.get(i / 8 * 2 + i % 2)?, (i % 8 / 2 * 2) as i32))
}
