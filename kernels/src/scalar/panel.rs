//! Panels in plain Rust: what those of other tiers are compared with, bit for bit.

use std::slice;

#[cfg(test)]
use halfbyte_formats::quant::GroupFormat;
use halfbyte_formats::quant::{GROUP, Group, PanelType};

use crate::pack::{OfFormat, PanelFormat, of_format};
#[cfg(test)]
use crate::panel::Kind;
use crate::panel::{Micro, Panel, PanelKernel, ROWS, Sums};
use crate::quantized::{Field, LINES, WORDS};

/// The kernel for row-major blocks of `F`, which this tier multiplies with unrounded activations: what others are
/// compared with.
#[cfg(test)]
pub(crate) const fn row_major<F: GroupFormat>() -> PanelKernel {
    PanelKernel { kind: Kind::of::<F>(), build: build::<F>, micro, gemv: None, tiles: 1, prefetch }
}

/// The kernel for panels of `ty`.
pub(crate) fn packed(ty: PanelType) -> PanelKernel {
    struct Panels;
    impl OfFormat for Panels {
        type Output = PanelKernel;

        fn of<P: PanelFormat>(self) -> PanelKernel {
            PanelKernel { kind: P::KIND, build: build_packed::<P>, micro, gemv: None, tiles: 1, prefetch }
        }
    }
    of_format(ty, Panels)
}

/// Nothing: what a CPU fetches by itself will do here.
pub(crate) fn prefetch(_at: *const u8, _len: usize) {}

impl Panel {
    fn put(&mut self, group: usize, row: usize, found: &Group) {
        for (line, codes) in found.codes.as_chunks::<4>().0.iter().enumerate() {
            self.codes[group][line][4 * row..][..4].copy_from_slice(codes);
        }
        let [low, high] = found.scales;
        (self.scales[group][row], self.scales_high[group][row]) = (low, high);
        self.mins[group][row] = found.min;
    }
}

/// A [`BuildFn`](crate::panel::BuildFn) for row-major blocks of `F`.
///
/// # Safety
/// As there.
#[cfg(test)]
unsafe fn build<F: GroupFormat>(rows: &[*const u8; ROWS], groups: usize, panel: *mut Panel) {
    let per_block = F::LEN / GROUP;
    // SAFETY: `panel` can be written; every byte of zeros is a valid number, and `false`.
    unsafe { panel.write_bytes(0, 1) };
    // SAFETY: just initialised, and nobody else's.
    let panel = unsafe { &mut *panel };
    for (row, blocks) in rows.iter().enumerate() {
        let len = groups.div_ceil(per_block) * F::BYTES;
        // SAFETY: whole blocks for `groups` groups can be read there.
        let blocks = unsafe { slice::from_raw_parts(*blocks, len) };
        for group in 0..groups {
            let block = blocks.chunks_exact(F::BYTES).nth(group / per_block).unwrap_or_default();
            let Some(found) = F::group(block, group % per_block) else { continue };
            panel.put(group, row, &found);
        }
    }
    // SAFETY: written just now.
    unsafe { Panel::settle(panel, Kind::of::<F>(), groups) };
}

/// A [`BuildFn`](crate::panel::BuildFn) for panels of `P`.
///
/// # Safety
/// As there.
unsafe fn build_packed<P: PanelFormat>(rows: &[*const u8; ROWS], groups: usize, panel: *mut Panel) {
    // SAFETY: `panel` can be written; every byte of zeros is a valid number, and `false`.
    unsafe { panel.write_bytes(0, 1) };
    // SAFETY: just initialised, and nobody else's.
    let panel = unsafe { &mut *panel };
    let per_unit = P::PANEL.unit_len() / GROUP;
    let len = groups.div_ceil(per_unit) * P::PANEL.unit_bytes();
    // SAFETY: whole units for `groups` groups can be read there.
    let units = unsafe { slice::from_raw_parts(rows[0], len) };
    for group in 0..groups {
        let unit = units.chunks_exact(P::PANEL.unit_bytes()).nth(group / per_unit).unwrap_or_default();
        for row in 0..ROWS {
            let Some(found) = P::group(unit, group % per_unit, row) else { continue };
            panel.put(group, row, &found);
        }
    }
    // SAFETY: written just now.
    unsafe { Panel::settle(panel, P::KIND, groups) };
}

/// A [`MicroFn`](crate::panel::MicroFn).
///
/// # Safety
/// As there.
pub(crate) unsafe fn micro(m: &Micro) {
    let Micro { kind, count, groups, tokens, .. } = *m;
    // SAFETY: `groups * WORDS * tokens` words can be read there.
    let input = unsafe { slice::from_raw_parts(m.input, groups * WORDS * tokens) };
    // SAFETY: `tokens * count` sums can be read and written there.
    let out = unsafe { slice::from_raw_parts_mut(m.out, tokens * count) };
    for (i, out) in out.iter_mut().enumerate() {
        let (token, number) = (i / count, i % count);
        // SAFETY: one of `count` panels.
        let panel = unsafe { m.panels.add(number) };
        for (group, words) in input.chunks_exact(WORDS * tokens).enumerate() {
            // SAFETY: initialised for this group; no reference to other groups is made.
            let codes = unsafe { &(*panel).codes[group] };
            // SAFETY: likewise.
            let scales = unsafe { &(*panel).scales[group] };
            let word = |field: Field| words[field.word(tokens, token)];
            let power = f32::from_bits(word(Field::Exponent).wrapping_add(1.0f32.to_bits()));
            let sum = |row: usize, lines: std::ops::Range<usize>, start: u32| {
                let mut sum = start.cast_signed().wrapping_shl(kind.zero_shift);
                if kind.zero_shift == 32 {
                    sum = 0;
                }
                for line in lines {
                    let inputs = word(Field::Line(line)).to_le_bytes().map(u8::cast_signed);
                    for (code, input) in codes[line][4 * row..].iter().zip(inputs) {
                        sum += i32::from(*code) * i32::from(input);
                    }
                }
                sum as f32
            };
            let (all, low) = (word(Field::NegatedSum), word(Field::NegatedSumLow));
            for (row, out) in out.iter_mut().enumerate() {
                if kind.halves {
                    // SAFETY: initialised for this group, as the kind has two scales.
                    let high = unsafe { (&(*panel).scales_high)[group][row] };
                    *out = sum(row, 0..LINES / 2, low).mul_add(scales[row] * power, *out);
                    *out = sum(row, LINES / 2..LINES, all.wrapping_sub(low)).mul_add(high * power, *out);
                } else {
                    *out = sum(row, 0..LINES, all).mul_add(scales[row] * power, *out);
                }
                if kind.mins {
                    // SAFETY: initialised for this group, as the kind has minima.
                    let min = unsafe { (&(*panel).mins)[group][row] };
                    *out = (-min).mul_add(f32::from_bits(word(Field::ScaledSum)), *out);
                }
            }
        }
    }
}

const _: () = assert!(size_of::<Sums>() == 4 * ROWS);
