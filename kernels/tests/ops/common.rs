//! What the tests share: seeded data, kernels to try, guarded outputs.

use std::ops::Range;

use halfbyte_formats::quant::{self, Group, GroupFormat, Q4_0, Q4_K, Q5_0, Q5_K, Q6_K, Q8_0};
use halfbyte_formats::{Bytes, QuantType};
use halfbyte_kernels::ops::{self, Store};
use halfbyte_kernels::{ActivationType, Activations, Isa, Kernels, PackedMatrix, Tile, quantized_words};
use proptest::test_runner::Config;

/// Half the distance from 1 to the next `f32`: the largest relative error of one rounding.
pub(crate) const ROUNDING: f64 = 1.0 / (1 << 24) as f64;

/// Below this, relative error means nothing.
pub(crate) const TINY: f64 = f32::MIN_POSITIVE as f64;

/// The weight formats; under miri a few of the small ones.
pub(crate) fn weight_types() -> impl Iterator<Item = QuantType> {
    let small = [QuantType::F32, QuantType::F16, QuantType::Q4_0];
    QuantType::ALL.into_iter().filter(move |ty| if cfg!(miri) { small.contains(ty) } else { *ty != QuantType::I8 })
}

/// The formats that some tiers multiply with 8-bit activations.
pub(crate) const GROUPED: [QuantType; 6] =
    [QuantType::Q4_0, QuantType::Q5_0, QuantType::Q8_0, QuantType::Q4_K, QuantType::Q5_K, QuantType::Q6_K];

/// The groups of a run of blocks, and the code of zero; `None` for a format that has none.
pub(crate) fn groups(ty: QuantType, data: &[u8]) -> Option<(Vec<Group>, u32)> {
    fn of<F: GroupFormat>(data: &[u8]) -> (Vec<Group>, u32) {
        let blocks = data.chunks(F::BYTES);
        let groups = blocks.flat_map(|block| (0..F::LEN / 32).map(|i| F::group(block, i).expect("a whole block")));
        (groups.collect(), F::ZERO)
    }
    match ty {
        QuantType::Q4_0 => Some(of::<Q4_0>(data)),
        QuantType::Q5_0 => Some(of::<Q5_0>(data)),
        QuantType::Q8_0 => Some(of::<Q8_0>(data)),
        QuantType::Q4_K => Some(of::<Q4_K>(data)),
        QuantType::Q5_K => Some(of::<Q5_K>(data)),
        QuantType::Q6_K => Some(of::<Q6_K>(data)),
        _ => None,
    }
}

/// Cases of each property: 64, or what `PROPTEST_CASES` says.
pub(crate) fn cases() -> Config {
    let default = Config { failure_persistence: None, ..Config::default() };
    match std::env::var_os("PROPTEST_CASES") {
        _ if cfg!(miri) => Config { cases: 1, ..default },
        Some(_) => default,
        None => Config { cases: 64, ..default },
    }
}

/// Whether every instruction is emulated, and other jobs run other tiers: `BEST_TIER_ONLY` in the environment.
pub(crate) fn is_emulated() -> bool {
    std::env::var_os("BEST_TIER_ONLY").is_some()
}

/// Calls `test` with the kernels of each instruction set there is, or, emulated, of the first one, and says which.
pub(crate) fn for_each_isa(mut test: impl FnMut(&Kernels)) {
    let count = if is_emulated() { 1 } else { usize::MAX };
    for isa in Isa::available().take(count) {
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

/// A matrix whose bytes begin at an odd address, and end where their allocation ends.
pub(crate) fn packed(k: &Kernels, ty: QuantType, rows: usize, depth: usize, data: &[u8]) -> PackedMatrix {
    let odd: Vec<u8> = [0xa5].iter().chain(data).copied().collect();
    let bytes = Bytes::from(odd).slice(1..1 + data.len()).expect("inside");
    k.pack(ty, rows, depth, bytes).expect("valid shape")
}

/// What [`ops::quantize`] makes of tokens; no word is left unwritten, none beside them touched.
pub(crate) fn quantized(k: &Kernels, x: &[f32], depth: usize) -> Box<[u32]> {
    let write = |fill: u32| {
        let len = quantized_words(x.len() / depth, depth).expect("whole groups");
        let mut words = vec![fill; len + 2];
        ops::quantize(k, x, depth, &mut words[1..1 + len]).expect("right shapes");
        assert_eq!([words[0], words[len + 1]], [fill; 2], "written outside the output");
        words[1..1 + len].to_vec()
    };
    let words = write(0x5a5a_5a5a);
    assert_eq!(words, write(!0x5a5a_5a5a), "every word is written");
    words.into_boxed_slice()
}

/// The product of rows with tokens, rounded before if the matrix takes 8-bit activations.
pub(crate) fn product(k: &Kernels, w: &PackedMatrix, rows: Range<usize>, x: &[f32]) -> Vec<f32> {
    let (tokens, n) = (x.len() / w.depth(), rows.len());
    guarded(tokens * n, |out| product_into(k, w, rows, x, Store::Set, out))
}

/// Sets or adds to `out` what [`product`] says.
pub(crate) fn product_into(
    k: &Kernels,
    w: &PackedMatrix,
    rows: Range<usize>,
    x: &[f32],
    store: Store,
    out: &mut [f32],
) {
    let words;
    let activations = match w.activations() {
        ActivationType::F32 => Activations::F32(x),
        ActivationType::Q8 => {
            words = quantized(k, x, w.depth());
            Activations::Q8(&words)
        }
    };
    let mut out = Tile::new(out, x.len() / w.depth(), rows.len()).expect("right length");
    ops::matmul(k, w, rows, activations, store, &mut out).expect("right shapes");
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
