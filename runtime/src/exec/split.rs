//! Outputs of a step cut into the parts that its threads write.
//!
//! A step is a number of units; threads take ranges of them. A [`Split`] says which part of a buffer belongs to a range,
//! so that the body of a step gets ordinary mutable slices and tiles.

#![expect(unsafe_code, reason = "disjoint parts of one borrowed buffer; each block has its proof")]

use std::{marker::PhantomData, ops::Range, ptr, slice};

use halfbyte_kernels::{KV_PAGE, KernelError, QuantTile, Tile};

/// Something that is written in parts, by range of units.
///
/// # Safety
/// Parts of disjoint ranges are disjoint, and can be used from different threads at once.
pub(crate) unsafe trait Split: Sync {
    /// What a thread writes.
    type Part;

    /// The part of `units`.
    ///
    /// # Safety
    /// A unit is in one part only, for as long as the split lives.
    unsafe fn part(&self, units: Range<usize>) -> Self::Part;
}

/// A buffer borrowed mutably, of which threads make disjoint parts.
struct Buffer<'a, T> {
    start: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

impl<'a, T> Buffer<'a, T> {
    fn new(buffer: &'a mut [T]) -> Self {
        Self { start: buffer.as_mut_ptr(), len: buffer.len(), borrow: PhantomData }
    }

    /// The elements of `range`, cut at the end of the buffer.
    ///
    /// # Safety
    /// While they are in use, nothing else uses one of them.
    unsafe fn slice(&self, range: Range<usize>) -> &'a mut [T] {
        let (start, end) = (range.start.min(self.len), range.end.min(self.len));
        // SAFETY: `start <= len`, so the result is inside the buffer or at its end.
        let first = unsafe { self.start.add(start) };
        // SAFETY: the elements lie inside a buffer that is borrowed mutably for as long, and nothing else uses them.
        unsafe { slice::from_raw_parts_mut(first, end.saturating_sub(start)) }
    }
}

// SAFETY: the pointer is used to form disjoint parts of a buffer that is borrowed mutably for as long; they go to other
// threads as `&mut [T]` does.
unsafe impl<T: Send> Sync for Buffer<'_, T> {}

/// A slice in runs of `len`, the last of which may be shorter: unit `i` is run `i`.
pub(crate) struct Chunks<'a, T> {
    buffer: Buffer<'a, T>,
    len: usize,
}

impl<'a, T> Chunks<'a, T> {
    pub(crate) fn new(buffer: &'a mut [T], len: usize) -> Self {
        Self { buffer: Buffer::new(buffer), len }
    }
}

// SAFETY: runs do not overlap.
unsafe impl<'a, T: Send> Split for Chunks<'a, T> {
    type Part = &'a mut [T];

    unsafe fn part(&self, units: Range<usize>) -> &'a mut [T] {
        let run = units.start.saturating_mul(self.len)..units.end.saturating_mul(self.len);
        // SAFETY: nobody has another part of these units, which are all that these elements are in.
        unsafe { self.buffer.slice(run) }
    }
}

/// A matrix `(tokens, rows)` cut by columns, which are the rows of a product: unit `i` is rows `i · unit..(i + 1) · unit`.
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
        let (start, end) = ((units.start * self.unit).min(self.rows), (units.end * self.unit).min(self.rows));
        let tokens = if start < end { self.tokens } else { 0 };
        // SAFETY: the buffer has `tokens * rows` elements; `start < rows`, or nothing is pointed at.
        let first = unsafe { self.buffer.start.add(if tokens == 0 { 0 } else { start }) };
        // SAFETY: columns `start..end` of the `tokens` rows of the buffer, `rows` apart, which is borrowed mutably for as
        // long; nobody has another part of these units.
        unsafe { Tile::from_raw(first, tokens, end - start, self.rows) }
    }
}

/// A matrix `(tokens, columns)` cut both ways: unit `i` is block `i / n` of tokens and block `i % n` of columns, for `n` blocks
/// of columns, which must be whole. A part is that of a single unit.
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
        // SAFETY: `tokens` rows of the buffer from `first` on, and whole blocks of columns, so the window is inside; the
        // buffer is borrowed mutably for as long and nobody has another part of this unit.
        unsafe { Tile::from_raw(first, tokens, width, self.columns) }
    }
}

/// A batch of 8-bit activations cut by inputs: unit `i` is inputs `i · unit..(i + 1) · unit`.
pub(crate) struct Groups<'a> {
    buffer: Buffer<'a, u32>,
    tokens: usize,
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
        Ok(Self { buffer: Buffer::new(words), tokens, depth, unit })
    }

    pub(crate) fn units(&self) -> usize {
        self.depth.div_ceil(self.unit)
    }
}

// SAFETY: ranges of groups do not overlap; flags are shared atomically.
unsafe impl<'a> Split for Groups<'a> {
    type Part = QuantTile<'a>;

    unsafe fn part(&self, units: Range<usize>) -> QuantTile<'a> {
        let group = |unit: usize| (unit * self.unit).min(self.depth) / Self::GROUP;
        let groups = group(units.start)..group(units.end);
        // SAFETY: the buffer has the words of `tokens` tokens of `depth` inputs, checked in `new`, and is borrowed mutably
        // for as long; nobody has another part of these units.
        unsafe { QuantTile::from_raw(self.buffer.start, self.tokens, self.depth, groups) }
    }
}

/// Most tokens of a pass.
pub(crate) const MAX_BATCH: usize = 4096;

/// Most pages that they lie in.
const MAX_PAGES: usize = MAX_BATCH / KV_PAGE + 1;

/// Pages of the cache that a step writes: the bytes of one layer of each, `(kv_heads, 2, half)`.
pub(crate) struct PageParts<'a> {
    /// Number of the first page.
    first: usize,
    /// Where each of the pages begins, in the order of their numbers; `len` are used.
    starts: [*mut u8; MAX_PAGES],
    len: usize,
    /// Bytes of each.
    bytes: usize,
    borrow: PhantomData<&'a mut [u8]>,
}

// SAFETY: the pointers are used to form disjoint parts of pages that are borrowed mutably for as long; they go to other
// threads as `&mut [u8]` does.
unsafe impl Sync for PageParts<'_> {}

impl<'a> PageParts<'a> {
    /// No pages; the first one will have number `first`.
    pub(crate) fn new(first: usize) -> Self {
        Self { first, starts: [ptr::null_mut(); MAX_PAGES], len: 0, bytes: 0, borrow: PhantomData }
    }

    /// Adds the next page, of the same size as the others.
    ///
    /// # Errors
    /// [`KernelError::ShapeMismatch`] if it has another size, [`KernelError::OutOfRange`] if a pass has no more.
    pub(crate) fn push(&mut self, page: &'a mut [u8]) -> Result<(), KernelError> {
        if self.len > 0 && page.len() != self.bytes {
            return Err(KernelError::ShapeMismatch { what: "kv page", expected: self.bytes, found: page.len() });
        }
        let past = KernelError::OutOfRange { what: "kv pages of a pass", limit: MAX_PAGES, found: self.len + 1 };
        *self.starts.get_mut(self.len).ok_or(past)? = page.as_mut_ptr();
        (self.len, self.bytes) = (self.len + 1, page.len());
        Ok(())
    }

    /// The keys and the values, halves of `half` bytes; unit `i` of each is key-value head `i`, in all pages.
    pub(crate) fn halves(&mut self, half: usize) -> [Halves<'_>; 2] {
        let pages = &*self;
        [0, 1].map(|part| Halves { pages, half, part })
    }
}

/// The keys, or the values, of pages. The two of a kind are made together, from a unique borrow of the pages.
pub(crate) struct Halves<'a> {
    pages: &'a PageParts<'a>,
    half: usize,
    part: usize,
}

// SAFETY: halves do not overlap, and those of different heads are different.
unsafe impl<'a> Split for Halves<'a> {
    type Part = HalvesOfHeads<'a>;

    unsafe fn part(&self, heads: Range<usize>) -> HalvesOfHeads<'a> {
        let Self { pages, half, part } = *self;
        HalvesOfHeads { pages, half, part, heads }
    }
}

/// The keys, or the values, of some heads.
pub(crate) struct HalvesOfHeads<'a> {
    pages: &'a PageParts<'a>,
    half: usize,
    part: usize,
    heads: Range<usize>,
}

impl HalvesOfHeads<'_> {
    /// Those of head number `head` of these in page `page`; nothing if there is no such one.
    pub(crate) fn half(&mut self, page: usize, head: usize) -> &mut [u8] {
        let Self { pages, half, part, .. } = *self;
        let start = page.checked_sub(pages.first).and_then(|n| pages.starts.get(..pages.len)?.get(n).copied());
        let at = (2 * (self.heads.start + head) + part) * half;
        let (Some(start), true) = (start, head < self.heads.len() && at + half <= pages.bytes) else { return &mut [] };
        // SAFETY: `at + half <= pages.bytes`, the size of the page.
        let first = unsafe { start.add(at) };
        // SAFETY: these bytes lie in a page that is borrowed mutably for as long as `pages` lives. They are this half of this
        // head's; nobody else has another part of the head, and `&mut self` lends out one half at a time.
        unsafe { slice::from_raw_parts_mut(first, half) }
    }
}

/// A split that has some of the units: its unit 0 is unit `units.start` of the step.
pub(crate) struct Window<S> {
    units: Range<usize>,
    inner: S,
}

impl<S> Window<S> {
    pub(crate) fn new(units: Range<usize>, inner: S) -> Self {
        Self { units, inner }
    }
}

// SAFETY: the inner parts of disjoint ranges are those of disjoint ranges.
unsafe impl<S: Split> Split for Window<S> {
    /// The units of the inner split, if there are any, and their part.
    type Part = Option<(Range<usize>, S::Part)>;

    unsafe fn part(&self, units: Range<usize>) -> Self::Part {
        let (start, end) = (units.start.max(self.units.start), units.end.min(self.units.end));
        let units = (start < end).then(|| start - self.units.start..end - self.units.start)?;
        // SAFETY: nobody has another part of the outer units.
        Some((units.clone(), unsafe { self.inner.part(units) }))
    }
}

// SAFETY: as the members say.
unsafe impl<A: Split, B: Split> Split for (A, B) {
    type Part = (A::Part, B::Part);

    unsafe fn part(&self, units: Range<usize>) -> Self::Part {
        // SAFETY: the contract is the same.
        let first = unsafe { self.0.part(units.clone()) };
        // SAFETY: the contract is the same.
        (first, unsafe { self.1.part(units) })
    }
}

// SAFETY: as the members say.
unsafe impl<A: Split, B: Split, C: Split> Split for (A, B, C) {
    type Part = (A::Part, B::Part, C::Part);

    unsafe fn part(&self, units: Range<usize>) -> Self::Part {
        // SAFETY: the contract is the same.
        let first = unsafe { self.0.part(units.clone()) };
        // SAFETY: the contract is the same.
        let second = unsafe { self.1.part(units.clone()) };
        // SAFETY: the contract is the same.
        (first, second, unsafe { self.2.part(units) })
    }
}

/// Nothing to write.
// SAFETY: there are no parts.
unsafe impl Split for () {
    type Part = ();

    unsafe fn part(&self, _: Range<usize>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ranges that cut `0..units` and go past its end.
    fn cuts(units: usize) -> impl Iterator<Item = Range<usize>> {
        (0..=units).step_by(2).map(|start| start..start + 2).chain(std::iter::once(units + 2..units + 9))
    }

    #[test]
    fn parts_cover_the_buffer_once() {
        for (tokens, rows, unit) in [(0, 0, 1), (0, 5, 2), (1, 1, 3), (2, 33, 16), (3, 16, 16), (4, 7, 1)] {
            let len = tokens * rows;
            let (mut a, mut b) = (vec![0.0; len], vec![0_u8; len]);
            let split = (Rows::new(&mut a, rows, unit), Chunks::new(&mut b, unit), ());
            for range in cuts(len.max(split.0.units())) {
                // SAFETY: the ranges are disjoint, and the split is used here only.
                let (mut tile, run, ()) = unsafe { split.part(range) };
                for token in 0..tile.tokens() {
                    tile.row_mut(token).iter_mut().for_each(|v| *v += 1.0);
                }
                run.iter_mut().for_each(|v| *v += 1);
            }
            assert!(a.iter().all(|&v| v == 1.0) && b.iter().all(|&v| v == 1), "{tokens} {rows} {unit}");
        }
    }

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

    #[test]
    fn halves_cover_pages_once() {
        let (heads, half) = (5, 3);
        let mut other = [0; 4];
        let mut memory = vec![vec![0_u8; heads * 2 * half]; 3];
        let mut pages = PageParts::new(7);
        for page in &mut memory {
            pages.push(page).expect("the same size");
        }
        assert!(pages.push(&mut other).is_err());
        let split: (Halves<'_>, Halves<'_>) = pages.halves(half).into();
        for range in cuts(heads) {
            // SAFETY: the ranges are disjoint, and the split is used here only.
            let (mut keys, mut values) = unsafe { split.part(range.clone()) };
            for page in 0..12 {
                for head in 0..range.len() + 1 {
                    let inside = (7..10).contains(&page) && head < range.len() && range.start + head < heads;
                    for (part, halves) in [&mut keys, &mut values].into_iter().enumerate() {
                        let bytes = halves.half(page, head);
                        assert_eq!(bytes.len(), if inside { half } else { 0 });
                        bytes.iter_mut().for_each(|x| *x += 1 + (2 * (range.start + head) + part) as u8);
                    }
                }
            }
        }
        for page in memory {
            let expected = (0..2 * heads as u8).flat_map(|n| [n + 1; 3]);
            assert!(page.into_iter().eq(expected));
        }
    }

    #[test]
    fn a_window_shifts_units() {
        let mut out = [0_u32; 10];
        let split = (Window::new(0..2, ()), Window::new(2..7, Chunks::new(&mut out, 2)));
        for range in [0..1, 1..4, 4..5, 5..9] {
            // SAFETY: the ranges are disjoint, and the split is used here only.
            let (before, part) = unsafe { split.part(range.clone()) };
            assert_eq!(before.map(|(units, ())| units), (range.start < 2).then(|| range.start..range.end.min(2)));
            let Some((units, part)) = part else {
                assert_eq!(range, 0..1);
                continue;
            };
            assert_eq!(units, range.start.max(2) - 2..range.end.min(7) - 2);
            part.fill(u32::try_from(range.start).expect("small"));
        }
        assert_eq!(out, [1, 1, 1, 1, 4, 4, 5, 5, 5, 5]);
    }
}
