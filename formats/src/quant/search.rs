//! Scale search for the formats whose sub-blocks share rounded scales (Q4_K, Q6_K).
//!
//! The error to minimise is sum w (x - y)^2, where w grows with |x|: large weights move the output most. For fixed
//! integers q the best scale (and minimum) is a weighted least-squares line, solved exactly; for a fixed line the
//! best q is the nearest integer. So each fit tries a fan of starting scales around "the largest value gets the
//! largest integer", solves the line for each, keeps the best, and then alternates the two steps. The error of a
//! candidate follows from the sums that the line needs anyway, so a candidate costs one pass over the data.
//!
//! Sums run in [`LANES`] independent lanes: float addition does not associate, so the compiler could not vectorise
//! a single running sum.

/// Elements handled side by side.
const LANES: usize = 8;

/// Below this no f16 scale can tell the values from zero, and divisions might overflow.
const TINY: f32 = 1e-12;

/// A sub-block: values and their weights in the error sum.
#[derive(Clone, Copy)]
pub(super) struct Weighted<'a, const N: usize> {
    pub(super) x: &'a [f32; N],
    pub(super) w: &'a [f32; N],
}

/// The line y = scale * q - min, scale and min not negative.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Affine {
    pub(super) scale: f32,
    pub(super) min: f32,
}

/// Rounds to the nearest integer, ties to even; `x` must be within 2^22 of zero.
///
/// Adding 1.5 * 2^23 leaves no fraction bits. Unlike `round_ties_even` this is two additions on every CPU.
#[inline(always)]
pub(super) fn nearest(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (x + SHIFT) - SHIFT
}

/// The smallest and the largest of `x`.
fn bounds<const N: usize>(x: &[f32; N]) -> (f32, f32) {
    x.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(lo, hi), &x| (lo.min(x), hi.max(x)))
}

/// Weighted sums over a sub-block for integers q(x): of 1, x, xx are constants, of q, qq, xq depend on q.
#[inline(always)]
fn sums<const N: usize>(data: Weighted<'_, N>, quantise: impl Fn(f32) -> f32) -> (f32, f32, f32) {
    let mut lanes = [(0.0f32, 0.0f32, 0.0f32); LANES];
    for (x, w) in data.x.as_chunks::<LANES>().0.iter().zip(data.w.as_chunks::<LANES>().0) {
        for ((lane, &x), &w) in lanes.iter_mut().zip(x).zip(w) {
            let q = quantise(x);
            let wq = w * q;
            lane.0 += wq;
            lane.1 += wq * q;
            lane.2 += wq * x;
        }
    }
    lanes.iter().fold((0.0, 0.0, 0.0), |sum, lane| (sum.0 + lane.0, sum.1 + lane.1, sum.2 + lane.2))
}

/// sum w * f(x), in lanes.
#[inline(always)]
pub(super) fn weighted_sum<const N: usize>(data: Weighted<'_, N>, f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for (x, w) in data.x.as_chunks::<LANES>().0.iter().zip(data.w.as_chunks::<LANES>().0) {
        for ((lane, &x), &w) in lanes.iter_mut().zip(x).zip(w) {
            *lane += w * f(x);
        }
    }
    lanes.iter().sum()
}

/// Fits y = scale * q - min with q in 0..=`max_q`, min >= 0. `N` is a multiple of [`LANES`].
pub(super) fn fit_affine<const N: usize>(data: Weighted<'_, N>, max_q: f32) -> Affine {
    let (lo, hi) = bounds(data.x);
    let floor = lo.min(0.0);
    let range = hi - floor;
    if range < TINY {
        return Affine { scale: 0.0, min: -floor };
    }
    // Shifted so that the smallest value is near 0: sums of squares then do not cancel.
    let shifted = data.x.map(|x| x - floor);
    let data = Weighted { x: &shifted, w: data.w };
    let (sw, sx) = (weighted_sum(data, |_| 1.0), weighted_sum(data, |x| x));
    // Best line for the integers that (inverse, offset) gives, and its error less the constant sum w x^2.
    let solve = |inverse: f32, offset: f32| {
        let quantise = |x: f32| nearest(((x - offset) * inverse).clamp(0.0, max_q));
        let (sq, sqq, sxq) = sums(data, quantise);
        let determinant = sw * sqq - sq * sq;
        let mut scale = (sw * sxq - sx * sq) / determinant;
        let mut offset = (sqq * sx - sq * sxq) / determinant;
        // Also true for the NaN of a zero determinant. An offset above -floor would be a negative minimum.
        if !(scale > 0.0 && offset <= -floor) {
            offset = if scale > 0.0 { -floor } else { 0.0 };
            scale = if sqq > 0.0 { (sxq - offset * sq) / sqq } else { 0.0 };
        }
        let error = scale * (scale * sqq - 2.0 * sxq) + offset * (offset * sw - 2.0 * sx) + 2.0 * scale * offset * sq;
        (error, scale, offset)
    };
    let fan = (0..=20u8).map(|step| (max_q - 1.0 + 0.1 * f32::from(step)) / range);
    let better = |best: (f32, f32, f32), next: (f32, f32, f32)| if next.0 < best.0 { next } else { best };
    let mut best = fan.map(|inverse| solve(inverse, 0.0)).fold((f32::INFINITY, 0.0, 0.0), better);
    for _ in 0..2 {
        if best.1 > TINY {
            best = better(best, solve(1.0 / best.1, best.2));
        }
    }
    let (_, scale, offset) = best;
    Affine { scale: scale.max(0.0), min: -(floor + offset) }
}

/// Fits y = scale * q with q in `-half..half`; the scale may be negative. `N` is a multiple of [`LANES`].
pub(super) fn fit_symmetric<const N: usize>(data: Weighted<'_, N>, half: f32) -> f32 {
    let largest = super::cast::largest(data.x);
    if largest.abs() < TINY {
        return 0.0;
    }
    // (what the line explains of sum w x^2, its scale): larger is better.
    let solve = |inverse: f32| {
        let (_, sqq, sxq) = sums(data, |x| nearest((x * inverse).clamp(-half, half - 1.0)));
        if sqq > 0.0 { (sxq * sxq / sqq, sxq / sqq) } else { (0.0, 0.0) }
    };
    // -half has no positive twin, so the largest value sits best at -half: the scale takes the opposite sign.
    let fan = (-9..=9i8).map(|step| (half + 0.1 * f32::from(step)) / -largest);
    let better = |best: (f32, f32), next: (f32, f32)| if next.0 > best.0 { next } else { best };
    let mut best = fan.map(solve).fold((0.0, 0.0), better);
    if best.1.abs() > TINY {
        best = better(best, solve(1.0 / best.1));
    }
    best.1
}
