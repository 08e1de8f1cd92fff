//! The product of two small matrices in the first cache: scores of keys, sums of values.
//!
//! ```text
//! registers: rows · columns sums, one line of b, one element of a
//! step k:    load b[k][0..columns];   for each row: broadcast a[row][k], fma with the line
//! ```
//! A sum is one chain of fma over ascending `k`, whatever the number of rows and columns around it: how a product is
//! cut into calls does not show in its bits.

use std::ops::Range;

use super::{LANES, Plain, Simd};

/// Most rows of any instruction set.
pub(crate) const ROWS: usize = 6;

/// `out[r][c] = Σ_k a[r][k] · b[k][c]`, or adds that to `out`, for `rows` rows. Elements of `b` may be of any plain
/// format.
#[derive(Clone, Copy)]
pub(crate) struct Product {
    /// Where each of the `rows` rows of `a` begins.
    pub(crate) a: [*const f32; ROWS],
    pub(crate) b: *const u8,
    /// Bytes from one row of `b` to the next.
    pub(crate) b_stride: usize,
    pub(crate) depth: usize,
    pub(crate) out: *mut f32,
    /// Elements from one row of `out` to the next.
    pub(crate) out_stride: usize,
    pub(crate) rows: usize,
    /// Whether sums go on from what `out` holds.
    pub(crate) add: bool,
}

/// Runs a product for the given vectors of columns, by as many at a time as suit the instruction set.
///
/// # Safety
/// `p.rows` is in `1..=S::ROWS`, and all that [`product`] demands holds for the columns.
#[inline(always)]
pub(crate) unsafe fn multiply<S: Simd, E: Plain>(s: S, p: Product, columns: Range<usize>) {
    let most = S::columns(p.rows);
    for column in columns.clone().step_by(most) {
        let (b, out) = (p.b.wrapping_add(column * LANES * E::BYTES), p.out.wrapping_add(column * LANES));
        // SAFETY: the same contract, for some of the columns.
        unsafe { s.product::<E>(&Product { b, out, ..p }, most.min(columns.end - column)) };
    }
}

/// Runs a product of `R` rows and `C` vectors of columns, from the first on.
///
/// # Safety
/// `p.rows == R <= ROWS`. For all `r < R`, `k < p.depth` and `c < 16 C`, these elements are there and
/// nobody writes them: `p.a[r][k]` and, of `E`, number `c` from `p.b + k * p.b_stride` on; and nobody else uses
/// `p.out[r * p.out_stride + c]`, which is initialised if `p.add`.
#[inline(always)]
pub(crate) unsafe fn product<S: Simd, E: Plain, const R: usize, const C: usize>(s: S, p: &Product) {
    let mut sums = [[s.splat(0.0); C]; R];
    if p.add {
        for (r, sums) in sums.iter_mut().enumerate() {
            for (c, sum) in sums.iter_mut().enumerate() {
                // SAFETY: 16 initialised elements of row `r < R` of `out`, from column `16 c < 16 C` on.
                *sum = unsafe { s.load_at(p.out.wrapping_add(r * p.out_stride + c * LANES)) };
            }
        }
    }
    let mut b = p.b;
    for k in 0..p.depth {
        let mut line = [s.splat(0.0); C];
        for (c, line) in line.iter_mut().enumerate() {
            // SAFETY: 16 elements of row `k < depth` of `b`, from column `16 c < 16 C` on.
            *line = unsafe { E::load_at(s, b.wrapping_add(c * LANES * E::BYTES)) };
        }
        for (sums, a) in sums.iter_mut().zip(p.a) {
            // SAFETY: element `k < depth` of a row of `a`; there are `R` pairs.
            let a = s.splat(unsafe { *a.wrapping_add(k) });
            for (sum, line) in sums.iter_mut().zip(line) {
                *sum = s.fma(a, line, *sum);
            }
        }
        b = b.wrapping_add(p.b_stride);
    }
    for (r, sums) in sums.iter().enumerate() {
        for (c, sum) in sums.iter().enumerate() {
            // SAFETY: sixteen elements of row `r < R` of `out`, from column `16 c < 16 C` on.
            unsafe { s.store_at(*sum, p.out.wrapping_add(r * p.out_stride + c * LANES)) };
        }
    }
}
