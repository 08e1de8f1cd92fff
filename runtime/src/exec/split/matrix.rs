//! Matrices of a batch of tokens, cut by columns: the rows of a product, or the inputs of the next one.

use std::ops::Range;

use halfbyte_kernels::{KernelError, QuantTile, Tile, quantized_words};

use super::{Batch, Buffer, Split, batch::Stack};

/// A matrix `(tokens, rows)` cut by columns, which are the rows of a product: unit `i` is rows `i · unit..(i + 1) ·
/// unit`.
pub(crate) struct Rows<'a> {
    buffer: Buffer<'a, f32>,
    tokens: usize,
    rows: usize,
    unit: usize,
}

impl<'a> Rows<'a> {
    /// Rows that kernels like to compute together: three panels.
    pub(crate) const UNIT: usize = 48;

    /// `out: (tokens, rows)`, `unit > 0`.
    pub(crate) fn new(out: &'a mut [f32], rows: usize, unit: usize) -> Self {
        let tokens = out.len().checked_div(rows).unwrap_or(0);
        Self { buffer: Buffer::new(out), tokens, rows, unit }
    }

    pub(crate) fn units(&self) -> usize {
        self.rows.div_ceil(self.unit)
    }
}

// SAFETY: ranges of columns do not overlap.
unsafe impl<'a> Split for Rows<'a> {
    type Part = Tile<'a>;

    unsafe fn part(&self, units: Range<usize>) -> Tile<'a> {
        // SAFETY: the batch is all there is.
        unsafe { self.part_of(Batch { first: 0, tokens: self.tokens }, units) }
    }
}

// SAFETY: ranges of columns do not overlap, nor do the rows of batches that do not.
unsafe impl<'a> Stack for Rows<'a> {
    type Part = Tile<'a>;

    fn tokens(&self) -> usize {
        self.tokens
    }

    unsafe fn part_of(&self, Batch { first, tokens }: Batch, units: Range<usize>) -> Tile<'a> {
        let (start, end) = ((units.start * self.unit).min(self.rows), (units.end * self.unit).min(self.rows));
        let tokens = if start < end { tokens } else { 0 };
        // SAFETY: the buffer has `self.tokens * rows` elements and the batch lies inside; `start < rows`, or nothing is
        // pointed at.
        let first = unsafe { self.buffer.start.add(if tokens == 0 { 0 } else { first * self.rows + start }) };
        // SAFETY: columns `start..end` of the `tokens` rows of the batch, `rows` apart, in a buffer that is borrowed
        // mutably for as long; nobody has another part of these units.
        unsafe { Tile::from_raw(first, tokens, end - start, self.rows) }
    }
}

/// A matrix `(tokens, columns)` cut both ways: unit `i` is block `i / n` of tokens and block `i % n` of columns, for
/// `n` blocks of columns, which must be whole. A part is that of a single unit.
pub(crate) struct Grid<'a> {
    buffer: Buffer<'a, f32>,
    tokens: usize,
    columns: usize,
    block: [usize; 2],
}

impl<'a> Grid<'a> {
    /// Blocks of `block: (tokens, columns)`, neither 0.
    pub(crate) fn new(out: &'a mut [f32], columns: usize, block: [usize; 2]) -> Self {
        let tokens = out.len().checked_div(columns).unwrap_or(0);
        Self { buffer: Buffer::new(out), tokens, columns, block }
    }

    pub(crate) fn units(&self) -> usize {
        self.tokens.div_ceil(self.block[0]) * (self.columns / self.block[1])
    }
}

// SAFETY: blocks do not overlap.
unsafe impl<'a> Split for Grid<'a> {
    type Part = Tile<'a>;

    unsafe fn part(&self, units: Range<usize>) -> Tile<'a> {
        let ([height, width], n) = (self.block, self.columns / self.block[1]);
        let (first, column) = (units.start / n * height, units.start % n * width);
        let tokens = height.min(self.tokens.saturating_sub(first));
        let start = if tokens == 0 { 0 } else { first * self.columns + column };
        // SAFETY: the first element of the block, or the start of the buffer if there is no such block.
        let first = unsafe { self.buffer.start.add(start) };
        // SAFETY: `tokens` rows of the buffer from `first` on, and whole blocks of columns, so the window is inside;
        // the buffer is borrowed mutably for as long and nobody has another part of this unit.
        unsafe { Tile::from_raw(first, tokens, width, self.columns) }
    }
}

/// A batch of 8-bit activations cut by inputs: unit `i` is inputs `i · unit..(i + 1) · unit`.
pub(crate) struct Groups<'a> {
    buffer: Buffer<'a, u32>,
    tokens: usize,
    /// Words of a token.
    words: usize,
    depth: usize,
    unit: usize,
}

impl<'a> Groups<'a> {
    /// Inputs of a group.
    const GROUP: usize = 32;

    /// `words: quantized_words(tokens, depth)`, all tokens declared to be of use; `unit` is whole groups.
    ///
    /// # Errors
    /// [`KernelError::ShapeMismatch`] if `words` has another length.
    pub(crate) fn new(words: &'a mut [u32], tokens: usize, depth: usize, unit: usize) -> Result<Self, KernelError> {
        // Clears the flags, and checks the length.
        QuantTile::new(words, tokens, depth)?;
        Ok(Self { tokens, words: quantized_words(1, depth)?, buffer: Buffer::new(words), depth, unit })
    }

    /// The words of `list`, each batch apart; else as [`Groups::new`].
    ///
    /// # Errors
    /// As [`Groups::new`], or [`KernelError::OutOfRange`] if a batch is not inside.
    pub(crate) fn stacked(
        words: &'a mut [u32],
        list: &[Batch],
        depth: usize,
        unit: usize,
    ) -> Result<Self, KernelError> {
        let (one, limit) = (quantized_words(1, depth)?, words.len());
        for &Batch { first, tokens } in list {
            let (start, found) = (first.saturating_mul(one), first.saturating_add(tokens).saturating_mul(one));
            let words = words.get_mut(start..found);
            let words = words.ok_or(KernelError::OutOfRange { what: "batch", limit, found })?;
            QuantTile::new(words, tokens, depth)?;
        }
        Ok(Self { tokens: limit / one, words: one, buffer: Buffer::new(words), depth, unit })
    }

    pub(crate) fn units(&self) -> usize {
        self.depth.div_ceil(self.unit)
    }
}

// SAFETY: ranges of groups do not overlap; flags are shared atomically.
unsafe impl<'a> Split for Groups<'a> {
    type Part = QuantTile<'a>;

    unsafe fn part(&self, units: Range<usize>) -> QuantTile<'a> {
        // SAFETY: the batch is all there is.
        unsafe { self.part_of(Batch { first: 0, tokens: self.tokens }, units) }
    }
}

// SAFETY: ranges of groups do not overlap, nor do the words of batches that do not; flags are shared atomically.
unsafe impl<'a> Stack for Groups<'a> {
    type Part = QuantTile<'a>;

    fn tokens(&self) -> usize {
        self.tokens
    }

    unsafe fn part_of(&self, Batch { first, tokens }: Batch, units: Range<usize>) -> QuantTile<'a> {
        let group = |unit: usize| (unit * self.unit).min(self.depth) / Self::GROUP;
        let groups = group(units.start)..group(units.end);
        // SAFETY: the batch lies inside the buffer, which has words for `self.tokens` tokens.
        let words = unsafe { self.buffer.start.add(first * self.words) };
        // SAFETY: there are the words of `tokens` tokens of `depth` inputs, in a buffer that is borrowed mutably for as
        // long; nobody has another part of these units.
        unsafe { QuantTile::from_raw(words, tokens, self.depth, groups) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_the_matrix_once() {
        for (tokens, columns, block) in
            [(1, 4, [1, 4]), (5, 12, [2, 3]), (16, 8, [16, 1]), (3, 6, [4, 2]), (0, 6, [1, 2])]
        {
            let mut out = vec![0.0; tokens * columns];
            let split = Grid::new(&mut out, columns, block);
            for unit in 0..split.units() {
                // SAFETY: one call a unit, and the split is used here only.
                let mut tile = unsafe { split.part(unit..unit + 1) };
                assert!((1..=block[0]).contains(&tile.tokens()) && tile.rows() == block[1]);
                for token in 0..tile.tokens() {
                    tile.row_mut(token).iter_mut().for_each(|v| *v += 1.0);
                }
            }
            assert!(out.iter().all(|&v| v == 1.0), "{tokens} {columns} {block:?}");
        }
    }
}
