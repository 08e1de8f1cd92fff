//! What the tests share: seeded data, kernels to try, guarded outputs.

use halfbyte_formats::{QuantType, quant};
use halfbyte_kernels::{Isa, Kernels};

/// Half the distance from 1 to the next `f32`: the largest relative error of one rounding.
pub(crate) const ROUNDING: f64 = 1.0 / (1 << 24) as f64;

/// Below this, relative error means nothing.
pub(crate) const TINY: f64 = f32::MIN_POSITIVE as f64;

/// The weight formats; under miri a few of the small ones.
pub(crate) fn weight_types() -> impl Iterator<Item = QuantType> {
    let small = [QuantType::F32, QuantType::F16, QuantType::Q4_0];
    QuantType::ALL.into_iter().filter(move |ty| if cfg!(miri) { small.contains(ty) } else { *ty != QuantType::I8 })
}

/// Calls `test` with the kernels of each instruction set there is, and says which.
pub(crate) fn for_each_isa(mut test: impl FnMut(&Kernels)) {
    for isa in Isa::available() {
        println!("running on {}", isa.name());
        test(&Kernels::with_isa(isa).expect("available"));
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014).
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in -1..1.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// `len` numbers of [`unit`](Self::unit), in an allocation of exactly that length.
    pub(crate) fn floats(&mut self, len: usize) -> Box<[f32]> {
        (0..len).map(|_| self.unit()).collect()
    }

    /// `n` random valid blocks of any format, with no knowledge of it: random bytes are kept when they decode to
    /// numbers of a reasonable size.
    pub(crate) fn blocks(&mut self, ty: QuantType, n: usize) -> Box<[u8]> {
        let mut pool = Vec::new();
        let mut values = vec![0.0f32; ty.block_len()];
        while pool.len() < n.min(if cfg!(miri) { 1 } else { 16 }) {
            let block: Vec<u8> = (0..ty.block_bytes()).map(|_| self.next() as u8).collect();
            quant::decode(ty, &block, &mut values).expect("one block");
            let largest = values.iter().fold(0.0, |max: f32, v| if v.is_nan() { f32::NAN } else { max.max(v.abs()) });
            if (0.05..4.0).contains(&largest) {
                pool.push(block);
            }
        }
        let blocks: Vec<u8> = (0..n).flat_map(|_| pool[self.next() as usize % pool.len()].clone()).collect();
        blocks.into_boxed_slice()
    }
}

/// Gives `write` a buffer of `len` between canaries, which must survive; the buffer starts as NaN, which must not.
pub(crate) fn guarded(len: usize, write: impl FnOnce(&mut [f32])) -> Vec<f32> {
    const CANARY: f32 = 12345.678;
    const MARGIN: usize = 32;
    let mut buffer = vec![CANARY; len + 2 * MARGIN];
    buffer[MARGIN..MARGIN + len].fill(f32::NAN);
    write(&mut buffer[MARGIN..MARGIN + len]);
    let outside = buffer[..MARGIN].iter().chain(&buffer[MARGIN + len..]);
    assert!(outside.into_iter().all(|x| *x == CANARY), "written outside the output");
    buffer[MARGIN..MARGIN + len].to_vec()
}

/// Like [`guarded`], for an operation in place on `x`.
pub(crate) fn guarded_in_place(x: &[f32], write: impl FnOnce(&mut [f32])) -> Vec<f32> {
    guarded(x.len(), |out| {
        out.copy_from_slice(x);
        write(out);
    })
}

/// `|found - expected| <= bound`, or a panic that says where.
#[track_caller]
pub(crate) fn assert_close(what: &str, i: usize, found: f32, expected: f64, bound: f64) {
    let error = (f64::from(found) - expected).abs();
    assert!(error <= bound, "{what}, element {i}: {found:e} is not {expected:e} (error {error:e}, bound {bound:e})");
}

/// The bits of each element: equality without tolerance.
pub(crate) fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}
