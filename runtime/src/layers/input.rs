//! What projections multiply: the same inputs as they are, and rounded to 8 bits.

use halfbyte_kernels::{ActivationType, Activations, KernelError, PackedMatrix, ops, quantized_words};

use super::Exec;
use crate::{
    RuntimeError,
    budget::Lease,
    exec::{Batch, Batches, Chunks},
    memory::Buffer,
};

/// Tokens that lie interleaved in 8-bit activations.
pub(crate) const TILE: usize = 4;

/// Inputs of up to a batch of tokens.
pub(crate) struct Inputs {
    /// (batch, width).
    pub(crate) f32: Buffer<f32>,
    /// The same rounded, tiles of [`TILE`] tokens; empty if `width` is not whole groups.
    pub(crate) q8: Buffer<u32>,
    width: usize,
}

/// Inputs of some tokens.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    /// (tokens, width).
    pub(crate) f32: &'a [f32],
    /// The same rounded, if a matrix wanted that.
    pub(crate) q8: &'a [u32],
}

impl<'a> Input<'a> {
    /// What `weight` multiplies.
    pub(crate) fn to(self, weight: &PackedMatrix) -> Activations<'a> {
        match weight.activations() {
            ActivationType::F32 => Activations::F32(self.f32),
            ActivationType::Q8 => Activations::Q8(self.q8),
        }
    }
}

impl Inputs {
    pub(crate) fn new(from: &mut Lease, what: &'static str, batch: usize, width: usize) -> Result<Self, RuntimeError> {
        Self::with_floats(from, what, batch, [width, width])
    }

    /// Inputs of which `floats` elements a token, all or none, are kept as they are.
    pub(crate) fn with_floats(
        from: &mut Lease,
        what: &'static str,
        batch: usize,
        [floats, width]: [usize; 2],
    ) -> Result<Self, RuntimeError> {
        let words = quantized_words(batch, width).unwrap_or(0);
        Ok(Self { f32: Buffer::zeros(from, what, [batch, floats])?, q8: Buffer::zeros(from, what, [words, 1])?, width })
    }

    /// Inputs of a token.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Those of the first `tokens` tokens.
    pub(crate) fn of(&self, tokens: usize) -> Input<'_> {
        self.batch(Batch { first: 0, tokens })
    }

    /// Those of some tokens, if they were rounded apart from those before.
    pub(crate) fn batch(&self, Batch { first, tokens }: Batch) -> Input<'_> {
        let f32 = self.f32.get(first * self.width..(first + tokens) * self.width).unwrap_or(&[]);
        Input { f32, q8: &self.q8[self.words(first)..][..self.words(tokens)] }
    }

    /// The words of the first `tokens` tokens, to be written.
    pub(crate) fn words_mut(&mut self, tokens: usize) -> &mut [u32] {
        let words = self.words(tokens);
        &mut self.q8[..words]
    }

    /// Words of `tokens` tokens; none if there are no words at all.
    fn words(&self, tokens: usize) -> usize {
        if self.q8.is_empty() { 0 } else { quantized_words(tokens, self.width).unwrap_or(0) }
    }

    /// Fills in the first `tokens` tokens by `fill(token, row)`, and rounds them if `rounds`.
    pub(crate) fn fill(
        &mut self,
        exec: Exec<'_>,
        tokens: usize,
        rounds: bool,
        fill: impl Fn(usize, &mut [f32]) -> Result<(), KernelError> + Sync,
    ) -> Result<(), RuntimeError> {
        let (width, words, tile) = (self.width, self.words(tokens), self.words(TILE));
        let rounds = rounds && words > 0;
        let values = Chunks::new(&mut self.f32[..tokens * width], TILE * width);
        let rounded = Chunks::new(&mut self.q8[..words], tile);
        exec.team.run(tokens.div_ceil(TILE), TILE * width, (values, rounded), |tiles, (values, rounded)| {
            for (token, values) in (tiles.start * TILE..).zip(values.chunks_exact_mut(width)) {
                fill(token, values)?;
            }
            if rounds { ops::quantize(exec.kernels, values, width, rounded) } else { Ok(()) }
        })
    }

    /// Rounds the first `tokens` tokens as they are.
    pub(crate) fn round(&mut self, exec: Exec<'_>, tokens: usize) -> Result<(), RuntimeError> {
        self.fill(exec, tokens, true, |_, _| Ok(()))
    }

    /// Rounds batches as they are, each apart.
    pub(crate) fn round_batches(&mut self, exec: Exec<'_>, batches: &[Batch]) -> Result<(), RuntimeError> {
        let (width, word) = (self.width, self.words(1));
        let values = &*self.f32;
        let mut words = Chunks::new(&mut self.q8, word);
        let split = Batches::new(batches, 1, &mut words)?;
        exec.team.run(split.units(), width * Batch::most_tokens(batches), split, |_, mut runs| {
            runs.try_for_each(|(number, _, words)| {
                let Batch { first, tokens } = batches[number];
                ops::quantize(exec.kernels, &values[first * width..][..tokens * width], width, words)
            })
        })
    }
}
