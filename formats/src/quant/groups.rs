//! The quantised formats as what their kernels multiply: unsigned codes under common scales, 32 elements at a time.
//!
//! ```text
//! y[e] = scales[e / 16] · (codes[e] - zero) - min      e in 0..32 of one group
//! ```
//! Formats with a scale for 32 elements have it twice.

use super::{BlockFormat, Q4_0, Q4_K, Q5_0, Q5_K, Q6_K, Q8_0, cast, k_scales};

/// Elements of a group.
pub const GROUP: usize = 32;

/// 32 elements of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    /// One code an element.
    pub codes: [u8; GROUP],
    /// Factors of the first and the second 16 elements.
    pub scales: [f32; 2],
    /// What is taken off every element.
    pub min: f32,
}

/// A format of codes and scales.
pub trait GroupFormat: BlockFormat {
    /// Codes are below `2^BITS`.
    const BITS: u32;
    /// The code of zero, a power of two; 0 where a minimum takes its place.
    const ZERO: u32;
    /// Whether the two scales of a group differ.
    const HALVES: bool;
    /// Whether groups have a minimum.
    const MINS: bool;

    /// Group number `index < LEN / 32` of a block: `block.len() == BYTES`. `None` for anything else.
    fn group(block: &[u8], index: usize) -> Option<Group>;
}

/// 16 bytes of two codes each: elements 0..16 in the low halves, 16..32 in the high ones.
fn nibbles(bytes: &[u8; 16]) -> [u8; GROUP] {
    let mut codes = [0; GROUP];
    let (low, high) = codes.split_at_mut(16);
    for ((byte, low), high) in bytes.iter().zip(low).zip(high) {
        (*low, *high) = (byte & 15, byte >> 4);
    }
    codes
}

impl GroupFormat for Q4_0 {
    const BITS: u32 = 4;
    const ZERO: u32 = 8;
    const HALVES: bool = false;
    const MINS: bool = false;

    fn group(block: &[u8], index: usize) -> Option<Group> {
        let &[d0, d1, ref qs @ ..] = <&[u8; 18]>::try_from(block).ok().filter(|_| index == 0)?;
        Some(Group { codes: nibbles(qs), scales: [cast::scale([d0, d1]); 2], min: 0.0 })
    }
}

impl GroupFormat for Q5_0 {
    const BITS: u32 = 5;
    const ZERO: u32 = 16;
    const HALVES: bool = false;
    const MINS: bool = false;

    fn group(block: &[u8], index: usize) -> Option<Group> {
        let &[d0, d1, h0, h1, h2, h3, ref qs @ ..] = <&[u8; 22]>::try_from(block).ok().filter(|_| index == 0)?;
        let fifths = u32::from_le_bytes([h0, h1, h2, h3]);
        let mut codes = nibbles(qs);
        for (e, code) in codes.iter_mut().enumerate() {
            *code |= (fifths >> e & 1) as u8 * 16;
        }
        Some(Group { codes, scales: [cast::scale([d0, d1]); 2], min: 0.0 })
    }
}

impl GroupFormat for Q8_0 {
    const BITS: u32 = 8;
    const ZERO: u32 = 128;
    const HALVES: bool = false;
    const MINS: bool = false;

    fn group(block: &[u8], index: usize) -> Option<Group> {
        let &[d0, d1, ref qs @ ..] = <&[u8; 34]>::try_from(block).ok().filter(|_| index == 0)?;
        Some(Group { codes: qs.map(|q| q ^ 0x80), scales: [cast::scale([d0, d1]); 2], min: 0.0 })
    }
}

/// Group `index` of a block that begins as Q4_K does and ends with its 4-bit codes.
fn k_group(block: &[u8], index: usize) -> Option<Group> {
    let (d, dmin, pairs) = k_scales::read_head(block.first_chunk()?);
    let &(scale, min) = pairs.get(index)?;
    let qs: &[u8; 32] = block.last_chunk::<128>()?.as_chunks().0.get(index / 2)?;
    let codes = qs.map(|q| if index.is_multiple_of(2) { q & 15 } else { q >> 4 });
    Some(Group { codes, scales: [d * f32::from(scale); 2], min: dmin * f32::from(min) })
}

impl GroupFormat for Q4_K {
    const BITS: u32 = 4;
    const ZERO: u32 = 0;
    const HALVES: bool = false;
    const MINS: bool = true;

    fn group(block: &[u8], index: usize) -> Option<Group> {
        k_group(<&[u8; 144]>::try_from(block).ok()?, index)
    }
}

impl GroupFormat for Q5_K {
    const BITS: u32 = 5;
    const ZERO: u32 = 0;
    const HALVES: bool = false;
    const MINS: bool = true;

    fn group(block: &[u8], index: usize) -> Option<Group> {
        let block = <&[u8; 176]>::try_from(block).ok()?;
        let mut group = k_group(block, index)?;
        for (code, fifths) in group.codes.iter_mut().zip(block.get(16..48)?) {
            *code |= (fifths >> index & 1) * 16;
        }
        Some(group)
    }
}

impl GroupFormat for Q6_K {
    const BITS: u32 = 6;
    const ZERO: u32 = 32;
    const HALVES: bool = true;
    const MINS: bool = false;

    fn group(block: &[u8], index: usize) -> Option<Group> {
        let block = <&[u8; 210]>::try_from(block).ok()?;
        // Group t of each half of the block takes bits 2t..2t+2 of `qh` and a nibble of `ql`.
        let (half, t) = (index / 4, index % 4);
        let low: &[u8; 32] = block.as_chunks().0.get(2 * half + t % 2).filter(|_| half < 2)?;
        let high = block.get(128 + 32 * half..)?;
        let mut codes = low.map(|q| if t < 2 { q & 15 } else { q >> 4 });
        for (code, high) in codes.iter_mut().zip(high) {
            *code |= (high >> (2 * t) & 3) << 4;
        }
        let d = cast::scale(*block.last_chunk()?);
        let scales = block.get(192 + 2 * index..)?.first_chunk::<2>()?.map(|sc| d * f32::from(sc as i8));
        Some(Group { codes, scales, min: 0.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The formula gives what `decode`, itself compared with ggml, gives: bit for bit, as both round alike.
    fn agrees<F: GroupFormat>() {
        let mut seed = 1u64;
        for _ in 0..if cfg!(miri) { 5 } else { 2000 } {
            let block: Vec<u8> = std::iter::repeat_with(|| {
                seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                (seed >> 56) as u8
            })
            .take(F::BYTES)
            .collect();
            let mut expected = vec![0.0; F::LEN];
            F::decode(&block, &mut expected);
            for (index, expected) in expected.chunks(GROUP).enumerate() {
                let group = F::group(&block, index).expect("a group of the block");
                assert!(group.codes.iter().all(|code| u32::from(*code) < 1 << F::BITS));
                for (e, (&code, expected)) in group.codes.iter().zip(expected).enumerate() {
                    let found = group.scales[e / 16] * (f32::from(code) - F::ZERO as f32) - group.min;
                    let same = found == *expected || found.is_nan() && expected.is_nan();
                    assert!(same, "{:?} group {index} element {e}: {found} is not {expected}", F::TYPE);
                }
            }
            assert!(F::group(&block, F::LEN / GROUP).is_none());
            assert!(F::group(&block[1..], 0).is_none());
        }
    }

    #[test]
    fn groups_are_the_decoded_blocks() {
        agrees::<Q4_0>();
        agrees::<Q5_0>();
        agrees::<Q8_0>();
        agrees::<Q4_K>();
        agrees::<Q5_K>();
        agrees::<Q6_K>();
    }
}
