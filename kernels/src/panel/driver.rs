//! The loops around a micro-kernel: which rows, which inputs, which tokens.
//!
//! ```text
//! for 48 rows:                  three panels
//!   for 512 tokens:             whose sums, 96 KiB, stay in the second cache
//!     for 512 inputs:           build the panels, once for all these tokens
//!       for 4 tokens:           micro-kernel
//!     hand the sums over
//! ```

use std::mem::MaybeUninit;
use std::slice;

use super::gemv::{Gemv, GemvFn};
use super::{BuildFn, GROUPS, Kind, Micro, MicroFn, PANELS, Panel, ROWS, Sums};
use crate::pack::WeightRows;
use crate::quantized::{GROUP, TILE, WORDS, token_words};

/// Tiles of tokens that share a built panel.
const TILES: usize = 128;

/// Tokens up to which weights are multiplied as they are taken apart; with two scales a group, one tile.
const FEW: usize = 8;

/// Bytes of the stack that [`matmul`] takes: sums and panels.
pub(crate) const SCRATCH: usize = size_of::<[Sums; TILES * TILE * PANELS]>() + size_of::<[Panel; PANELS]>();

/// The functions that multiply one format in one layout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PanelKernel {
    pub(crate) kind: Kind,
    pub(crate) build: BuildFn,
    pub(crate) micro: MicroFn,
    /// For few tokens, where that is faster.
    pub(crate) gemv: Option<GemvFn>,
    /// Tiles of tokens that it takes, 1 or 2.
    pub(crate) tiles: usize,
    /// Brings the bytes at an address into the cache; any address is allowed.
    pub(crate) prefetch: fn(at: *const u8, len: usize),
}

impl PanelKernel {
    /// What multiplies so few tokens without a panel.
    fn for_few(&self, tokens: usize) -> Option<GemvFn> {
        let few = if self.kind.halves { TILE } else { FEW };
        self.gemv.filter(|_| tokens <= few)
    }
}

/// Asks for the first panel of `w`, all at once: with few tokens memory is the limit, and it waits while a panel is
/// read in the order in which it is multiplied. Later panels are asked for by [`matmul`].
pub(crate) fn ask(kernel: &PanelKernel, w: &WeightRows<'_>, tokens: usize) {
    if kernel.for_few(tokens).is_some() {
        (kernel.prefetch)(w.data.as_ptr(), w.data.len().min(ROWS * w.row_bytes));
    }
}

/// Multiplies whole panels, calling `put(row, token, sums)` with the sums of up to three panels of 16 rows, from `row`
/// on, until all have come for every token; those of rows that lie outside of `w` mean nothing.
///
/// Shapes: `w: (rows, depth)`, `input: (tokens, depth)` as [`crate::quantized`] says. With few tokens the weights
/// should have been asked for, see [`ask`]; what lies at `next`, any address, is, as the caller goes on there.
///
/// # Safety
/// The CPU runs the functions of `kernel`, which are for the format and the layout of `w`; `input` has
/// `quantized_words(tokens, depth)` words.
pub(crate) unsafe fn matmul(
    kernel: &PanelKernel,
    w: &WeightRows<'_>,
    depth: usize,
    input: &[u32],
    tokens: usize,
    next: *const u8,
    mut put: impl FnMut(usize, usize, &[Sums]),
) {
    let groups = depth / GROUP;
    if let Some(gemv) = kernel.for_few(tokens) {
        let panels = w.panels();
        for panel in 0..panels {
            let rows = w.pointers(panel, 0, groups);
            let mut ahead =
                if panel + 1 < panels { w.data.as_ptr().wrapping_add((panel + 1) * ROWS * w.row_bytes) } else { next };
            let mut token = 0;
            while token < tokens {
                let mut sums = [[0.0; ROWS]; 2 * TILE];
                let left = tokens - token;
                let tokens = if kernel.tiles == 2 && left >= 2 * TILE { 2 * TILE } else { TILE.min(left) };
                let input = input.get(token * token_words(groups)..).unwrap_or_default().as_ptr();
                let g = Gemv { rows: &rows, groups, input, tokens, ahead };
                // SAFETY: `pointers` gives rows, or a panel, of which all groups exist, whole units of them; the rest
                // is as for the other functions of the kernel.
                unsafe { gemv(&g, sums.as_mut_ptr()) };
                for (i, sums) in sums.chunks_exact(1).enumerate().take(tokens) {
                    put(ROWS * panel, token + i, sums);
                }
                // The same rows for the next tile.
                ahead = rows[0];
                token += tokens;
            }
        }
        return;
    }
    let mut sums = [const { MaybeUninit::<Sums>::uninit() }; TILES * TILE * PANELS];
    let panels = w.panels();
    for first in (0..panels).step_by(PANELS) {
        let count = PANELS.min(panels - first);
        let rows = std::array::from_fn(|i| w.pointers(first + i.min(count - 1), 0, groups));
        for token in (0..tokens).step_by(TILES * TILE) {
            let tokens = (TILES * TILE).min(tokens - token);
            for sums in sums.iter_mut().take(tokens * count) {
                sums.write([0.0; ROWS]);
            }
            let input = input.get(token * token_words(groups)..).unwrap_or_default();
            let block = Block { kernel, w, groups, rows, count, tokens };
            // SAFETY: the kernel fits `w` and the CPU, and `input` begins with the words of `tokens` tokens (both by
            // the contract of this function, the second because `token` is a multiple of a tile); `tokens * count` sums
            // were just initialised.
            unsafe { block.multiply(input, sums.as_mut_ptr().cast()) };
            // SAFETY: `tokens * count` of them were initialised above.
            let sums = unsafe { slice::from_raw_parts(sums.as_ptr().cast::<Sums>(), tokens * count) };
            for (i, sums) in sums.chunks_exact(count).enumerate() {
                put(ROWS * first, token + i, sums);
            }
        }
    }
}

/// Up to three panels and up to [`TILES`] tiles of tokens.
struct Block<'a> {
    kernel: &'a PanelKernel,
    w: &'a WeightRows<'a>,
    /// Groups of a row.
    groups: usize,
    /// The rows of `count` panels.
    rows: [[*const u8; ROWS]; PANELS],
    count: usize,
    tokens: usize,
}

impl Block<'_> {
    /// Adds the products to `sums: (tokens, count)`.
    ///
    /// # Safety
    /// As [`matmul`]; `sums` are initialised.
    unsafe fn multiply(&self, input: &[u32], sums: *mut Sums) {
        let Self { kernel, w, groups: all, count, .. } = *self;
        let mut panels = [const { MaybeUninit::<Panel>::uninit() }; PANELS];
        for start in (0..all).step_by(GROUPS) {
            let groups = GROUPS.min(all - start);
            let mut normal = true;
            let mut ahead = self.ahead(start);
            for (panel, rows) in panels.iter_mut().zip(&self.rows).take(count) {
                ahead.ask();
                let rows = rows.map(|row| row.wrapping_add(w.bytes(start, all)));
                // SAFETY: `pointers` gives rows, or a panel, of which `groups` groups from `start` on exist.
                unsafe { (kernel.build)(&rows, groups, panel.as_mut_ptr()) };
                // SAFETY: `build` has written this field.
                normal &= unsafe { (*panel.as_ptr()).normal };
            }
            for token in (0..self.tokens).step_by(TILE) {
                ahead.ask();
                let tokens = TILE.min(self.tokens - token);
                let tile = input.get(token * token_words(all)..).unwrap_or_default();
                let tile = tile.get(start * tokens * WORDS..).unwrap_or_default();
                debug_assert!(tile.len() >= groups * tokens * WORDS);
                let micro = Micro {
                    kind: kernel.kind,
                    panels: panels.as_ptr().cast(),
                    count,
                    normal,
                    groups,
                    input: tile.as_ptr(),
                    tokens,
                    // SAFETY: inside the `tokens * count` sums of the block.
                    out: unsafe { sums.add(token * count) },
                };
                // SAFETY: `count` panels were built for this kind and these groups; the tile's words for them are
                // there, because the input has those of all tokens; so are its sums.
                unsafe { (kernel.micro)(&micro) };
            }
        }
    }

    /// What comes after the groups from `start` on: those that follow in the same rows or, at their end, the first ones
    /// of the next rows.
    fn ahead(&self, start: usize) -> Ahead<'_> {
        let next = start + GROUPS;
        let (offset, groups) = if next < self.groups {
            (self.w.bytes(next, self.groups), GROUPS.min(self.groups - next))
        } else {
            (self.count * ROWS * self.w.row_bytes, GROUPS.min(self.groups))
        };
        let share = (self.count * ROWS).div_ceil(self.count + self.tokens.div_ceil(TILE));
        Ahead { block: self, offset, len: self.w.bytes(groups, self.groups), row: 0, share }
    }
}

/// Weights that are asked for before they are needed, in steps between which there is work: a CPU has but so many
/// requests under way.
struct Ahead<'a> {
    block: &'a Block<'a>,
    /// Where they are, from the start of each row.
    offset: usize,
    /// Bytes of each row.
    len: usize,
    /// The next row.
    row: usize,
    /// Rows a step.
    share: usize,
}

impl Ahead<'_> {
    /// Asks for a share of them.
    fn ask(&mut self) {
        let end = (self.row + self.share).min(self.block.count * ROWS);
        for row in std::mem::replace(&mut self.row, end)..end {
            let at = self.block.rows[row / ROWS][row % ROWS].wrapping_add(self.offset);
            let (at, len) = self.block.w.share(at, row % ROWS, self.len);
            (self.block.kernel.prefetch)(at, len);
        }
    }
}
