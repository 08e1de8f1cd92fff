//! Tokens taken from a batch, and products added to the rows of one: the same bits as one by one.

use halfbyte_formats::{Bytes, QuantType, quant};

use super::Rng;
use crate::ops::{self, Store};
use crate::{ActivationType, Activations, Isa, KernelError, Kernels, PackedMatrix, QuantTile, Tile, quantized_words};

const ROWS: usize = 80;
const DEPTH: usize = 256;
/// Rows and columns that are computed, and tokens of the larger batch.
const PART: std::ops::Range<usize> = 5..75;
const BATCH: usize = 40;

/// Formats of every kind: floats, a scale a group, two, and minima.
const FORMATS: [QuantType; 5] = [QuantType::F32, QuantType::BF16, QuantType::Q4_0, QuantType::Q6_K, QuantType::Q4_K];

/// Numbers within ±1.
fn floats(rng: &mut Rng, len: usize) -> Vec<f32> {
    (0..len).map(|_| (rng.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
}

fn matrix(k: &Kernels, ty: QuantType) -> PackedMatrix {
    let mut bytes = vec![0; ROWS * ty.row_bytes(DEPTH).expect("whole blocks")];
    quant::encode(ty, &floats(&mut Rng(1), ROWS * DEPTH), &mut bytes).expect("finite");
    k.pack(ty, ROWS, DEPTH, Bytes::from(bytes)).expect("a matrix")
}

/// The words of some tokens.
fn words(k: &Kernels, x: &[f32]) -> Vec<u32> {
    let mut words = vec![0; quantized_words(x.len() / DEPTH, DEPTH).expect("small")];
    ops::quantize(k, x, DEPTH, &mut words).expect("right shapes");
    words
}

fn activations<'a>(w: &PackedMatrix, x: &'a [f32], words: &'a [u32]) -> Activations<'a> {
    match w.activations() {
        ActivationType::F32 => Activations::F32(x),
        ActivationType::Q8 => Activations::Q8(words),
    }
}

#[test]
fn products_are_weighted_and_added_one_by_one() {
    for k in Isa::available().map(|isa| Kernels::with_isa(isa).expect("available")) {
        // Encoding takes miri minutes.
        let formats = FORMATS.into_iter().take(if cfg!(miri) { 2 } else { FORMATS.len() });
        for w in formats.map(|ty| matrix(&k, ty)) {
            for count in [5, 0, 1, 2, 4, 8, 9, 33].into_iter().take(if cfg!(miri) { 1 } else { 8 }) {
                let mut rng = Rng(count as u64);
                let (mut x, before) = (floats(&mut rng, count * DEPTH), floats(&mut rng, BATCH * PART.len()));
                if count > 4 {
                    // Of no use where inputs are rounded, nor elsewhere.
                    x[3 * DEPTH + 1] = f32::NAN;
                }
                let to: Vec<(usize, f32)> = (0..count).map(|i| (7 * i % BATCH, 0.25 + i as f32 / 7.0)).collect();
                let words = words(&k, &x);
                let x = activations(&w, &x, &words);

                let mut products = vec![0.0; count * PART.len()];
                let mut tile = Tile::new(&mut products, count, PART.len()).expect("right length");
                ops::matmul(&k, &w, PART, x, Store::Set, &mut tile).expect("right shapes");
                let mut expected = before.clone();
                for (&(token, weight), products) in to.iter().zip(products.chunks_exact(PART.len())) {
                    let row = &mut expected[token * PART.len()..][..PART.len()];
                    row.iter_mut().zip(products).for_each(|(out, product)| *out += weight * product);
                }

                let mut found = before;
                let mut tile = Tile::new(&mut found, BATCH, PART.len()).expect("right length");
                ops::matmul_scatter(&k, &w, PART, x, &to, &mut tile).expect("right shapes");
                for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
                    assert!(same, "{} {:?} {count} {i}: {found} {expected}", k.isa().name(), w.layout());
                }
            }
        }
    }
}

#[test]
fn a_token_that_is_not_there_is_an_error() {
    let k = Kernels::detect();
    let w = matrix(&k, QuantType::Q4_0);
    let x = [0.5; 2 * DEPTH];
    let words = words(&k, &x);
    let x = activations(&w, &x, &words);
    let mut out = [0.0; 3 * ROWS];
    let mut tile = Tile::new(&mut out, 3, ROWS).expect("right length");
    let mut scatter =
        |to: &[(usize, f32)]| ops::matmul_scatter(&k, &w, 0..ROWS, x, to, &mut tile).expect_err("refused");
    let found = scatter(&[(0, 1.0), (3, 1.0)]);
    assert_eq!(found, KernelError::OutOfRange { what: "token", limit: 3, found: 3 });
    assert!(matches!(scatter(&[(0, 1.0)]), KernelError::ShapeMismatch { .. }));
    assert!(out.iter().all(|&value| value == 0.0));
}

/// Tokens copied are those rounded from copied inputs, bit for bit, in whatever windows they are copied.
#[test]
fn gathered_tokens_are_those_rounded_in_that_order() {
    let k = Kernels::detect();
    for tokens in [1, 3, 4, 6, 9] {
        let mut x = floats(&mut Rng(tokens as u64), tokens * DEPTH);
        x[tokens / 2 * DEPTH + 5] = f32::INFINITY;
        let all = words(&k, &x);
        for count in [0, 1, 2, 4, 5, 8, 11] {
            let from: Vec<usize> = (0..count).map(|i| 5 * i % tokens).collect();
            let rows: Vec<f32> = from.iter().flat_map(|&token| x[token * DEPTH..][..DEPTH].iter().copied()).collect();
            let mut found = vec![u32::MAX; quantized_words(count, DEPTH).expect("small")];
            QuantTile::new(&mut found, count, DEPTH).expect("right length");
            for groups in [0..3, 3..8] {
                // SAFETY: the words of `count` tokens, of which this window is in use only.
                let mut window = unsafe { QuantTile::from_raw(found.as_mut_ptr(), count, DEPTH, groups) };
                ops::gather(&all, tokens, DEPTH, from.iter().copied(), &mut window).expect("right shapes");
            }
            assert_eq!(found, words(&k, &rows), "{from:?} of {tokens}");
        }
    }
}

#[test]
fn a_token_that_cannot_be_gathered_is_an_error() {
    let all = words(&Kernels::detect(), &[0.5; 2 * DEPTH]);
    let mut out = vec![0; quantized_words(2, DEPTH).expect("small")];
    let mut out = QuantTile::new(&mut out, 2, DEPTH).expect("right length");
    let mut gather = |x, depth, from: &[usize]| ops::gather(x, 2, depth, from.iter().copied(), &mut out);
    assert_eq!(gather(&all, DEPTH, &[1, 1]), Ok(()));
    let found = gather(&all, DEPTH, &[0, 2]);
    assert_eq!(found, Err(KernelError::OutOfRange { what: "token", limit: 2, found: 2 }));
    assert!(matches!(gather(&all, DEPTH, &[0]), Err(KernelError::ShapeMismatch { .. })));
    assert!(matches!(gather(&all[1..], DEPTH, &[0, 1]), Err(KernelError::ShapeMismatch { .. })));
    let half = &all[..quantized_words(2, DEPTH / 2).expect("small")];
    assert!(matches!(gather(half, DEPTH / 2, &[0, 1]), Err(KernelError::ShapeMismatch { .. })));
}

/// Says that it gives `said` tokens, gives more of them, and of another number than its clone.
struct Liar {
    said: usize,
    left: usize,
    token: usize,
    of_clone: usize,
}

impl Iterator for Liar {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        Some(self.token)
    }
}

impl ExactSizeIterator for Liar {
    fn len(&self) -> usize {
        self.said
    }
}

impl Clone for Liar {
    fn clone(&self) -> Self {
        Self { token: self.of_clone, ..*self }
    }
}

/// Anybody can write such an iterator, without `unsafe`.
#[test]
fn an_iterator_that_lies_changes_nothing_outside() {
    let mut x = [0.5; 2 * DEPTH];
    x[DEPTH] = f32::NAN;
    let all = words(&Kernels::detect(), &x);
    // Of tokens without inputs there are flags only.
    for (all, depth, said) in [(&[0, 1][..], 0, 2), (&all, DEPTH, 2), (&all, DEPTH, 4)] {
        let len = quantized_words(said, depth).expect("small");
        let gather = |liar| {
            let mut out = vec![7; 8 * len];
            let mut tile = QuantTile::new(&mut out[..len], said, depth).expect("right length");
            let result = ops::gather(all, 2, depth, liar, &mut tile);
            assert!(out[len..].iter().all(|word| *word == 7), "written outside the output");
            result
        };
        // More tokens than it says, all of no use, so that flags are written.
        assert_eq!(gather(Liar { said, left: 9, token: 1, of_clone: 1 }), Ok(()));
        for token in [2, 5, usize::MAX] {
            let found = gather(Liar { said, left: said, token, of_clone: 0 });
            assert_eq!(found, Err(KernelError::OutOfRange { what: "token", limit: 2, found: token }));
        }
    }
}
