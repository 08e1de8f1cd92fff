//! The 6-bit scales and minima shared by Q4_K and Q5_K: eight pairs in twelve bytes.
//!
//! ```text
//! byte b, b in 0..4        bits 0..6: scale b        bits 6..8: upper bits of scale b + 4
//! byte b + 4               bits 0..6: minimum b      bits 6..8: upper bits of minimum b + 4
//! byte b + 8               bits 0..4: scale b + 4    bits 4..8: minimum b + 4
//! ```
//! Source: `get_scale_min_k4` in ggml.

use super::cast;

/// The first 16 bytes of a block: d, dmin and the eight pairs.
#[inline(always)]
pub(super) fn read_head(head: &[u8; 16]) -> (f32, f32, [(u8, u8); 8]) {
    let [d0, d1, m0, m1, packed @ ..] = head;
    (cast::scale([*d0, *d1]), cast::scale([*m0, *m1]), unpack(packed))
}

/// The eight (scale, minimum) pairs of bytes 4 to 16 of a block of Q4_K or Q5_K, each in 0..64.
#[inline(always)]
pub fn unpack(packed: &[u8; 12]) -> [(u8, u8); 8] {
    let [s0, s1, s2, s3, m0, m1, m2, m3, x0, x1, x2, x3] = *packed;
    let low = |s: u8, m: u8| (s & 63, m & 63);
    let high = |s: u8, m: u8, x: u8| (x & 15 | (s >> 6) << 4, x >> 4 | (m >> 6) << 4);
    [
        low(s0, m0),
        low(s1, m1),
        low(s2, m2),
        low(s3, m3),
        high(s0, m0, x0),
        high(s1, m1, x1),
        high(s2, m2, x2),
        high(s3, m3, x3),
    ]
}

/// The inverse of [`unpack`]; bits above the sixth are dropped.
pub(super) fn pack(pairs: &[(u8, u8); 8]) -> [u8; 12] {
    let [low @ .., _, _, _, _] = pairs;
    let [_, _, _, _, high @ ..] = pairs;
    let mut packed = [0; 12];
    let [first @ .., _, _, _, _, _, _, _, _] = &mut packed;
    for ((byte, &(s, _)), &(s_high, _)) in first.iter_mut().zip(low).zip(high) {
        *byte = s & 63 | s_high >> 4 << 6;
    }
    let [_, _, _, _, rest @ ..] = &mut packed;
    let (second, third) = rest.split_at_mut(4);
    for ((byte, &(_, m)), &(_, m_high)) in second.iter_mut().zip(low).zip(high) {
        *byte = m & 63 | m_high >> 4 << 6;
    }
    for (byte, &(s, m)) in third.iter_mut().zip(high) {
        *byte = s & 15 | m << 4;
    }
    packed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_survives_in_every_place() {
        for value in 0..64u8 {
            for place in 0..8 {
                let mut pairs = [(63 - value, value); 8];
                if let Some(pair) = pairs.get_mut(place) {
                    *pair = (value, 63 - value);
                }
                assert_eq!(unpack(&pack(&pairs)), pairs);
            }
        }
    }
}
