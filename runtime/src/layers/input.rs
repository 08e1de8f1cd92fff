//! What projections multiply: the same inputs as they are, and rounded to 8 bits.

use halfbyte_kernels::{ActivationType, Activations, KernelError, PackedMatrix, ops, quantized_words};

use super::{Exec, Linear};
use crate::{
    RuntimeError,
    exec::{Batch, Chunks},
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
    pub(crate) fn new(what: &'static str, batch: usize, width: usize) -> Result<Self, RuntimeError> {
        let words = quantized_words(batch, width).unwrap_or(0);
        Ok(Self { f32: Buffer::zeros(what, [batch, width])?, q8: Buffer::zeros(what, [words, 1])?, width })
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
        let f32 = &self.f32[first * self.width..][..tokens * self.width];
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

    /// Fills in the first `tokens` tokens by `fill(token, row)`, and rounds them if one of `readers` wants that.
    pub(crate) fn fill(
        &mut self,
        exec: Exec<'_>,
        tokens: usize,
        readers: &[&Linear],
        fill: impl Fn(usize, &mut [f32]) -> Result<(), KernelError> + Sync,
    ) -> Result<(), RuntimeError> {
        let rounds = readers.iter().any(|reader| reader.wants_q8());
        let in_tile = |tile: usize| TILE.min(tokens - tile * TILE);
        self.fill_tiles(exec, tokens.div_ceil(TILE), rounds, in_tile, fill)
    }

    /// As [`Inputs::fill`], in tiles of which each has its own number of tokens, at most [`TILE`], in room for as many.
    pub(crate) fn fill_tiles(
        &mut self,
        exec: Exec<'_>,
        tiles: usize,
        rounds: bool,
        in_tile: impl Fn(usize) -> usize + Sync,
        fill: impl Fn(usize, &mut [f32]) -> Result<(), KernelError> + Sync,
    ) -> Result<(), RuntimeError> {
        let (width, word, tile) = (self.width, self.words(1), self.words(TILE));
        let rounds = rounds && word > 0;
        let split = (Chunks::new(&mut self.f32, TILE * width), Chunks::new(&mut self.q8, tile));
        exec.team.run(tiles, TILE * width, split, |tiles, (values, words)| {
            for (i, values) in values.chunks_mut(TILE * width).enumerate() {
                let (first, tokens) = (TILE * (tiles.start + i), in_tile(tiles.start + i));
                let values = &mut values[..tokens * width];
                for (token, values) in (first..).zip(values.chunks_exact_mut(width)) {
                    fill(token, values)?;
                }
                if rounds {
                    ops::quantize(exec.kernels, values, width, &mut words[i * tile..][..tokens * word])?;
                }
            }
            Ok(())
        })
    }

    /// Rounds the first `tokens` tokens as they are, if one of `readers` wants that.
    pub(crate) fn round(&mut self, exec: Exec<'_>, tokens: usize, readers: &[&Linear]) -> Result<(), RuntimeError> {
        if readers.iter().any(|reader| reader.wants_q8()) {
            self.fill(exec, tokens, readers, |_, _| Ok(()))?;
        }
        Ok(())
    }
}
