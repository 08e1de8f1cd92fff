//! Operations written once, for vectors of sixteen `f32` of any instruction set.
//!
//! A tier implements [`Simd`] for a type whose values prove that the CPU runs it, and instantiates these functions
//! inside `#[target_feature]` functions of its own: everything here is `#[inline(always)]`, so that it takes on their
//! features. Sixteen lanes are one register of AVX-512, two of AVX2, four of NEON. Every operation on lanes is the same
//! everywhere (one rounding a step, `fma` being one), and sums have one order: so all tiers built on this agree bit for
//! bit.

mod act;
mod attention;
mod blocks;
mod exp;
mod float;
mod kv;
mod norm;
mod plain;
mod product;
mod rope;
mod softmax;

pub(crate) use act::{add, silu_mul};
pub(crate) use attention::{Eight, KIND, attention_gqa, attention_merge, attention_part};
#[cfg(test)]
pub(crate) use exp::exp;
pub(crate) use float::{Decode, Dots, Elements, TOKENS, decoded, dots, gemv};
pub(crate) use kv::kv_append;
pub(crate) use norm::{layer_norm, rms_norm};
pub(crate) use plain::{Brain, Half, Plain, Single};
pub(crate) use product::{Product, product};
pub(crate) use rope::rope_neox;
pub(crate) use softmax::softmax;

/// Lanes of a vector.
pub(crate) const LANES: usize = 16;

/// Vectors of one instruction set. A value is the proof that this CPU has it.
pub(crate) trait Simd: Copy {
    /// Sixteen `f32`.
    type F32: Copy;
    /// Sixteen `f64`.
    type F64: Copy;
    /// Sixteen bytes.
    type Codes: Copy;

    /// Most rows of a [`Product`] that are worth a call.
    const ROWS: usize;
    /// Most columns, in vectors, for that many rows.
    fn columns(rows: usize) -> usize;
    /// Runs [`product()`] for `p.rows` rows and `columns` vectors of columns, numbers within these limits.
    ///
    /// # Safety
    /// As for [`product()`].
    unsafe fn product<E: Plain>(self, p: &Product, columns: usize);
    /// Rows and tokens of a [`Dots`] that are worth a call.
    const DOTS: (usize, usize);
    /// Runs [`dots`] for `d.rows` rows and `d.tokens` tokens, numbers within these limits.
    ///
    /// # Safety
    /// As for [`dots`].
    unsafe fn dots(self, d: &Dots);
    /// Asks for the cache line at an address, any address.
    fn prefetch(self, at: *const u8);

    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::F32;
    /// The sixteen numbers at an address.
    ///
    /// # Safety
    /// They are there, and initialised.
    unsafe fn load_at(self, at: *const f32) -> Self::F32;
    /// Writes all lanes to an address.
    ///
    /// # Safety
    /// Sixteen elements may be written there.
    unsafe fn store_at(self, x: Self::F32, at: *mut f32);
    /// Widens two halves, exactly.
    fn halves(self, x: [u8; 4]) -> [f32; 2];
    /// Widens halves, exactly.
    fn load_f16(self, x: &[u8; 2 * LANES]) -> Self::F32;
    /// Rounds to halves, ties to even.
    fn store_f16(self, x: Self::F32, out: &mut [u8; 2 * LANES]);
    /// Widens `bf16`, exactly.
    fn load_bf16(self, x: &[u8; 2 * LANES]) -> Self::F32;
    /// `a + b`
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a - b`
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a · b`
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a / b`
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a · b + c`, rounded once.
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// `c - a · b`, rounded once.
    fn fnma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// The larger one; `b` if one is NaN.
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The smaller one; `b` if one is NaN.
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The nearest integer, ties to even.
    fn round(self, x: Self::F32) -> Self::F32;
    /// `x · 2^n`, rounded once, for integers `n` in -160..=160 and `x` of about one; anything where `x` is NaN.
    fn scale(self, x: Self::F32, n: Self::F32) -> Self::F32;
    /// Lanes `start..end` of `x`, -∞ in the others; limits outside of the lanes are allowed.
    fn keep(self, x: Self::F32, start: i32, end: i32) -> Self::F32;
    /// The sum: lanes at distance 8 first, then 4, 2, 1.
    fn sum(self, x: Self::F32) -> f32;
    /// The largest lane, of which none is NaN.
    fn largest(self, x: Self::F32) -> f32;
    /// Rows become columns.
    fn transpose(self, x: [Self::F32; LANES]) -> [Self::F32; LANES];

    /// The bytes.
    fn codes(self, bytes: &[u8; LANES]) -> Self::Codes;
    /// `((x >> from) & mask) << to` of each byte; `from` and `to` are below 8, and `mask << to` fits a byte.
    fn field(self, x: Self::Codes, from: i32, mask: u8, to: i32) -> Self::Codes;
    /// `a | b`
    fn or(self, a: Self::Codes, b: Self::Codes) -> Self::Codes;
    /// 255 where bit number `lane` of `bits` is set, 0 elsewhere.
    fn bits(self, bits: u16) -> Self::Codes;
    /// `table[x]` for codes below sixteen.
    fn look_up(self, table: &[i8; LANES], x: Self::Codes) -> Self::Codes;
    /// Integers within ±127 as signed bytes; anything where one is NaN.
    fn bytes(self, x: Self::F32) -> [u8; LANES];
    /// The bytes as signed numbers.
    fn floats(self, x: Self::Codes) -> Self::F32;

    /// `x` in every lane.
    fn splat64(self, x: f64) -> Self::F64;
    /// Each lane, exactly.
    fn widen(self, x: Self::F32) -> Self::F64;
    /// Each lane, rounded.
    fn narrow(self, x: Self::F64) -> Self::F32;
    /// `a + b`
    fn add64(self, a: Self::F64, b: Self::F64) -> Self::F64;
    /// `a - b`
    fn sub64(self, a: Self::F64, b: Self::F64) -> Self::F64;
    /// `a · b`
    fn mul64(self, a: Self::F64, b: Self::F64) -> Self::F64;
    /// `a · b + c`, rounded once.
    fn fma64(self, a: Self::F64, b: Self::F64, c: Self::F64) -> Self::F64;
    /// The sum: lanes at distance 8 first, then 4, 2, 1.
    fn sum64(self, x: Self::F64) -> f64;

    /// The numbers of `x`.
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F32 {
        // SAFETY: an array of that size.
        unsafe { self.load_at(x.as_ptr()) }
    }

    /// Writes all lanes.
    #[inline(always)]
    fn store(self, x: Self::F32, out: &mut [f32; LANES]) {
        // SAFETY: an array of that size.
        unsafe { self.store_at(x, out.as_mut_ptr()) }
    }

    /// At most sixteen numbers, then `fill`.
    #[inline(always)]
    fn load_part(self, x: &[f32], fill: f32) -> Self::F32 {
        let mut lanes = [fill; LANES];
        for (lane, x) in lanes.iter_mut().zip(x) {
            *lane = *x;
        }
        self.load(&lanes)
    }

    /// Writes the first lanes, at most sixteen.
    #[inline(always)]
    fn store_part(self, x: Self::F32, out: &mut [f32]) {
        let mut lanes = [0.0; LANES];
        self.store(x, &mut lanes);
        for (out, lane) in out.iter_mut().zip(lanes) {
            *out = lane;
        }
    }
}
