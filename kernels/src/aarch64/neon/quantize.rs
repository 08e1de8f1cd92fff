//! Activations to 8 bits, a group at a time.
//!
//! Every step but the one rounding is exact: the largest magnitude is that of the bits (infinity is above all numbers,
//! NaN above infinity), the exponent comes from it by integer arithmetic, and nothing is lost in multiplying by a power
//! of two.

use super::intrinsics::*;
use crate::quantized::{GROUP, LINES, MAX_INPUT, MIN_EXPONENT, WORDS};

/// See [`QuantizeFn`](crate::dispatch::table::QuantizeFn).
pub(super) fn quantize(x: &[f32], stride: usize, tokens: usize, out: &mut [u32]) -> u32 {
    let mut bad = 0;
    for (token, x) in x.chunks(stride).enumerate().take(tokens) {
        for (group, out) in x.as_chunks().0.iter().zip(out.chunks_exact_mut(tokens * WORDS)) {
            let (words, good) = round(group);
            bad |= u32::from(!good) << token;
            out.iter_mut().skip(token).step_by(tokens).zip(words).for_each(|(out, word)| *out = word);
        }
    }
    bad
}

/// The words of a group, and whether all inputs are finite and not too large.
#[inline(always)]
fn round(group: &[f32; GROUP]) -> ([u32; WORDS], bool) {
    let mut x = [vdupq_n_f32(0.0); GROUP / 4];
    let mut largest = vdupq_n_u32(0);
    for (x, four) in x.iter_mut().zip(group.as_chunks::<4>().0) {
        // SAFETY: four numbers.
        *x = unsafe { vld1q_f32(four.as_ptr()) };
        largest = vmaxq_u32(largest, vreinterpretq_u32_f32(vabsq_f32(*x)));
    }
    let largest = vmaxvq_u32(largest);
    if largest > MAX_INPUT.to_bits() {
        let mut words = [0; WORDS];
        words[LINES + 2] = (MIN_EXPONENT << 23).cast_unsigned();
        return (words, false);
    }
    // As `exponent_for` in scalar/quantize.rs.
    let exponent = ((largest + (0x7f_ffff - 0x7e_0000)) >> 23).cast_signed() - 127 - 6;
    let exponent = exponent.max(MIN_EXPONENT);
    let power = |exponent: i32| f32::from_bits(((exponent + 127) << 23).cast_unsigned());
    let [a, b, c, d, e, f, g, h] = x.map(|x| vqmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(x, power(-exponent)))));
    let narrow = |a, b, c, d| vcombine_s8(vqmovn_s16(vcombine_s16(a, b)), vqmovn_s16(vcombine_s16(c, d)));
    let (low, high) = (narrow(a, b, c, d), narrow(e, f, g, h));
    let (low_sum, high_sum) = (i32::from(vaddlvq_s8(low)), i32::from(vaddlvq_s8(high)));
    let mut words = [0; WORDS];
    // SAFETY: the first four words.
    unsafe { vst1q_s8(words.as_mut_ptr().cast(), low) };
    // SAFETY: the next four.
    unsafe { vst1q_s8(words.as_mut_ptr().wrapping_add(4).cast(), high) };
    let sum = low_sum + high_sum;
    let scaled = sum as f32 * power(exponent);
    words[LINES..].copy_from_slice(&[
        (-sum).cast_unsigned(),
        (-low_sum).cast_unsigned(),
        (exponent << 23).cast_unsigned(),
        scaled.to_bits(),
    ]);
    (words, true)
}
