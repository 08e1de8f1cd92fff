//! Sixteen lanes in plain Rust: what `simd` computes, on any machine, and under miri.

use std::array::from_fn;

use half::{bf16, f16};

use crate::simd::{Dots, LANES, Plain, Product, Simd, dots, product};

/// Lanes as arrays.
#[derive(Clone, Copy)]
pub(super) struct Arrays;

impl Simd for Arrays {
    type F32 = [f32; LANES];
    type F64 = [f64; LANES];
    type Codes = [u8; LANES];

    const ROWS: usize = 2;
    const DOTS: (usize, usize) = (1, 2);

    fn columns(_: usize) -> usize {
        2
    }

    unsafe fn product<E: Plain>(self, p: &Product, columns: usize) {
        match (p.rows, columns) {
            // SAFETY: the same contract, here and below.
            (1, 1) => unsafe { product::<_, E, 1, 1>(self, p) },
            // SAFETY: as above.
            (1, 2) => unsafe { product::<_, E, 1, 2>(self, p) },
            // SAFETY: as above.
            (2, 1) => unsafe { product::<_, E, 2, 1>(self, p) },
            // SAFETY: as above.
            (2, 2) => unsafe { product::<_, E, 2, 2>(self, p) },
            _ => panic!("{} rows, {columns} columns", p.rows),
        }
    }

    unsafe fn dots(self, d: &Dots) {
        match (d.rows, d.tokens) {
            // SAFETY: the same contract, here and below.
            (1, 1) => unsafe { dots::<_, 1, 1>(self, d) },
            // SAFETY: as above.
            (1, 2) => unsafe { dots::<_, 1, 2>(self, d) },
            _ => panic!("{} rows, {} tokens", d.rows, d.tokens),
        }
    }

    fn prefetch(self, _: *const u8) {}

    fn splat(self, x: f32) -> [f32; LANES] {
        [x; LANES]
    }

    unsafe fn load_at(self, at: *const f32) -> [f32; LANES] {
        // SAFETY: the same contract.
        unsafe { at.cast::<[f32; LANES]>().read_unaligned() }
    }

    unsafe fn store_at(self, x: [f32; LANES], at: *mut f32) {
        // SAFETY: the same contract.
        unsafe { at.cast::<[f32; LANES]>().write_unaligned(x) };
    }

    fn halves(self, [a, b, c, d]: [u8; 4]) -> [f32; 2] {
        [[a, b], [c, d]].map(|bytes| f16::from_le_bytes(bytes).to_f32())
    }

    fn load_f16(self, x: &[u8; 2 * LANES]) -> [f32; LANES] {
        from_fn(|i| f16::from_le_bytes([x[2 * i], x[2 * i + 1]]).to_f32())
    }

    fn store_f16(self, x: [f32; LANES], out: &mut [u8; 2 * LANES]) {
        for (out, x) in out.as_chunks_mut().0.iter_mut().zip(x) {
            *out = f16::from_f32(x).to_le_bytes();
        }
    }

    fn load_bf16(self, x: &[u8; 2 * LANES]) -> [f32; LANES] {
        from_fn(|i| bf16::from_le_bytes([x[2 * i], x[2 * i + 1]]).to_f32())
    }

    fn add(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        from_fn(|i| a[i] + b[i])
    }

    fn sub(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        from_fn(|i| a[i] - b[i])
    }

    fn mul(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        from_fn(|i| a[i] * b[i])
    }

    fn div(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        from_fn(|i| a[i] / b[i])
    }

    fn fma(self, a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
        from_fn(|i| a[i].mul_add(b[i], c[i]))
    }

    fn fnma(self, a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
        from_fn(|i| (-a[i]).mul_add(b[i], c[i]))
    }

    fn max(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    fn min(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }

    fn round(self, x: [f32; LANES]) -> [f32; LANES] {
        x.map(f32::round_ties_even)
    }

    fn scale(self, x: [f32; LANES], n: [f32; LANES]) -> [f32; LANES] {
        let power = |n: f32| f64::from_bits(((1023 + n as i64) as u64) << 52);
        from_fn(|i| (f64::from(x[i]) * power(n[i])) as f32)
    }

    fn keep(self, x: [f32; LANES], start: i32, end: i32) -> [f32; LANES] {
        from_fn(|i| if (start..end).contains(&(i as i32)) { x[i] } else { f32::NEG_INFINITY })
    }

    fn sum(self, x: [f32; LANES]) -> f32 {
        let mut x = x;
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                x[i] += x[half + i];
            }
        }
        x[0]
    }

    fn largest(self, x: [f32; LANES]) -> f32 {
        x.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    fn transpose(self, x: [[f32; LANES]; LANES]) -> [[f32; LANES]; LANES] {
        from_fn(|row| from_fn(|column| x[column][row]))
    }

    fn codes(self, bytes: &[u8; LANES]) -> [u8; LANES] {
        *bytes
    }

    fn field(self, x: [u8; LANES], from: i32, mask: u8, to: i32) -> [u8; LANES] {
        x.map(|x| (x >> from & mask) << to)
    }

    fn or(self, a: [u8; LANES], b: [u8; LANES]) -> [u8; LANES] {
        from_fn(|i| a[i] | b[i])
    }

    fn bits(self, bits: u16) -> [u8; LANES] {
        from_fn(|i| if bits >> i & 1 == 1 { 255 } else { 0 })
    }

    fn look_up(self, table: &[i8; LANES], x: [u8; LANES]) -> [u8; LANES] {
        x.map(|x| table[usize::from(x)].cast_unsigned())
    }

    fn bytes(self, x: [f32; LANES]) -> [u8; LANES] {
        x.map(|x| (x as i8).cast_unsigned())
    }

    fn floats(self, x: [u8; LANES]) -> [f32; LANES] {
        x.map(|x| f32::from(x.cast_signed()))
    }

    fn splat64(self, x: f64) -> [f64; LANES] {
        [x; LANES]
    }

    fn widen(self, x: [f32; LANES]) -> [f64; LANES] {
        x.map(f64::from)
    }

    fn narrow(self, x: [f64; LANES]) -> [f32; LANES] {
        x.map(|x| x as f32)
    }

    fn add64(self, a: [f64; LANES], b: [f64; LANES]) -> [f64; LANES] {
        from_fn(|i| a[i] + b[i])
    }

    fn sub64(self, a: [f64; LANES], b: [f64; LANES]) -> [f64; LANES] {
        from_fn(|i| a[i] - b[i])
    }

    fn mul64(self, a: [f64; LANES], b: [f64; LANES]) -> [f64; LANES] {
        from_fn(|i| a[i] * b[i])
    }

    fn fma64(self, a: [f64; LANES], b: [f64; LANES], c: [f64; LANES]) -> [f64; LANES] {
        from_fn(|i| a[i].mul_add(b[i], c[i]))
    }

    fn sum64(self, x: [f64; LANES]) -> f64 {
        let mut x = x;
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                x[i] += x[half + i];
            }
        }
        x[0]
    }
}
