//! Q6_K: 256 elements in 210 bytes; 16 sub-blocks of 16 with signed byte scales under one f16 scale.
//!
//! ```text
//! bytes 0..128   ql[64 h + i], h in 0..2, i in 0..64: lower four bits of two elements,
//!                bits 0..4: element 128 h + i, bits 4..8: element 128 h + 64 + i
//!     128..192   qh[32 h + l], l in 0..32: upper two bits of four elements,
//!                bits 2t..2t+2: element 128 h + 32 t + l, t in 0..4
//!     192..208   sc[e / 16]  i8, scale of element e
//!     208..210   d           f16
//! y = (d * sc) * (q - 32)
//! ```
//! Source: `block_q6_K`, `dequantize_row_q6_K` in ggml. The encoder's search is our own (`search`); its weights x^2
//! are those of `quantize_row_q6_K_ref`, so that errors compare.

use half::f16;

use super::search::{Weighted, fit_symmetric, nearest, weighted_sum};
use super::{BlockFormat, EncodeBlock, QuantType, cast};

/// 6 bits, one scale per 16.
#[expect(non_camel_case_types, reason = "the field's standard name")]
#[derive(Clone, Copy, Debug)]
pub struct Q6_K;

impl BlockFormat for Q6_K {
    const TYPE: QuantType = QuantType::Q6_K;
    const LEN: usize = 256;
    const BYTES: usize = 210;

    #[inline]
    fn decode(block: &[u8], out: &mut [f32]) {
        let Some((block, out)) = cast::arrays::<210, 256>(block, out) else {
            return;
        };
        let (ql, rest) = cast::split::<128, 82, 210>(block);
        let (qh, rest) = cast::split::<64, 18, 82>(rest);
        let (scales, d) = cast::split::<16, 2, 18>(rest);
        let d = cast::scale(*d);
        let scales = scales.map(|sc| d * f32::from(sc as i8));
        let halves = ql.as_chunks::<64>().0.iter().zip(qh.as_chunks::<32>().0);
        let halves = halves.zip(scales.as_chunks::<8>().0).zip(out.as_chunks_mut::<128>().0);
        for (((ql, qh), scales), out) in halves {
            // Quarter t holds elements 32 t .. 32 t + 32 of this half; each has two scales.
            let quarters = out.as_chunks_mut::<32>().0.iter_mut().zip(scales.as_chunks::<2>().0);
            for (t, (out, &[first, second])) in quarters.enumerate() {
                let (ql_even, ql_odd) = cast::split::<32, 32, 64>(ql);
                let ql = if t % 2 == 0 { ql_even } else { ql_odd };
                let quants = ql.iter().zip(qh).map(|(&l, &h)| {
                    let low = if t < 2 { l & 15 } else { l >> 4 };
                    f32::from((low | (h >> (2 * t) & 3) << 4) as i8 - 32)
                });
                for (l, (y, q)) in out.iter_mut().zip(quants).enumerate() {
                    *y = if l < 16 { first * q } else { second * q };
                }
            }
        }
    }
}

impl EncodeBlock for Q6_K {
    /// The scale of scales is about the largest value over 32 * 128; the factor 2 is room for the fit.
    const MAX_ABS: f32 = 32.0 * 128.0 * 65504.0 / 2.0;

    /// Fits each sub-block alone, rounds the fits to bytes under a common scale, then improves each rounded scale.
    fn encode(values: &[f32], block: &mut [u8]) {
        let Some((values, block)) = cast::arrays_mut::<210, 256>(values, block) else { return };
        let sub_blocks = values.as_chunks::<16>().0;
        let mut fits = [0.0; 16];
        for (x, fit) in sub_blocks.iter().zip(&mut fits) {
            *fit = fit_symmetric(Weighted { x, w: &x.map(|x| x * x) }, 32.0);
        }
        // The largest scale becomes -128, which has no positive twin.
        let d = f16::from_f32(cast::largest(&fits) / -128.0);
        let grid = d.to_f32();

        let mut scales = [0i8; 16];
        let mut quants = [[0u8; 16]; 16];
        for (((x, fit), scale), q) in sub_blocks.iter().zip(fits).zip(&mut scales).zip(&mut quants) {
            *scale = round_scale(x, fit, grid);
            let inverse = inverse(*scale, grid);
            // In 0..64 by construction.
            *q = x.map(|x| (quantise(x, inverse) + 32.0) as u8);
        }

        let Some((ql, rest)) = block.split_first_chunk_mut::<128>() else { return };
        let Some((qh, [sc @ .., d0, d1])) = rest.split_first_chunk_mut::<64>() else { return };
        [*d0, *d1] = d.to_le_bytes();
        for (byte, scale) in sc.iter_mut().zip(scales) {
            *byte = scale as u8;
        }
        let halves = quants.as_flattened().as_chunks::<128>().0.iter();
        for ((q, ql), qh) in halves.zip(ql.as_chunks_mut::<64>().0).zip(qh.as_chunks_mut::<32>().0) {
            let (first, second) = q.split_at(64);
            for ((byte, a), b) in ql.iter_mut().zip(first).zip(second) {
                *byte = a & 15 | b << 4;
            }
            for (t, q) in q.as_chunks::<32>().0.iter().enumerate() {
                for (byte, q) in qh.iter_mut().zip(q) {
                    let kept = if t == 0 { 0 } else { *byte };
                    *byte = kept | (q >> 4) << (2 * t);
                }
            }
        }
    }
}

#[inline(always)]
fn inverse(scale: i8, grid: f32) -> f32 {
    let scale = grid * f32::from(scale);
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

#[inline(always)]
fn quantise(x: f32, inverse: f32) -> f32 {
    nearest((x * inverse).clamp(-32.0, 31.0))
}

/// Rounds a fitted scale to a multiple of the grid: of the nearest and its neighbours, the one of least error.
fn round_scale(x: &[f32; 16], fit: f32, grid: f32) -> i8 {
    if grid == 0.0 {
        return 0;
    }
    let data = Weighted { x, w: &x.map(|x| x * x) };
    let error = |scale: i8| {
        let (step, inverse) = (grid * f32::from(scale), inverse(scale, grid));
        weighted_sum(data, |x| {
            let gap = step * quantise(x, inverse) - x;
            gap * gap
        })
    };
    let centre = nearest((fit / grid).clamp(-128.0, 127.0)) as i8;
    let around = centre.saturating_sub(1)..=centre.saturating_add(1);
    let errors = around.map(|scale| (error(scale), scale));
    errors.fold((f32::INFINITY, centre), |best, next| if next.0 < best.0 { next } else { best }).1
}
