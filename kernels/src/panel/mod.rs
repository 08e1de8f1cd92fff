//! Products of quantised weights with 8-bit activations, in panels of 16 rows.
//!
//! Whatever the format and the layout of the weights, a tier's `build` function turns a piece of 16 rows into one
//! [`Panel`], and its `micro` function multiplies panels with activations. A panel stays in the first cache while
//! every token of a batch passes by. For a few tokens, `gemv` multiplies weights as they are taken apart, with the same
//! result, and at the rate at which memory gives them.
//!
//! ```text
//! panel, a group of 32 inputs:  line l = 64 bytes = 16 rows × the codes of inputs 4 l .. 4 l + 4       l in 0..8
//! micro, a group:               sum[row][token] = Σ line[row] · input[token]      exact, in i32; starts at -zero · Σ input
//!                               out[row][token] = fma(sum, scale[row] · 2^e[token], out)
//!                               out[row][token] = fma(-min[row], Σ input · 2^e, out)    formats with a minimum
//! ```
//! Groups come in ascending order, and nothing else decides a result: not the tokens or rows beside it, the number of
//! threads, the layout, nor the tier. A format with a scale for 16 inputs has two sums a group.

pub(crate) mod build;
mod driver;
pub(crate) mod gemv;

pub(crate) use driver::{PanelKernel, SCRATCH, ask, matmul};

/// Rows of a panel.
pub(crate) const ROWS: usize = 16;
/// Groups a [`Panel`] has room for: three of them, and the activations of a tile, fit a first cache of 48 KiB.
pub(crate) const GROUPS: usize = 16;
/// Most panels multiplied at a time.
pub(crate) const PANELS: usize = 3;

/// Sums of one token and panel.
pub(crate) type Sums = [f32; ROWS];

/// A piece of 16 rows and up to [`GROUPS`] groups, ready to be multiplied.
#[repr(C, align(64))]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Panel {
    /// `codes[group][line][4 row + i]`: the code of input `4 line + i`.
    pub(crate) codes: [[[u8; 4 * ROWS]; 8]; GROUPS],
    /// Of all inputs of a group, or of the first 16.
    pub(crate) scales: [[f32; ROWS]; GROUPS],
    /// Of the last 16 inputs; not written for formats with one scale a group.
    pub(crate) scales_high: [[f32; ROWS]; GROUPS],
    /// Not written for formats without.
    pub(crate) mins: [[f32; ROWS]; GROUPS],
    /// What a tier keeps there; the first three are enough for most.
    #[cfg(target_arch = "aarch64")]
    pub(crate) spare: [[f32; ROWS]; GROUPS],
    /// No scale is infinite, NaN or zero: they can be multiplied by a power of two through their exponent.
    pub(crate) normal: bool,
}

impl Panel {
    /// Makes the scales of `groups` groups fit for arithmetic on their exponents, and sets `normal`: where one is zero,
    /// the codes become that of zero and the scale an ordinary number. To be called if there are such ones; they are
    /// rare.
    ///
    /// # Safety
    /// `panel` was written by a [`BuildFn`] for this kind and so many groups, but for `normal`.
    #[cold]
    pub(crate) unsafe fn settle(panel: *mut Self, kind: Kind, groups: usize) {
        let zero = kind.zero();
        let mut normal = true;
        for group in 0..groups {
            // SAFETY: written before, and nobody else's; the references are to what a panel of this kind has.
            let codes = unsafe { &mut (*panel).codes[group] };
            // SAFETY: as above.
            let low = unsafe { &mut (*panel).scales[group] };
            let (first, second) = codes.split_at_mut(4);
            let mut settle = |lines: &mut [[u8; 4 * ROWS]], scales: &mut [f32; ROWS]| {
                if scales.map(|scale| scale.is_finite() && scale != 0.0) == [true; ROWS] {
                    return;
                }
                for (row, scale) in scales.iter_mut().enumerate() {
                    normal &= scale.is_finite();
                    if *scale == 0.0 {
                        *scale = 1.0;
                        lines.iter_mut().for_each(|line| line[4 * row..4 * row + 4].fill(zero));
                    }
                }
            };
            if kind.halves {
                settle(first, low);
                // SAFETY: as above, and this kind has them.
                settle(second, unsafe { &mut (*panel).scales_high[group] });
            } else {
                settle(codes, low);
            }
        }
        // SAFETY: `panel` can be written.
        unsafe { (*panel).normal = normal };
    }
}

/// What a format has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// Codes are below `2^bits`.
    pub(crate) bits: u32,
    /// Logarithm of the code that stands for zero; 32 if it is the code 0.
    pub(crate) zero_shift: u32,
    /// Two scales a group.
    pub(crate) halves: bool,
    /// Minima, which take the place of a zero: `zero_shift` is 32.
    pub(crate) mins: bool,
}

impl Kind {
    /// The code that stands for zero.
    pub(crate) const fn zero(self) -> u8 {
        if self.zero_shift < 8 { 1 << self.zero_shift } else { 0 }
    }

    /// What `F` has.
    pub(crate) const fn of<F: halfbyte_formats::quant::GroupFormat>() -> Self {
        assert!(!F::MINS || F::ZERO == 0, "minima take the place of a zero");
        let zero_shift = if F::ZERO == 0 { 32 } else { F::ZERO.ilog2() };
        Self { bits: F::BITS, zero_shift, halves: F::HALVES, mins: F::MINS }
    }
}

/// Fills the first `groups <= GROUPS` groups of `panel` from 16 rows.
///
/// # Safety
/// - The CPU has the features of the tier.
/// - Row-major weights: whole blocks for `groups` groups can be read at each of `rows` (some may be equal).
///   Packed weights: the panel's bytes for so many groups can be read at `rows[0]`.
/// - `panel` can be written; afterwards all that its kind has is initialised for these groups, and `normal`.
pub(crate) type BuildFn = unsafe fn(rows: &[*const u8; ROWS], groups: usize, panel: *mut Panel);

/// One call of a micro-kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Micro {
    pub(crate) kind: Kind,
    /// `count` panels, one after the other.
    pub(crate) panels: *const Panel,
    /// 1 to [`PANELS`].
    pub(crate) count: usize,
    /// Every panel is [`normal`](Panel::normal).
    #[cfg_attr(target_arch = "aarch64", expect(dead_code, reason = "its kernels multiply, whatever the scale"))]
    pub(crate) normal: bool,
    /// Groups of the panels to multiply.
    pub(crate) groups: usize,
    /// The first word of the first of these groups, in a tile of `tokens`.
    pub(crate) input: *const u32,
    /// 1 to 4.
    pub(crate) tokens: usize,
    /// `(tokens, count)`, added to.
    pub(crate) out: *mut Sums,
}

/// Multiplies panels with a tile of tokens.
///
/// # Safety
/// - The CPU has the features of the tier.
/// - `panels` are `count` panels, initialised as [`BuildFn`] does for `kind` and `groups`; `normal` only if all are.
/// - `groups * WORDS * tokens` words can be read at `input`; `tokens * count` sums read and written at `out`.
/// - `count` and `tokens` are within their limits.
pub(crate) type MicroFn = unsafe fn(&Micro);

/// The instance of a function `product::<.., T, HALVES, MINS>` for the tokens and the kind of a [`Micro`].
macro_rules! instance {
    ($product:ident $(::<$first:tt>)?, $m:expr) => {
        match ($m.tokens, $m.kind.halves, $m.kind.mins) {
            (1, false, false) => $product::<$($first,)? 1, false, false>,
            (2, false, false) => $product::<$($first,)? 2, false, false>,
            (3, false, false) => $product::<$($first,)? 3, false, false>,
            (_, false, false) => $product::<$($first,)? 4, false, false>,
            (1, false, true) => $product::<$($first,)? 1, false, true>,
            (2, false, true) => $product::<$($first,)? 2, false, true>,
            (3, false, true) => $product::<$($first,)? 3, false, true>,
            (_, false, true) => $product::<$($first,)? 4, false, true>,
            (1, true, _) => $product::<$($first,)? 1, true, false>,
            (2, true, _) => $product::<$($first,)? 2, true, false>,
            (3, true, _) => $product::<$($first,)? 3, true, false>,
            (_, true, _) => $product::<$($first,)? 4, true, false>,
        }
    };
}
pub(crate) use instance;
