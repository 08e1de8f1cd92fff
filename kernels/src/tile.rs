//! The one piece of `unsafe` data access of this crate: a window of rows in a larger output matrix.
//!
//! Threads that split a product by rows write interleaved parts of one `(tokens, stride)` buffer. No safe slice
//! describes such a part, so a [`Tile`] holds a pointer and gives out one row of the window at a time.

use std::{marker::PhantomData, slice};

use crate::error::{KernelError, product, same_len};

/// A mutable `(tokens, rows)` window of a larger `(tokens, stride)` `f32` matrix: the share of one thread.
///
/// ```text
///           <- stride ------------------->
///  token 0  . . . . [ rows ] . . . . . . .
///  token 1  . . . . [ rows ] . . . . . . .
///                   ^ ptr
/// ```
#[derive(Debug)]
pub struct Tile<'a> {
    ptr: *mut f32,
    tokens: usize,
    rows: usize,
    stride: usize,
    out: PhantomData<&'a mut [f32]>,
}

// SAFETY: a `Tile` is the only access to its window for `'a` (by `new`: a unique borrow; by `from_raw`: its contract),
// exactly like the `&mut [f32]`s it hands out, which are `Send` because `f32` is.
unsafe impl Send for Tile<'_> {}

impl<'a> Tile<'a> {
    /// The whole of `out: (tokens, rows)`, contiguous.
    ///
    /// # Errors
    /// [`KernelError::ShapeMismatch`] if `out` has another length.
    pub fn new(out: &'a mut [f32], tokens: usize, rows: usize) -> Result<Self, KernelError> {
        same_len("tile", product("tile", tokens, rows)?, out.len())?;
        Ok(Self { ptr: out.as_mut_ptr(), tokens, rows, stride: rows, out: PhantomData })
    }

    /// The window that starts at `ptr`: `rows` elements of each of `tokens` rows that lie `stride` elements apart.
    ///
    /// # Safety
    /// For as long as the tile lives:
    /// - for every `t < tokens`, the `rows` elements from `ptr + t * stride` lie in one allocation with `ptr`, are
    ///   initialised and may be written through `ptr`;
    /// - nothing else reads or writes those elements (other tiles of the same matrix cover other elements);
    /// - `rows <= stride`, or `tokens <= 1`.
    pub unsafe fn from_raw(ptr: *mut f32, tokens: usize, rows: usize, stride: usize) -> Self {
        Self { ptr, tokens, rows, stride, out: PhantomData }
    }

    /// Tokens: the rows of the output matrix.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Weight rows: the width of the window.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The [`rows`](Self::rows) elements of `token`; empty if there is no such token.
    pub fn row_mut(&mut self, token: usize) -> &mut [f32] {
        if token >= self.tokens || self.rows == 0 {
            return &mut [];
        }
        // SAFETY: `token < tokens` and `rows > 0`, so the target is the first element of a row of the window, which
        // lies in the same allocation as `ptr`: in `new` because `token * rows < out.len()`, in `from_raw` by its
        // first bullet. An allocation is at most `isize::MAX` bytes, so the product does not wrap.
        let row = unsafe { self.ptr.add(token * self.stride) };
        // SAFETY: the `rows` elements from there are initialised and writable, and the tile is their only access (a
        // unique borrow in `new`, the first two bullets of `from_raw`); `&mut self` lends out one row at a time.
        unsafe { slice::from_raw_parts_mut(row, self.rows) }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::Tile;

    /// Three threads fill the windows of one matrix, as the runtime's do.
    #[test]
    fn windows_of_one_matrix() {
        const TOKENS: usize = 3;
        const STRIDE: usize = 7;
        let mut matrix = [0.0f32; TOKENS * STRIDE];
        let ptr = matrix.as_mut_ptr();
        thread::scope(|scope| {
            for (thread, (start, rows)) in [(0, 2), (2, 4), (6, 1)].into_iter().enumerate() {
                // SAFETY: `start < STRIDE`, so this stays inside `matrix`.
                let ptr = unsafe { ptr.add(start) };
                // SAFETY: `start + rows <= STRIDE`: every row of the window lies inside `matrix`, which outlives the
                // scope and is not used meanwhile; the three windows cover different columns; `rows <= STRIDE`.
                let mut tile = unsafe { Tile::from_raw(ptr, TOKENS, rows, STRIDE) };
                scope.spawn(move || {
                    for token in 0..tile.tokens() {
                        assert_eq!(tile.row_mut(token).len(), tile.rows());
                        tile.row_mut(token).fill((10 * token + thread) as f32);
                    }
                });
            }
        });
        let expected: Vec<f32> =
            (0..TOKENS).flat_map(|t| [0, 0, 1, 1, 1, 1, 2].map(|thread| (10 * t + thread) as f32)).collect();
        assert_eq!(matrix.as_slice(), expected);
    }

    #[test]
    fn no_such_token() {
        let mut out = [1.0; 4];
        let mut tile = Tile::new(&mut out, 2, 2).expect("right length");
        assert!(tile.row_mut(2).is_empty());
        assert!(tile.row_mut(usize::MAX).is_empty());
        assert!(Tile::new(&mut [], 5, 0).expect("no rows").row_mut(1).is_empty());
    }
}
