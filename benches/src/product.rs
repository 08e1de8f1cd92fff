//! Products of a weight matrix with tokens: what most benchmarks time.

use halfbyte_kernels::ops::{self, Store};
use halfbyte_kernels::{ActivationType, Activations, Isa, Kernels, PackedMatrix, Tile, quantized_words};

use crate::check::{assert_close, assert_same_bits, nmse};
use crate::{Rng, Weights, kernels};

/// Largest normalised mean square error of a product whose inputs, uniform in -1..1, were rounded to 8 bits.
///
/// The scale of 32 inputs is the smallest power of two that keeps them within ±127, so it is below `2 max / 127` and at
/// most 1/64 here. Rounding errors are uniform in half a scale to each side: a variance of `(1/64)² / 12`. That of the
/// inputs is 1/3. Both pass through the same weights, so the expected ratio is at most `3 / 12 / 64² = 6.1e-5`, and
/// three times that leaves room for chance where outputs are few.
pub const ROUNDED: f64 = 2e-4;

/// Sizes of a product `(tokens, rows) = (tokens, depth) × (rows, depth)ᵀ`.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Outputs of a token.
    pub rows: usize,
    /// Inputs of a token.
    pub depth: usize,
    /// Tokens.
    pub tokens: usize,
}

impl Shape {
    /// Multiplications, each with its addition.
    pub fn multiplications(&self) -> u64 {
        (self.rows * self.depth * self.tokens) as u64
    }

    /// `rows=4096,depth=4096,tokens=64`, without the last for one token.
    pub fn id(&self) -> String {
        let Self { rows, depth, tokens } = self;
        if *tokens == 1 {
            format!("rows={rows},depth={depth}")
        } else {
            format!("rows={rows},depth={depth},tokens={tokens}")
        }
    }
}

/// Weights as a tier holds them, inputs as the weights take them, and room for the result.
#[derive(Debug)]
pub struct Product {
    k: Kernels,
    shape: Shape,
    w: PackedMatrix,
    x: Vec<f32>,
    /// `x` in 8 bits; empty if the weights take it as it is.
    words: Vec<u32>,
    out: Vec<f32>,
}

impl Product {
    /// `weights` on the tier of `k`, with seeded inputs.
    ///
    /// # Panics
    /// If weights and shape do not fit.
    pub fn new(k: Kernels, shape: Shape, weights: &Weights) -> Self {
        Self::with_inputs(k, shape, weights, Rng(2).floats(shape.tokens * shape.depth))
    }

    /// The same with inputs `x: (tokens, depth)`.
    ///
    /// # Panics
    /// If weights, inputs and shape do not fit.
    pub fn with_inputs(k: Kernels, shape: Shape, weights: &Weights, x: Vec<f32>) -> Self {
        let w = weights.matrix(&k);
        let words = match w.activations() {
            ActivationType::F32 => 0,
            ActivationType::Q8 => quantized_words(shape.tokens, shape.depth).expect("whole groups"),
        };
        let out = vec![0.0; shape.tokens * shape.rows];
        let mut product = Self { k, shape, w, x, words: vec![0; words], out };
        product.round();
        product
    }

    /// Rounds the inputs, if these weights take them in 8 bits.
    pub fn round(&mut self) {
        if self.w.activations() == ActivationType::Q8 {
            ops::quantize(&self.k, &self.x, self.shape.depth, &mut self.words).expect("right shapes");
        }
    }

    /// The product of the inputs as last rounded.
    pub fn run(&mut self) {
        let x = match self.w.activations() {
            ActivationType::F32 => Activations::F32(&self.x),
            ActivationType::Q8 => Activations::Q8(&self.words),
        };
        let mut out = Tile::new(&mut self.out, self.shape.tokens, self.shape.rows).expect("right length");
        ops::matmul(&self.k, &self.w, 0..self.shape.rows, x, Store::Set, &mut out).expect("right shapes");
    }

    /// The result of the last [`run`](Self::run): `(tokens, rows)`.
    pub fn out(&self) -> &[f32] {
        &self.out
    }

    /// The bits of the result.
    fn bits(&self) -> Vec<u32> {
        self.out.iter().map(|x| x.to_bits()).collect()
    }

    /// Compares the products of every tier, and of every arrangement of these weights, with the scalar product of their
    /// values in f32: with 8-bit inputs within what rounding these costs, and the same bits everywhere; with inputs as
    /// they are within 1e-4 of the largest element.
    ///
    /// # Panics
    /// If one is another product.
    pub fn check_tiers(shape: Shape, weights: &Weights) {
        let run = |k, weights: &Weights| {
            let mut product = Self::new(k, shape, weights);
            product.run();
            product
        };
        let expected = run(Kernels::with_isa(Isa::Scalar).expect("everywhere"), &weights.decoded());
        let mut rounded: Option<Vec<u32>> = None;
        for k in kernels() {
            for weights in [Some(weights), weights.packed().as_ref()].into_iter().flatten() {
                let product = run(k, weights);
                match product.w.activations() {
                    ActivationType::F32 => assert_close(&k, product.out(), expected.out()),
                    ActivationType::Q8 => {
                        let error = nmse(product.out(), expected.out());
                        assert!(error <= ROUNDED, "{}: NMSE {error:.1e} is above {ROUNDED:.0e}", k.isa().name());
                        let bits = product.bits();
                        assert_same_bits(k.isa().name(), &bits, rounded.as_ref().unwrap_or(&bits));
                        rounded.get_or_insert(bits);
                    }
                }
            }
        }
    }
}
