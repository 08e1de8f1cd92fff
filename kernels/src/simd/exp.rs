//! The exponential.
//!
//! ```text
//! x = n · ln 2 + r,  n an integer,  |r| <= ln 2 / 2        ln 2 as the sum of two f32, subtracted by two fma
//! exp(x) = 2^n · (1 + r · (1 + r · q(r)))                  q of degree 4: relative error 2^-28
//! ```
//! The coefficients minimise the largest relative error of the result over that interval (Remez exchange). Rounding
//! included, the result is off by at most 0.9 units in the last place (tried for every `f32`); `exp(-∞) = 0`,
//! `exp(+∞) = +∞`, `exp(0) = 1`, and NaN stays NaN.

use super::Simd;

/// `exp` of this is less than half the smallest subnormal.
const LOWEST: f32 = -104.0;
/// `exp` of this is beyond the largest `f32`.
const HIGHEST: f32 = 89.0;
/// ln 2, rounded.
const LN_2_HIGH: f32 = std::f32::consts::LN_2;
/// What that lacks.
const LN_2_LOW: f32 = (std::f64::consts::LN_2 - LN_2_HIGH as f64) as f32;
/// From r^6 down to r^0.
const POLYNOMIAL: [f32; 7] = [0.001_381_454, 0.008_368_745, 0.041_668_39, 0.166_665_21, 0.499_999_94, 1.0, 1.0];

/// `exp(x)` of every lane.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F32) -> S::F32 {
    // Both return their second argument for NaN.
    let x = s.min(s.splat(HIGHEST), s.max(s.splat(LOWEST), x));
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.fnma(n, s.splat(LN_2_LOW), s.fnma(n, s.splat(LN_2_HIGH), x));
    let [first, rest @ ..] = POLYNOMIAL;
    let mut power = s.splat(first);
    for c in rest {
        power = s.fma(power, r, s.splat(c));
    }
    s.scale(power, n)
}
