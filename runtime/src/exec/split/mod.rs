//! Outputs of a step cut into the parts that its threads write.
//!
//! A step is a number of units; threads take ranges of them. A [`Split`] says which part of a buffer belongs to a
//! range, so that the body of a step gets ordinary mutable slices and tiles.

#![expect(unsafe_code, reason = "disjoint parts of one borrowed buffer; each block has its proof")]

mod batch;
mod matrix;
mod pages;

use std::{marker::PhantomData, ops::Range, slice};

use batch::Stack;

pub(crate) use batch::{Batch, Batches};
pub(crate) use matrix::{Grid, Groups, Rows};
pub(crate) use pages::{HalvesOfHeads, MAX_BATCH, PageParts};

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

// SAFETY: runs do not overlap, and a run has one unit.
unsafe impl<'a, T: Send> Stack for Chunks<'a, T> {
    type Part = &'a mut [T];

    /// One a run.
    fn tokens(&self) -> usize {
        self.buffer.len.checked_div(self.len).unwrap_or(0)
    }

    unsafe fn part_of(&self, Batch { first, tokens }: Batch, units: Range<usize>) -> &'a mut [T] {
        let tokens = if units.contains(&0) { tokens } else { 0 };
        // SAFETY: nobody has another part of these runs, which are all that these elements are in.
        unsafe { self.buffer.slice(first * self.len..(first + tokens) * self.len) }
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
    pub(super) fn cuts(units: usize) -> impl Iterator<Item = Range<usize>> {
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
