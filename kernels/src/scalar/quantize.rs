//! Activations to 8 bits, one tile of tokens at a time; see [`crate::quantized`].

use crate::quantized::{Field, GROUP, LINES, MAX_INPUT, MIN_EXPONENT, WORDS};

/// See [`QuantizeFn`](crate::dispatch::table::QuantizeFn).
pub(crate) fn quantize(x: &[f32], stride: usize, tokens: usize, out: &mut [u32]) -> u32 {
    let mut flags = 0;
    for (token, x) in x.chunks(stride).enumerate().take(tokens) {
        for (x, out) in x.as_chunks().0.iter().zip(out.chunks_exact_mut(WORDS * tokens)) {
            flags |= u32::from(!quantize_group(x, tokens, token, out)) << token;
        }
    }
    flags
}

/// One group of one token of a tile of `n`; false if an input is not finite or too large.
fn quantize_group(x: &[f32; GROUP], n: usize, token: usize, out: &mut [u32]) -> bool {
    let mut put = |field: Field, word: u32| {
        if let Some(out) = out.get_mut(field.word(n, token)) {
            *out = word;
        }
    };
    // NaN compares as no number does, so it has to be asked for.
    let finite = x.iter().all(|x| x.abs() <= MAX_INPUT);
    let largest = x.iter().fold(0.0, |max: f32, x| if x.abs() > max { x.abs() } else { max });
    let exponent = if finite { exponent_for(largest) } else { MIN_EXPONENT };
    let inverse = power_of_two(-exponent);
    let codes = x.map(|x| if finite { (x * inverse).round_ties_even() as i8 } else { 0 });
    for (line, codes) in codes.as_chunks::<4>().0.iter().enumerate().take(LINES) {
        put(Field::Line(line), u32::from_le_bytes(codes.map(i8::cast_unsigned)));
    }
    let sum = |codes: &[i8]| codes.iter().map(|&code| i32::from(code)).sum::<i32>();
    let (low, _) = codes.split_at(GROUP / 2);
    put(Field::NegatedSum, (-sum(&codes)).cast_unsigned());
    put(Field::NegatedSumLow, (-sum(low)).cast_unsigned());
    put(Field::Exponent, (exponent << 23).cast_unsigned());
    put(Field::ScaledSum, (sum(&codes) as f32 * power_of_two(exponent)).to_bits());
    finite
}

/// The smallest `e >= MIN_EXPONENT` with `largest <= 127 · 2^e`, for `largest <= MAX_INPUT`.
///
/// 127 is 1.984375 · 2^6: a mantissa above 1.984375, that is bits above 0x7e0000, needs the next power.
fn exponent_for(largest: f32) -> i32 {
    let exponent = (largest.to_bits() + (0x7f_ffff - 0x7e_0000)) >> 23;
    (exponent.cast_signed() - 127 - 6).max(MIN_EXPONENT)
}

/// `2^e` for `-126 <= e <= 127`.
fn power_of_two(e: i32) -> f32 {
    f32::from_bits(((e + 127) << 23).cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, in `f64`.
    #[test]
    fn exponents_are_the_smallest_possible() {
        let mut x = 1e-38f32;
        while x < MAX_INPUT {
            for x in [x, x.next_up(), x.next_down(), 127.0 * power_of_two((x.log2() as i32 - 6).clamp(-90, 90))] {
                let e = exponent_for(x);
                // `powi` need not be exact.
                let power = |e: i32| f64::from_bits(((1023 + e) as u64) << 52);
                let fits = |e: i32| f64::from(x) <= 127.0 * power(e);
                assert!(fits(e) && (e == MIN_EXPONENT || !fits(e - 1)), "{x}: {e}");
            }
            x *= 1.3;
        }
        assert_eq!(exponent_for(0.0), MIN_EXPONENT);
        assert_eq!(exponent_for(MAX_INPUT), 96);
    }
}
