//! Q4_K: 256 elements in 144 bytes; 8 sub-blocks of 32 with 6-bit scales and minima under two f16 scales.
//!
//! ```text
//! bytes 0..2     d       f16, scale of the scales
//!       2..4     dmin    f16, scale of the minima
//!       4..16    eight 6-bit (sc, m) pairs, see `k_scales`
//!      16..144   qs[32 c + l], c in 0..4: bits 0..4: element 64 c + l, bits 4..8: element 64 c + 32 + l
//! y = (d * sc) * q - dmin * m      sc, m of the element's sub-block
//! ```
//! Source: `block_q4_K`, `dequantize_row_q4_K` in ggml. The encoder's search is our own (`search`); its weights
//! rms + |x| are those of `quantize_row_q4_K_ref`, so that errors compare.

use half::f16;

use super::search::{Affine, Weighted, fit_affine, nearest, weighted_sum};
use super::{BlockFormat, EncodeBlock, QuantType, cast, k_scales};

/// 4 bits, scale and minimum per 32.
#[expect(non_camel_case_types, reason = "the field's standard name")]
#[derive(Clone, Copy, Debug)]
pub struct Q4_K;

impl BlockFormat for Q4_K {
    const TYPE: QuantType = QuantType::Q4_K;
    const LEN: usize = 256;
    const BYTES: usize = 144;

    #[inline]
    fn decode(block: &[u8], out: &mut [f32]) {
        let Some((block, out)) = cast::arrays::<144, 256>(block, out) else {
            return;
        };
        let (head, qs) = cast::split::<16, 128, 144>(block);
        let (d, dmin, pairs) = k_scales::read_head(head);
        let (pairs, _) = pairs.as_chunks::<2>();
        let (out, _) = out.as_chunks_mut::<64>();
        let (qs, _) = qs.as_chunks::<32>();
        for ((qs, &[low, high]), out) in qs.iter().zip(pairs).zip(out) {
            let (d_low, m_low) = (d * f32::from(low.0), dmin * f32::from(low.1));
            let (d_high, m_high) = (d * f32::from(high.0), dmin * f32::from(high.1));
            let (y_low, y_high) = out.split_at_mut(32);
            for ((&q, y_low), y_high) in qs.iter().zip(y_low).zip(y_high) {
                *y_low = d_low * f32::from(q & 15) - m_low;
                *y_high = d_high * f32::from(q >> 4) - m_high;
            }
        }
    }
}

impl EncodeBlock for Q4_K {
    /// The minimum is at most 63 f16 scales; half of that leaves room for a fitted one beyond the smallest value.
    const MAX_ABS: f32 = 63.0 * 65504.0 / 2.0;

    /// Fits each sub-block alone, rounds the fits to 6 bits under common scales, then improves each rounded pair.
    fn encode(values: &[f32], block: &mut [u8]) {
        let Some((values, block)) = cast::arrays_mut::<144, 256>(values, block) else { return };
        let sub_blocks = values.as_chunks::<32>().0;
        let mut fits = [Affine::default(); 8];
        let mut weights = [[0.0; 32]; 8];
        for ((x, w), fit) in sub_blocks.iter().zip(&mut weights).zip(&mut fits) {
            let rms = (x.iter().map(|x| x * x).sum::<f32>() / 32.0).sqrt();
            *w = x.map(|x| rms + x.abs());
            *fit = fit_affine(Weighted { x, w }, 15.0);
        }
        let common = |part: fn(&Affine) -> f32| f16::from_f32(fits.iter().map(part).fold(0.0, f32::max) / 63.0);
        let (d, dmin) = (common(|fit| fit.scale), common(|fit| fit.min));
        let grid = Affine { scale: d.to_f32(), min: dmin.to_f32() };

        let mut pairs = [(0, 0); 8];
        let mut quants = [[0; 32]; 8];
        for ((((x, w), fit), pair), q) in sub_blocks.iter().zip(&weights).zip(&fits).zip(&mut pairs).zip(&mut quants) {
            *pair = round_pair(Weighted { x, w }, *fit, grid);
            let quantise = Quantise::new(*pair, grid);
            // In 0..=15 by construction.
            *q = x.map(|x| quantise.q(x) as u8);
        }

        let [d0, d1, m0, m1, rest @ ..] = block;
        [*d0, *d1] = d.to_le_bytes();
        [*m0, *m1] = dmin.to_le_bytes();
        let Some((scales, qs)) = rest.split_first_chunk_mut::<12>() else { return };
        *scales = k_scales::pack(&pairs);
        for (qs, [low, high]) in qs.as_chunks_mut::<32>().0.iter_mut().zip(quants.as_chunks::<2>().0) {
            for ((byte, low), high) in qs.iter_mut().zip(low).zip(high) {
                *byte = low | high << 4;
            }
        }
    }
}

/// The line of a stored (scale, minimum) pair, ready to quantise with.
struct Quantise {
    scale: f32,
    min: f32,
    inverse: f32,
}

impl Quantise {
    #[inline(always)]
    fn new(pair: (u8, u8), grid: Affine) -> Self {
        let (scale, min) = (grid.scale * f32::from(pair.0), grid.min * f32::from(pair.1));
        Self { scale, min, inverse: if scale > 0.0 { 1.0 / scale } else { 0.0 } }
    }

    #[inline(always)]
    fn q(&self, x: f32) -> f32 {
        nearest(((x + self.min) * self.inverse).clamp(0.0, 15.0))
    }

    #[inline(always)]
    fn error(&self, data: Weighted<'_, 32>) -> f32 {
        weighted_sum(data, |x| {
            let gap = self.scale * self.q(x) - self.min - x;
            gap * gap
        })
    }
}

/// Rounds a fit to 6-bit multiples of the grid: of the nearest pair and its eight neighbours, the one of least error.
fn round_pair(data: Weighted<'_, 32>, fit: Affine, grid: Affine) -> (u8, u8) {
    let multiple = |value: f32, unit: f32| if unit > 0.0 { nearest((value / unit).clamp(0.0, 63.0)) as u8 } else { 0 };
    let centre = (multiple(fit.scale, grid.scale), multiple(fit.min, grid.min));
    let around = |n: u8| n.saturating_sub(1)..=(n + 1).min(63);
    let pairs = around(centre.0).flat_map(|sc| around(centre.1).map(move |m| (sc, m)));
    let errors = pairs.map(|pair| (Quantise::new(pair, grid).error(data), pair));
    errors.fold((f32::INFINITY, centre), |best, next| if next.0 < best.0 { next } else { best }).1
}
