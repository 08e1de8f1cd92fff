//! Activations to 8 bits, four groups at a time: one of each of four tokens, or four of one token.
//!
//! Every step but the one rounding is exact: the largest magnitude is that of the bits (infinity is above all numbers,
//! NaN above infinity), the exponent comes from it by integer arithmetic, and nothing is lost in multiplying by a power
//! of two.

use std::arch::x86_64::*;

use crate::quantized::{GROUP, LINES, MAX_INPUT, MIN_EXPONENT, TILE, WORDS};

/// The inputs of a group.
type Inputs = [f32; GROUP];

/// The words of four groups.
type Words = [u32; TILE * WORDS];

/// What four groups become.
struct Rounded {
    /// Of each group its lines.
    lines: [__m256i; TILE],
    /// The other fields, each of four groups, in their order.
    fields: [__m128i; WORDS - LINES],
    /// A bit for each group that has an input which is not finite, or too large.
    bad: u32,
}

/// See [`QuantizeFn`](crate::dispatch::table::QuantizeFn).
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn quantize(x: &[f32], stride: usize, tokens: usize, out: &mut [u32]) -> u32 {
    if tokens == 1 {
        return one_token(x, out);
    }
    let mut bad = 0;
    for (group, out) in out.chunks_exact_mut(tokens * WORDS).enumerate() {
        // Tokens that are missing to four are the last one again.
        let inputs = |token: usize| x.get(token.min(tokens - 1) * stride..)?.as_chunks().0.get(group);
        let [Some(a), Some(b), Some(c), Some(d)] = [inputs(0), inputs(1), inputs(2), inputs(3)] else { break };
        let rounded = round([a, b, c, d]);
        bad |= rounded.bad;
        if let Ok(out) = out.try_into() {
            interleave(&rounded, out);
        } else {
            let mut words = [0; TILE * WORDS];
            interleave(&rounded, &mut words);
            for (out, words) in out.chunks_exact_mut(tokens).zip(words.chunks_exact(TILE)) {
                out.iter_mut().zip(words).for_each(|(out, word)| *out = *word);
            }
        }
    }
    bad & ((1 << tokens) - 1)
}

/// Groups lie one after the other.
#[target_feature(enable = "avx2,fma,f16c")]
fn one_token(x: &[f32], out: &mut [u32]) -> u32 {
    let (groups, _) = x.as_chunks().0.split_at(out.len() / WORDS);
    let ((fours, rest), (outs, rest_out)) = (groups.as_chunks::<TILE>(), out.as_chunks_mut());
    let mut bad = 0;
    for ([a, b, c, d], out) in fours.iter().zip(outs) {
        let rounded = round([a, b, c, d]);
        bad |= rounded.bad;
        concatenate(&rounded, out);
    }
    if let Some(last) = rest.last() {
        let rounded = round(std::array::from_fn(|i| rest.get(i).unwrap_or(last)));
        bad |= rounded.bad;
        let mut words = [0; TILE * WORDS];
        concatenate(&rounded, &mut words);
        rest_out.iter_mut().zip(words).for_each(|(out, word)| *out = word);
    }
    u32::from(bad != 0)
}

/// Writes four groups one after the other.
#[target_feature(enable = "avx2,fma,f16c")]
fn concatenate(rounded: &Rounded, out: &mut Words) {
    let fields = transpose(rounded.fields);
    for ((out, lines), fields) in out.as_chunks_mut::<WORDS>().0.iter_mut().zip(rounded.lines).zip(fields) {
        let (first, last) = out.split_at_mut(LINES);
        // SAFETY: eight words.
        unsafe { _mm256_storeu_si256(first.as_mut_ptr().cast(), lines) };
        // SAFETY: four words.
        unsafe { _mm_storeu_si128(last.as_mut_ptr().cast(), fields) };
    }
}

/// Writes each word of four groups side by side.
#[target_feature(enable = "avx2,fma,f16c")]
fn interleave(rounded: &Rounded, out: &mut Words) {
    let [a, b, c, d] = rounded.lines;
    let first = [a, b, c, d].map(|lines| _mm256_castsi256_si128(lines));
    let last = [a, b, c, d].map(|lines| _mm256_extracti128_si256::<1>(lines));
    let rows = [transpose(first), transpose(last), rounded.fields];
    for (out, row) in out.as_chunks_mut::<TILE>().0.iter_mut().zip(rows.as_flattened()) {
        // SAFETY: four words.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), *row) };
    }
}

/// Rows become columns.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn transpose([a, b, c, d]: [__m128i; 4]) -> [__m128i; 4] {
    let (ab, cd) = (_mm_unpacklo_epi32(a, b), _mm_unpacklo_epi32(c, d));
    let (ab_high, cd_high) = (_mm_unpackhi_epi32(a, b), _mm_unpackhi_epi32(c, d));
    [
        _mm_unpacklo_epi64(ab, cd),
        _mm_unpackhi_epi64(ab, cd),
        _mm_unpacklo_epi64(ab_high, cd_high),
        _mm_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// Rounds four groups.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn round(groups: [&Inputs; TILE]) -> Rounded {
    let [a, b, c, d] = groups.map(|group| largest(group));
    // Rows become columns: the largest of each group.
    let [a, b, c, d] = transpose([a, b, c, d]);
    let largest = _mm_max_epi32(_mm_max_epi32(a, b), _mm_max_epi32(c, d));
    let bad = _mm_cmpgt_epi32(largest, _mm_set1_epi32(MAX_INPUT.to_bits().cast_signed()));
    // As `exponent_for` in scalar/quantize.rs.
    let exponent = _mm_srli_epi32::<23>(_mm_add_epi32(largest, _mm_set1_epi32(0x7f_ffff - 0x7e_0000)));
    let exponent = _mm_max_epi32(_mm_sub_epi32(exponent, _mm_set1_epi32(127 + 6)), _mm_set1_epi32(MIN_EXPONENT));
    let exponent = _mm_blendv_epi8(exponent, _mm_set1_epi32(MIN_EXPONENT), bad);
    let bias = _mm_set1_epi32(127);
    let power = |exponent: __m128i| _mm_slli_epi32::<23>(_mm_add_epi32(exponent, bias));
    let inverse = numbers(power(_mm_sub_epi32(_mm_setzero_si128(), exponent))).map(f32::from_bits);
    let good = numbers(_mm_xor_si128(bad, _mm_set1_epi32(-1)));

    let mut lines = [_mm256_setzero_si256(); TILE];
    let mut sums = [_mm256_setzero_si256(); TILE];
    for i in 0..TILE {
        let codes = codes(groups[i], inverse[i]);
        lines[i] = _mm256_and_si256(codes, _mm256_set1_epi32(good[i].cast_signed()));
        // Of the four inputs of each line.
        let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), lines[i]);
        sums[i] = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    }
    let [a, b, c, d] = sums;
    let sums = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    let (low, high) = (_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
    let (all, zero) = (_mm_add_epi32(low, high), _mm_setzero_si128());
    let scaled = _mm_mul_ps(_mm_cvtepi32_ps(all), _mm_castsi128_ps(power(exponent)));
    let fields =
        [_mm_sub_epi32(zero, all), _mm_sub_epi32(zero, low), _mm_slli_epi32::<23>(exponent), _mm_castps_si128(scaled)];
    Rounded { lines, fields, bad: _mm_movemask_ps(_mm_castsi128_ps(bad)).cast_unsigned() }
}

/// The four words of a register.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn numbers(words: __m128i) -> [u32; 4] {
    let mut numbers = [0; 4];
    // SAFETY: four words.
    unsafe { _mm_storeu_si128(numbers.as_mut_ptr().cast(), words) };
    numbers
}

/// Eight inputs.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn eight(group: &Inputs, i: usize) -> __m256 {
    let (eights, _) = group.as_chunks::<8>();
    // SAFETY: eight numbers.
    unsafe { _mm256_loadu_ps(eights[i].as_ptr()) }
}

/// The bits of the largest magnitudes; the largest of the four is that of the group.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn largest(group: &Inputs) -> __m128i {
    let magnitude = _mm256_set1_epi32(0x7fff_ffff);
    let mut largest = _mm256_setzero_si256();
    for i in 0..GROUP / 8 {
        largest = _mm256_max_epi32(largest, _mm256_and_si256(_mm256_castps_si256(eight(group, i)), magnitude));
    }
    _mm_max_epi32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256::<1>(largest))
}

/// Inputs times `inverse`, rounded, in order.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn codes(group: &Inputs, inverse: f32) -> __m256i {
    let inverse = _mm256_set1_ps(inverse);
    let mut words = [_mm256_setzero_si256(); GROUP / 8];
    for (i, words) in words.iter_mut().enumerate() {
        *words = _mm256_cvtps_epi32(_mm256_mul_ps(eight(group, i), inverse));
    }
    let [a, b, c, d] = words;
    let packed = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    // Packing works within halves of registers.
    _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7))
}
