//! Panels: every tier builds the same ones from the same blocks, and multiplies them to the same bits.

use std::mem::MaybeUninit;

use halfbyte_formats::QuantType;
use halfbyte_formats::quant::{BlockFormat, Q4_0, Q4_K, Q5_0, Q5_K, Q6_K, Q8_0};
use proptest::prelude::*;

use super::{Rng, cases, tables};
use crate::Isa;
use crate::dispatch::table::Kernel;
use crate::pack::PackLayout;
use crate::panel::gemv::Gemv;
use crate::panel::{BuildFn, GROUPS, Kind, Micro, MicroFn, PANELS, Panel, PanelKernel, ROWS, Sums};
use crate::quantized::{GROUP, TILE, WORDS};
use crate::scalar;

/// The scalar kernel of each format.
const SCALAR: [(QuantType, PanelKernel); 6] = [
    (Q4_0::TYPE, scalar::panel::row_major::<Q4_0>()),
    (Q5_0::TYPE, scalar::panel::row_major::<Q5_0>()),
    (Q8_0::TYPE, scalar::panel::row_major::<Q8_0>()),
    (Q4_K::TYPE, scalar::panel::row_major::<Q4_K>()),
    (Q5_K::TYPE, scalar::panel::row_major::<Q5_K>()),
    (Q6_K::TYPE, scalar::panel::row_major::<Q6_K>()),
];

/// Under miri the scalar functions are run on one format of each kind.
fn formats() -> impl Iterator<Item = (QuantType, PanelKernel)> {
    let small = [QuantType::Q4_0, QuantType::Q4_K, QuantType::Q6_K];
    SCALAR.into_iter().filter(move |(ty, _)| !cfg!(miri) || small.contains(ty))
}

/// The kernels of `ty` of each tier that has one, and the scalar one.
fn kernels(ty: QuantType, scalar: PanelKernel) -> impl Iterator<Item = (Isa, PanelKernel)> {
    let of_tiers = tables().filter_map(move |(isa, table)| match (table.kernel)(PackLayout::RowMajor(ty)) {
        Some(Kernel::Panels(kernel)) => Some((isa, kernel)),
        _ => None,
    });
    of_tiers.chain([(Isa::Scalar, scalar)])
}

/// Bytes of each row.
fn row_bytes(ty: QuantType, groups: usize) -> usize {
    (groups * GROUP).div_ceil(ty.block_len()) * ty.block_bytes()
}

/// What the blocks of a test look like.
#[derive(Clone, Copy, Debug)]
enum Blocks {
    /// Any bytes: many scales are zero, some are no numbers.
    Any,
    /// Every scale is an ordinary number.
    Normal,
    /// Now and then a scale is zero.
    SomeZero,
    /// One byte everywhere.
    Filled(u8),
}

fn blocks(ty: QuantType, len: usize, blocks: Blocks, rng: &mut Rng) -> Vec<u8> {
    let mut data = match blocks {
        Blocks::Filled(byte) => vec![byte; len],
        _ => rng.bytes(len),
    };
    if matches!(blocks, Blocks::Any | Blocks::Filled(_)) {
        return data;
    }
    for block in data.chunks_exact_mut(ty.block_bytes()) {
        let at = if ty == QuantType::Q6_K { 208 } else { 0 };
        // The upper byte of a half: not all bits of the exponent set, not all clear.
        block[at + 1] = block[at + 1] & 0xbf | 0x04;
        match ty {
            QuantType::Q6_K => block[192..208].iter_mut().for_each(|scale| *scale |= 1),
            QuantType::Q4_K | QuantType::Q5_K => {
                block[3] &= 0xbf;
                block[4..16].iter_mut().for_each(|scale| *scale |= 1);
            }
            _ => {}
        }
        if matches!(blocks, Blocks::SomeZero) && rng.below(20) == 0 {
            block[at..at + 2].copy_from_slice(&[0, 0x80 * rng.below(2) as u8]);
        }
    }
    data
}

/// What a build function makes of rows.
pub(super) fn built(build: BuildFn, rows: &[*const u8; ROWS], groups: usize) -> Box<Panel> {
    let mut panel = Box::new(MaybeUninit::<Panel>::uninit());
    // SAFETY: the panel's own bytes; any bytes are codes and scales.
    unsafe { panel.as_mut_ptr().write_bytes(0xa5, 1) };
    // SAFETY: the callers give rows of whole blocks for `groups` groups.
    unsafe { build(rows, groups, panel.as_mut_ptr()) };
    // SAFETY: every byte was written above, and `normal`, where not all bytes are allowed, by `build`.
    unsafe { panel.assume_init() }
}

/// Half of a field, each number twice.
#[cfg(target_arch = "aarch64")]
fn doubled(numbers: &[f32; ROWS], half: usize) -> [f32; ROWS] {
    std::array::from_fn(|i| numbers[half * ROWS / 2 + i / 2])
}

/// A panel of so many groups as the micro-kernel of `isa` reads it: in lines, or codes in pairs of rows by eight
/// inputs, and minima, or what else is needed for each of two tokens, twice.
#[cfg(target_arch = "aarch64")]
pub(super) fn arranged(isa: Isa, kind: Kind, groups: usize, panel: &Panel) -> Panel {
    let mut arranged = panel.clone();
    if !matches!(isa, Isa::I8mm | Isa::SveI8mm) {
        return arranged;
    }
    let pairs = arranged.codes.as_flattened_mut().as_chunks_mut::<2>().0;
    for (to, from) in pairs.iter_mut().zip(panel.codes.as_flattened().as_chunks::<2>().0) {
        for (i, four) in to.as_flattened_mut().as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *four = from[i % 2].as_chunks().0[i / 2];
        }
    }
    if isa == Isa::SveI8mm && !kind.halves {
        let from = if kind.mins { &panel.mins } else { &panel.scales };
        let places = [&mut arranged.scales_high, &mut arranged.mins].into_iter().flatten();
        for (part, place) in places.enumerate().take(2 * groups) {
            *place = doubled(&from[part / 2], part % 2);
        }
    } else if isa == Isa::I8mm && kind.mins {
        for group in 0..GROUPS {
            let (scales, mins) = (&panel.scales[group], &panel.mins[group]);
            (arranged.scales[group], arranged.spare[group]) = (doubled(scales, 0), doubled(scales, 1));
            (arranged.mins[group], arranged.scales_high[group]) = (doubled(mins, 0), doubled(mins, 1));
        }
    }
    arranged
}

/// A panel as the micro-kernels of other CPUs read it.
#[cfg(not(target_arch = "aarch64"))]
pub(super) fn arranged(_: Isa, _: Kind, _: usize, panel: &Panel) -> Panel {
    panel.clone()
}

/// The first row whose scales differ; a NaN is any NaN.
fn differing(found: &[[f32; ROWS]], expected: &[[f32; ROWS]]) -> Option<usize> {
    let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
    found.as_flattened().iter().zip(expected.as_flattened()).position(|pair| !same(pair))
}

#[track_caller]
pub(super) fn assert_same(what: &str, kind: Kind, groups: usize, found: &Panel, expected: &Panel) {
    assert_eq!(found.normal, expected.normal, "{what}: normal");
    assert_eq!(differing(&found.scales[..groups], &expected.scales[..groups]), None, "{what}: scales");
    if kind.halves {
        assert_eq!(differing(&found.scales_high[..groups], &expected.scales_high[..groups]), None, "{what}: high");
    }
    if kind.mins {
        assert_eq!(differing(&found.mins[..groups], &expected.mins[..groups]), None, "{what}: minima");
    }
    for group in 0..groups {
        assert_eq!(found.codes[group], expected.codes[group], "{what}: codes of group {group}");
    }
}

/// Builds a panel of `rows` rows, the last one repeated, with each tier.
fn check_build(ty: QuantType, scalar: PanelKernel, rows: usize, groups: usize, data: &[u8]) {
    let pointers: [_; ROWS] = std::array::from_fn(|row| data[row.min(rows - 1) * row_bytes(ty, groups)..].as_ptr());
    let expected = built(scalar.build, &pointers, groups);
    for (isa, kernel) in kernels(ty, scalar) {
        assert_eq!(kernel.kind, scalar.kind);
        let what = format!("{ty:?} {isa:?} {groups} groups");
        let built = built(kernel.build, &pointers, groups);
        let ordered = arranged(isa, kernel.kind, groups, &expected);
        assert_same(&what, kernel.kind, groups, &built, &ordered);
        #[cfg(target_arch = "aarch64")]
        {
            let twice = match isa {
                Isa::I8mm if kernel.kind.mins => groups,
                Isa::SveI8mm if !kernel.kind.halves => (2 * groups).min(GROUPS),
                _ => 0,
            };
            let found = differing(&built.scales_high[..twice], &ordered.scales_high[..twice]);
            assert_eq!(found, None, "{what}: numbers that are there twice");
            let spare = if isa == Isa::I8mm { twice } else { 0 };
            let found = differing(&built.spare[..spare], &ordered.spare[..spare]);
            assert_eq!(found, None, "{what}: scales of the last eight rows");
        }
        if (groups * GROUP).is_multiple_of(ty.block_len()) {
            check_gemv(&what, kernel, &pointers, groups, &expected);
        }
    }
}

/// Multiplies rows of whole units, which scalar makes `panel` of, at once with a tile of tokens, and with two if it
/// can.
#[track_caller]
pub(super) fn check_gemv(what: &str, kernel: PanelKernel, rows: &[*const u8; ROWS], groups: usize, panel: &Panel) {
    let Some(gemv) = kernel.gemv else { return };
    let choices = [Inputs::Any, Inputs::Largest(0), Inputs::Largest(u32::MAX), Inputs::Largest(0x5555_5555)];
    let mut tiles = Vec::new();
    for (tokens, choice) in (1..).zip(choices) {
        let input = inputs(tokens, groups, choice, &mut Rng(groups as u64));
        let panels = std::slice::from_ref(panel);
        let before = vec![[0.0; ROWS]; tokens];
        let expected = multiplied(scalar::panel::micro, kernel.kind, panels, &input, (groups, tokens), &before);
        tiles.push((input, expected, format!("{tokens} tokens, {choice:?}")));
    }
    if kernel.tiles == 2 {
        let (four, expected, _) = &tiles[TILE - 1];
        let other = inputs(TILE, groups, Inputs::Any, &mut Rng(groups as u64 + 1));
        let panels = std::slice::from_ref(panel);
        let before = [[0.0; ROWS]; TILE];
        let more = multiplied(scalar::panel::micro, kernel.kind, panels, &other, (groups, TILE), &before);
        // Their flags lie between them.
        let input = [&other[..], &[0; TILE], four, &[0; TILE]].concat();
        tiles.push((input, [&more[..], expected].concat(), "two tiles".to_owned()));
    }
    for (input, expected, case) in tiles {
        let mut out = vec![[f32::NAN; ROWS]; expected.len() / ROWS];
        let g = Gemv { rows, groups, input: input.as_ptr(), tokens: out.len(), ahead: rows[0] };
        // SAFETY: the callers give whole units of so many groups; there are as many words, and sums of all tokens.
        unsafe { gemv(&g, out.as_mut_ptr()) };
        assert_eq!(bits(out.as_flattened()), expected, "{what}, {case}");
    }
}

/// The bits of each sum; a NaN is any NaN.
fn bits(sums: &[f32]) -> Vec<u32> {
    sums.iter().map(|sum| if sum.is_nan() { f32::NAN } else { *sum }.to_bits()).collect()
}

#[test]
fn extreme_blocks() {
    for (ty, scalar) in formats() {
        for byte in [0x00, 0xff, 0x80, 0x7f, 0x7b, 0xfb, 0x01, 0x0f, 0xf0, 0x3c] {
            let data = blocks(ty, ROWS * row_bytes(ty, GROUPS), Blocks::Filled(byte), &mut Rng(0));
            check_build(ty, scalar, ROWS, GROUPS, &data);
        }
    }
}

/// Every place of a row shows: panels of numbered codes.
#[test]
fn numbered_bytes() {
    for (ty, scalar) in formats() {
        let data: Vec<u8> = (0..ROWS * row_bytes(ty, GROUPS)).map(|i| (i * 7 + i / 251) as u8).collect();
        check_build(ty, scalar, ROWS, GROUPS, &data);
    }
}

/// A tile of inputs, as `quantize` writes them.
#[derive(Clone, Copy, Debug)]
enum Inputs {
    Any,
    /// ±127 everywhere, of the sign that this bit mask says.
    Largest(u32),
}

fn inputs(tokens: usize, groups: usize, inputs: Inputs, rng: &mut Rng) -> Vec<u32> {
    let x: Vec<f32> = (0..tokens * groups * GROUP)
        .map(|i| match inputs {
            Inputs::Any => (rng.next() as i32 >> 8) as f32 * 2f32.powi(-((i / GROUP % 30) as i32)),
            Inputs::Largest(signs) => [127.0, -127.0][(signs >> (i % GROUP) & 1) as usize],
        })
        .collect();
    let mut words = vec![0; groups * WORDS * tokens];
    assert_eq!(scalar::quantize::quantize(&x, groups * GROUP, tokens, &mut words), 0);
    words
}

/// A panel of any codes of the format, or of the same one everywhere.
fn panel(kind: Kind, code: Option<u8>, normal: bool, rng: &mut Rng) -> Panel {
    let mask = ((1u32 << kind.bits) - 1) as u8;
    let mut scale = || match rng.below(40) {
        0 if !normal => [f32::INFINITY, f32::NAN, 0.0, -0.0][rng.below(4)],
        _ => (rng.next() as i8 as f32 + 0.5) * 2f32.powi(rng.below(30) as i32 - 24),
    };
    let mut scales = || std::array::from_fn(|_| std::array::from_fn(|_| scale()));
    let (scales, scales_high, mins) = (scales(), scales(), scales());
    let mut codes = [[[0; 4 * ROWS]; 8]; GROUPS];
    for found in codes.as_flattened_mut().as_flattened_mut() {
        *found = code.unwrap_or_else(|| rng.next() as u8) & mask;
    }
    Panel {
        codes,
        scales,
        scales_high,
        mins,
        #[cfg(target_arch = "aarch64")]
        spare: [[0.0; ROWS]; GROUPS],
        normal,
    }
}

/// What a micro-kernel adds to `before`.
fn multiplied(
    micro: MicroFn,
    kind: Kind,
    panels: &[Panel],
    input: &[u32],
    (groups, tokens): (usize, usize),
    before: &[Sums],
) -> Vec<u32> {
    let mut out = before.to_vec();
    let normal = panels.iter().all(|panel| panel.normal);
    let (count, panels, input) = (panels.len(), panels.as_ptr(), input.as_ptr());
    let m = Micro { kind, panels, count, normal, groups, input, tokens, out: out.as_mut_ptr() };
    // SAFETY: `count` whole panels, the words of `tokens` tokens of `groups` groups, `tokens * count` sums.
    unsafe { micro(&m) };
    bits(out.as_flattened())
}

fn check_micro(
    (ty, scalar): (QuantType, PanelKernel),
    panels: &[Panel],
    input: &[u32],
    (groups, tokens): (usize, usize),
    rng: &mut Rng,
) {
    let before: Vec<Sums> =
        (0..tokens * panels.len()).map(|_| std::array::from_fn(|_| rng.next() as i16 as f32)).collect();
    let shape = (groups, tokens);
    let expected = multiplied(scalar.micro, scalar.kind, panels, input, shape, &before);
    for (isa, kernel) in kernels(ty, scalar) {
        let panels: Vec<Panel> = panels.iter().map(|panel| arranged(isa, kernel.kind, groups, panel)).collect();
        let found = multiplied(kernel.micro, kernel.kind, &panels, input, shape, &before);
        let wrong = found.iter().zip(&expected).position(|(found, expected)| found != expected);
        assert_eq!(wrong, None, "{ty:?} {isa:?}: {groups} groups, {tokens} tokens, {} panels", panels.len());
    }
}

/// Where sums of 16 bits would saturate: all codes at an end of their range, all inputs at ±127.
#[test]
fn largest_products() {
    let mut rng = Rng(1);
    for format in formats() {
        let ends = [(0xff, 0), (0xff, u32::MAX), (0xff, 0x5555_5555), (0, 0), (0, u32::MAX), (0x80, 0), (1, 0)];
        for (code, signs) in ends.into_iter().take(if cfg!(miri) { 1 } else { 7 }) {
            let tokens = if signs == 0 { TILE } else { 3 };
            let panels: Vec<Panel> = (0..2).map(|_| panel(format.1.kind, Some(code), true, &mut rng)).collect();
            let input = inputs(tokens, 2, Inputs::Largest(signs), &mut rng);
            check_micro(format, &panels, &input, (2, tokens), &mut rng);
        }
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_blocks(groups in 1..=GROUPS, rows in 1..=ROWS, offset in 0..64usize, choice in 0..3usize, seed: u64) {
        let mut rng = Rng(seed);
        for (ty, scalar) in formats() {
            let choice = [Blocks::Any, Blocks::Normal, Blocks::SomeZero][choice];
            let mut data = vec![0xa5; offset];
            data.extend(blocks(ty, rows * row_bytes(ty, groups), choice, &mut rng));
            check_build(ty, scalar, rows, groups, &data[offset..]);
        }
    }

    #[test]
    fn any_panels(
        groups in 1..=GROUPS, count in 1..=PANELS, tokens in 1..=TILE, normal: bool, largest: bool, seed: u64,
    ) {
        let mut rng = Rng(seed);
        for format in formats() {
            let code = largest.then_some(0xff);
            let panels: Vec<Panel> = (0..count).map(|_| panel(format.1.kind, code, normal, &mut rng)).collect();
            let choice = if largest { Inputs::Largest(seed as u32) } else { Inputs::Any };
            let input = inputs(tokens, groups, choice, &mut rng);
            check_micro(format, &panels, &input, (groups, tokens), &mut rng);
        }
    }
}

/// Blocks, words and sums that end where nothing more can be read: no function looks past them, or before them.
#[cfg(all(unix, not(miri)))]
#[test]
fn nothing_beside_is_touched() {
    use super::guard::{Guarded, Side};
    use crate::ops::{self, Store};
    use crate::{Activations, Kernels, Tile, quantized_words};
    use halfbyte_formats::Bytes;

    for (side, groups) in [(Side::Before, 8), (Side::After, 8), (Side::Before, 16), (Side::After, 16)] {
        for (ty, scalar) in formats() {
            let mut rng = Rng(2);
            let bytes = row_bytes(ty, groups);
            let data = Guarded::new(&blocks(ty, ROWS * bytes, Blocks::Normal, &mut rng), side);
            // One group less where a block has but one.
            for groups in [groups, groups - 1] {
                let len = row_bytes(ty, groups);
                let start = if side == Side::After { ROWS * (bytes - len) } else { 0 };
                check_build(ty, scalar, ROWS, groups, &data[start..][..ROWS * len]);
            }
            for (isa, kernel) in kernels(ty, scalar) {
                let mut place = Guarded::new(&vec![0u8; size_of::<Panel>()], side);
                let pointers = std::array::from_fn(|row| data[row * bytes..].as_ptr());
                let panel: *mut Panel = place.as_mut_ptr().cast();
                assert!(panel.is_aligned());
                // SAFETY: whole rows, and room for a panel.
                unsafe { (kernel.build)(&pointers, groups, panel) };
                for tokens in 1..=TILE {
                    let input = Guarded::new(&inputs(tokens, groups, Inputs::Any, &mut rng), side);
                    let mut out = Guarded::new(&vec![0f32; tokens * ROWS], side);
                    let (kind, input, out) = (kernel.kind, input.as_ptr(), out.as_mut_ptr().cast());
                    let m = Micro { kind, panels: panel, count: 1, normal: true, groups, input, tokens, out };
                    // SAFETY: one panel, just built from normal blocks; the words of `tokens` tokens; as many sums.
                    unsafe { (kernel.micro)(&m) };
                }
                if isa == Isa::Scalar {
                    continue;
                }
                let k = Kernels::with_isa(isa).expect("available");
                let data = Bytes::from_owner(Guarded::new(&data, side));
                let w = k.pack(ty, ROWS, groups * GROUP, data).expect("valid shape");
                for tokens in [1, 5] {
                    let x = Guarded::new(&vec![0.5; tokens * w.depth()], side);
                    let words = quantized_words(tokens, w.depth()).expect("whole groups");
                    let mut words = Guarded::new(&vec![0u32; words], side);
                    ops::quantize(&k, &x, w.depth(), &mut words).expect("right shapes");
                    let mut out = Guarded::new(&vec![0f32; tokens * ROWS], side);
                    let mut out = Tile::new(&mut out, tokens, ROWS).expect("right length");
                    ops::matmul(&k, &w, 0..ROWS, Activations::Q8(&words), Store::Set, &mut out).expect("right shapes");
                }
            }
        }
    }
}
