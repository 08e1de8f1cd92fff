//! Matrices in panels of 16 rows: the bytes, the values, the products.

use halfbyte_formats::quant::{self, PANEL_ROWS, PanelType, U4Group};
use halfbyte_formats::{Bytes, QuantType};
use halfbyte_kernels::ops::{self, Store};
use halfbyte_kernels::{ActivationType, KernelError, Kernels, PackLayout, PackedMatrix, U4Rows, pack_rows, pack_u4};
use proptest::prelude::*;

use crate::common::{
    GROUPED, ROUNDING, Rng, bits, cases, for_each_isa, groups, guarded, packed, product, product_into,
};

/// Inputs of a unit of the panels for `ty`.
fn unit(ty: QuantType) -> usize {
    PanelType::of(ty).expect("has panels").unit_len()
}

/// Row-major rows to panels.
fn panels(ty: QuantType, rows: usize, depth: usize, data: &[u8]) -> Vec<u8> {
    let to = PanelType::of(ty).expect("has panels");
    let row_bytes = ty.row_bytes(depth).expect("whole blocks");
    let mut out = vec![0x5a; to.matrix_bytes(rows, depth).expect("whole units")];
    let panel_bytes = to.matrix_bytes(1, depth).expect("whole units");
    for (rows, panel) in data.chunks(PANEL_ROWS * row_bytes).zip(out.chunks_mut(panel_bytes)) {
        pack_rows(ty, depth, rows, panel).expect("right lengths");
    }
    out
}

/// A matrix in panels, whose bytes begin at an odd address and end where their allocation ends.
fn matrix(k: &Kernels, ty: PanelType, rows: usize, depth: usize, data: &[u8]) -> PackedMatrix {
    let odd: Vec<u8> = [0xa5].iter().chain(data).copied().collect();
    let bytes = Bytes::from(odd).slice(1..1 + data.len()).expect("inside");
    k.packed(ty, rows, depth, bytes).expect("valid shape")
}

fn bytes(rng: &mut Rng, len: usize) -> Vec<u8> {
    (0..len).map(|_| rng.next() as u8).collect()
}

/// The bits, any NaN being the same.
fn same_bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| if x.is_nan() { f32::NAN } else { *x }.to_bits()).collect()
}

/// Every code of a group where `docs/packing.md` says, bit by bit: a group begins at byte `at` of a unit.
fn code_in(unit: &[u8], at: usize, bits: usize, row: usize, k: usize) -> u8 {
    if bits == 8 {
        return unit[at + 64 * (k / 4) + 4 * row + k % 4] ^ 0x80;
    }
    let (l, i) = (k % 16 / 4, k % 4);
    let both = unit[at + 64 * l + 4 * row + i];
    let low = if k < 16 { both & 15 } else { both >> 4 ^ 8 };
    let byte = |plane: usize| unit[at + 256 + 64 * plane + 4 * row + i];
    match bits {
        4 => low,
        5 => low | (byte(0) >> (k / 4) & 1) << 4,
        _ => low | (byte(k / 16) >> (2 * (k / 4 % 4)) & 3) << 4,
    }
}

/// The bytes are those of the documentation, computed from the blocks in another way.
#[test]
fn bytes_are_where_the_documentation_says() {
    for ty in GROUPED {
        let mut rng = Rng(3);
        let (depth, row_bytes) = (unit(ty), ty.row_bytes(unit(ty)).expect("whole blocks"));
        let data = bytes(&mut rng, PANEL_ROWS * row_bytes);
        let unit = panels(ty, PANEL_ROWS, depth, &data);
        let half = |at: usize| [unit[at], unit[at + 1]];
        for (row, blocks) in data.chunks(row_bytes).enumerate() {
            let (found, _) = groups(ty, blocks).expect("a grouped format");
            for (g, group) in found.iter().enumerate() {
                let (bits, start, each) = match ty {
                    QuantType::Q4_0 => (4, 0, 256),
                    QuantType::Q5_0 => (5, 0, 320),
                    QuantType::Q8_0 => (8, 0, 512),
                    QuantType::Q4_K => (4, 256, 256),
                    QuantType::Q5_K => (5, 256, 320),
                    _ => (6, 0, 384),
                };
                for k in 0..32 {
                    let found = code_in(&unit, start + each * g, bits, row, k);
                    assert_eq!(found, group.codes[k], "{ty:?} row {row} group {g} input {k}");
                }
                match ty {
                    QuantType::Q4_K | QuantType::Q5_K => {
                        let (low, high) = (unit[64 + 16 * g + row], unit[192 + 16 * (g / 2) + row] >> (4 * (g % 2)));
                        let scale = low & 15 | (high & 3) << 4;
                        let min = low >> 4 | (high >> 2 & 3) << 4;
                        let expected = quant::unpack_k_scales(blocks[4..16].try_into().expect("twelve"))[g];
                        assert_eq!((scale, min), expected, "{ty:?} row {row} group {g}");
                        assert_eq!([half(2 * row), half(32 + 2 * row)].as_flattened(), &blocks[..4]);
                    }
                    QuantType::Q6_K => {
                        let scales = [3072 + 32 * g + row, 3072 + 32 * g + 16 + row].map(|at| unit[at]);
                        assert_eq!(scales, blocks[192 + 2 * g..194 + 2 * g], "row {row} group {g}");
                        assert_eq!(half(3328 + 2 * row), blocks[208..]);
                    }
                    _ => {
                        let block = &blocks[g * ty.block_bytes()..];
                        assert_eq!(half(2 * each + 32 * g + 2 * row), block[..2], "{ty:?} row {row} group {g}");
                    }
                }
            }
        }
    }
}

/// Values of any blocks, bit for bit, in every row.
fn decodes(ty: QuantType, rows: usize, units: usize, seed: u64) {
    let mut rng = Rng(seed);
    let depth = units * unit(ty);
    let row_bytes = ty.row_bytes(depth).expect("whole blocks");
    let data = bytes(&mut rng, rows * row_bytes);
    let k = Kernels::detect();
    let w = matrix(&k, PanelType::of(ty).expect("has panels"), rows, depth, &panels(ty, rows, depth, &data));
    assert_eq!(w.layout(), PackLayout::Panels(PanelType::of(ty).expect("has panels")));
    for (row, blocks) in data.chunks(row_bytes).enumerate() {
        let mut expected = vec![0.0; depth];
        quant::decode(ty, blocks, &mut expected).expect("whole blocks");
        let found = guarded(depth, |out| ops::decode_row(&w, row, out).expect("right length"));
        assert_eq!(same_bits(&found), same_bits(&expected), "{ty:?} row {row} of {rows}");
    }
    let past = KernelError::OutOfRange { what: "rows", limit: rows, found: rows + 1 };
    assert_eq!(ops::decode_row(&w, rows, &mut vec![0.0; depth]), Err(past));
}

/// Products of panels and of row-major blocks have the same bits, for every range of rows.
fn products(ty: QuantType, rows: usize, units: usize, tokens: usize, seed: u64) {
    let mut rng = Rng(seed);
    let depth = units * unit(ty);
    let data = rng.blocks(ty, rows * depth / ty.block_len());
    let x = rng.floats(tokens * depth);
    let stored = panels(ty, rows, depth, &data);
    let mut all: Option<Vec<f32>> = None;
    for_each_isa(|k| {
        let w = matrix(k, PanelType::of(ty).expect("has panels"), rows, depth, &stored);
        assert_eq!(w.activations(), ActivationType::Q8);
        let whole = product(k, &w, 0..rows, &x);
        let row_major = packed(k, ty, rows, depth, &data);
        if row_major.activations() == ActivationType::Q8 {
            assert_eq!(bits(&whole), bits(&product(k, &row_major, 0..rows, &x)), "{ty:?} {:?}", k.isa());
        }
        // Tiers that multiply row-major blocks otherwise agree with those that do not.
        assert_eq!(bits(all.get_or_insert_with(|| whole.clone())), bits(&whole), "{ty:?} {:?}", k.isa());
        let step = if cfg!(miri) { rows } else { 7 };
        for start in (0..=rows).step_by(step) {
            for end in
                [start, start + 1, (start + 16).min(rows), rows].into_iter().filter(|end| (start..=rows).contains(end))
            {
                let expected: Vec<f32> = (0..tokens).flat_map(|t| whole[t * rows..][start..end].to_vec()).collect();
                let found = product(k, &w, start..end, &x);
                assert_eq!(bits(&found), bits(&expected), "{ty:?} {:?} rows {start}..{end}", k.isa());
            }
        }
        let mut sum = vec![1.5; whole.len()];
        product_into(k, &w, 0..rows, &x, Store::Add, &mut sum);
        assert_eq!(bits(&sum), bits(&whole.iter().map(|x| 1.5 + x).collect::<Vec<_>>()), "{ty:?} added");
    });
}

#[test]
fn values_survive() {
    for ty in GROUPED {
        let shapes: &[_] = if cfg!(miri) { &[(2, 1)] } else { &[(0, 1), (1, 1), (15, 2), (16, 1), (17, 3), (48, 2)] };
        for &(rows, units) in shapes {
            decodes(ty, rows, units, 1);
        }
    }
}

#[test]
fn products_are_those_of_row_major_blocks() {
    for ty in GROUPED {
        let shapes: &[_] = if cfg!(miri) {
            &[(2, 1, 1)]
        } else {
            &[(1, 1, 1), (16, 9, 1), (17, 2, 4), (33, 1, 5), (48, 3, 3), (50, 10, 9)]
        };
        for &(rows, units, tokens) in shapes {
            products(ty, rows, units, tokens, 5);
        }
    }
}

/// More tokens than share a built panel (512), more inputs than a panel has (512).
#[cfg(not(miri))]
#[test]
fn many_tokens() {
    let (rows, window, tokens) = (20, 5..20, 517);
    for ty in GROUPED {
        let (mut rng, depth) = (Rng(9), 513usize.next_multiple_of(unit(ty)));
        let data = rng.blocks(ty, rows * depth / ty.block_len());
        let x = rng.floats(tokens * depth);
        let stored = panels(ty, rows, depth, &data);
        let mut all: Option<Vec<f32>> = None;
        for_each_isa(|k| {
            let w = matrix(k, PanelType::of(ty).expect("has panels"), rows, depth, &stored);
            let whole = product(k, &w, 0..rows, &x);
            let row_major = packed(k, ty, rows, depth, &data);
            if row_major.activations() == ActivationType::Q8 {
                assert_eq!(bits(&whole), bits(&product(k, &row_major, 0..rows, &x)), "{ty:?} {:?}", k.isa());
            }
            assert_eq!(bits(all.get_or_insert_with(|| whole.clone())), bits(&whole), "{ty:?} {:?}", k.isa());
            let mut sum = vec![1.5; tokens * window.len()];
            product_into(k, &w, window.clone(), &x, Store::Add, &mut sum);
            let expected: Vec<f32> =
                whole.chunks(rows).flat_map(|x| x[window.clone()].iter().map(|x| 1.5 + x)).collect();
            assert_eq!(bits(&sum), bits(&expected), "{ty:?} {:?} rows {window:?} added", k.isa());
        });
    }
}

/// Rows of 4-bit codes, and what they mean.
struct U4 {
    codes: Vec<u8>,
    scales: Vec<[u8; 2]>,
    zeros: Option<Vec<u8>>,
    group: U4Group,
    depth: usize,
}

/// One half of a small number.
fn half(rng: &mut Rng) -> [u8; 2] {
    let bits = rng.next() as u16 & 0x83ff | 0x2000;
    bits.to_le_bytes()
}

/// A half of that kind in `f64`.
fn value(half: [u8; 2]) -> f64 {
    let bits = u16::from_le_bytes(half);
    let magnitude = f64::from(0x400 | bits & 0x3ff) * f64::from(1 << (bits >> 10 & 31)) / f64::from(1 << 25);
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

impl U4 {
    fn random(group: U4Group, zeros: bool, rows: usize, depth: usize, rng: &mut Rng) -> Self {
        let groups = rows * depth / group.inputs();
        let mut nibbles = |len: usize| bytes(rng, len).iter().map(|byte| byte & 15).collect::<Vec<u8>>();
        let (codes, zeros) = (nibbles(rows * depth), zeros.then(|| nibbles(groups)));
        Self { codes, scales: (0..groups).map(|_| half(rng)).collect(), zeros, group, depth }
    }

    /// `s · (q - z)`
    fn values(&self) -> Vec<f64> {
        let value = |(k, code): (usize, &u8)| {
            let group = k / self.group.inputs();
            let zero = self.zeros.as_ref().map_or(8, |zeros| zeros[group]);
            value(self.scales[group]) * (f64::from(*code) - f64::from(zero))
        };
        self.codes.iter().enumerate().map(value).collect()
    }

    fn panels(&self) -> Vec<u8> {
        let ty = PanelType::U4 { group: self.group, zeros: self.zeros.is_some() };
        let rows = self.codes.len() / self.depth;
        let mut out = vec![0x5a; ty.matrix_bytes(rows, self.depth).expect("whole units")];
        let (width, groups) = (PANEL_ROWS * self.depth, PANEL_ROWS * self.depth / self.group.inputs());
        for (p, panel) in out.chunks_mut(ty.matrix_bytes(1, self.depth).expect("whole units")).enumerate() {
            let (codes, scales) = (self.codes.chunks(width).nth(p), self.scales.chunks(groups).nth(p));
            let zeros = self.zeros.as_ref().and_then(|zeros| zeros.chunks(groups).nth(p));
            let rows = U4Rows { codes: codes.expect("rows"), scales: scales.expect("rows"), zeros };
            pack_u4(self.group, self.depth, &rows, panel).expect("right lengths");
        }
        out
    }
}

/// All group sizes, with zero points or without: exact values, and products like those of another format whose values
/// are the same.
#[test]
fn four_bit_codes_with_zero_points() {
    let shapes: &[_] = if cfg!(miri) { &[(2, 128)] } else { &[(1, 128), (16, 256), (18, 1280)] };
    for ty in PanelType::ALL {
        let PanelType::U4 { group, zeros } = ty else { continue };
        for &(rows, depth) in shapes {
            let mut rng = Rng(depth as u64);
            let u4 = U4::random(group, zeros, rows, depth, &mut rng);
            let stored = u4.panels();
            let values = u4.values();
            let x: Vec<f32> = (0..3 * depth).map(|_| f32::from(rng.next() as i8 / 2)).collect();
            let mut all: Option<Vec<f32>> = None;
            for_each_isa(|k| {
                let w = matrix(k, ty, rows, depth, &stored);
                for (row, values) in values.chunks(depth).enumerate() {
                    let found = guarded(depth, |out| ops::decode_row(&w, row, out).expect("right length"));
                    assert!(found.iter().zip(values).all(|(a, b)| f64::from(*a) == *b), "{ty:?} row {row}");
                }
                let found = product(k, &w, 0..rows, &x);
                let pairs = x.chunks(depth).flat_map(|x| values.chunks(depth).map(move |w| (w, x)));
                for ((w, x), found) in pairs.zip(&found) {
                    // Inputs are integers within ±64, so nothing is lost by rounding them.
                    let products = w.iter().zip(x).map(|(w, x)| w * f64::from(*x));
                    let (sum, magnitude) =
                        products.fold((0.0, 0.0), |(s, m): (f64, f64), p| (s + p, m + 32.0 * p.abs()));
                    let error = (f64::from(*found) - sum).abs();
                    assert!(error <= magnitude * 2.0 * ROUNDING, "{ty:?} {:?}: {found} is not {sum}", k.isa());
                }
                assert_eq!(bits(all.get_or_insert_with(|| found.clone())), bits(&found), "{ty:?} {:?}", k.isa());
            });
        }
    }
}

#[test]
fn refusals() {
    let k = Kernels::detect();
    let mismatch = |what, expected, found| Err(KernelError::ShapeMismatch { what, expected, found });
    let not_multiple = |what, unit, found| Err(KernelError::NotMultiple { what, unit, found });
    let packed = |ty, rows, depth, len| k.packed(ty, rows, depth, Bytes::from(vec![0; len])).map(drop);
    assert_eq!(packed(PanelType::Q4_0, 1, 64, 576), Ok(()));
    assert_eq!(packed(PanelType::Q4_0, 17, 64, 1152), Ok(()));
    assert_eq!(packed(PanelType::Q4_0, 17, 64, 1151), mismatch("matrix data", 1152, 1151));
    assert_eq!(packed(PanelType::Q4_0, 1, 32, 288), not_multiple("depth", 64, 32));
    assert_eq!(packed(PanelType::Q4_0, usize::MAX, 64, 0), Err(KernelError::TooLarge { what: "matrix" }));
    assert_eq!(packed(PanelType::Q6_K, 0, 256, 0), Ok(()));

    let mut panel = [7; 1088];
    let mut pack = |ty, depth, rows, len| pack_rows(ty, depth, &[0; 17 * 36][..rows], &mut panel[..len]);
    assert_eq!(pack(QuantType::Q4_1, 64, 40, 576), Err(KernelError::NoPanels { ty: QuantType::Q4_1 }));
    assert_eq!(pack(QuantType::Q4_0, 96, 54, 576), not_multiple("depth", 64, 96));
    assert_eq!(pack(QuantType::Q4_0, 0, 36, 576), Err(KernelError::Empty { what: "depth" }));
    assert_eq!(pack(QuantType::Q4_0, 64, 0, 576), Err(KernelError::Empty { what: "rows" }));
    assert_eq!(pack(QuantType::Q4_0, 64, 37, 576), not_multiple("rows", 36, 37));
    let many = KernelError::OutOfRange { what: "rows of a panel", limit: 16, found: 17 };
    assert_eq!(pack(QuantType::Q4_0, 64, 17 * 36, 576), Err(many));
    assert_eq!(pack(QuantType::Q4_0, 64, 36, 575), mismatch("panel", 576, 575));

    let (codes, scales) = ([15; 128], [[0, 0x3c]; 4]);
    let mut pack = |rows: &U4Rows<'_>, len: usize| pack_u4(U4Group::G32, 128, rows, &mut panel[..len]);
    let rows = U4Rows { codes: &codes, scales: &scales, zeros: None };
    assert_eq!(pack(&rows, 1087), mismatch("panel", 1152, 1087));
    assert_eq!(pack(&U4Rows { scales: &scales[1..], ..rows }, 0), mismatch("scales", 4, 3));
    assert_eq!(pack(&U4Rows { zeros: Some(&[0; 5]), ..rows }, 0), mismatch("zero points", 4, 5));
    let mut panel = [7; 1216];
    for (codes, zeros) in [([16; 128], [0; 4]), ([0; 128], [0, 0, 16, 0])] {
        let error =
            pack_u4(U4Group::G32, 128, &U4Rows { codes: &codes, scales: &scales, zeros: Some(&zeros) }, &mut panel);
        assert_eq!(error, Err(KernelError::OutOfRange { what: "4-bit code", limit: 15, found: 16 }));
    }
    assert_eq!(panel, [7; 1216], "an error has written nothing");
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_values(ty in 0..GROUPED.len(), rows in 1..40usize, units in 1..4usize, seed: u64) {
        let (rows, units) = if cfg!(miri) { (rows % 2 + 1, 1) } else { (rows, units) };
        decodes(GROUPED[ty], rows, units, seed);
    }

    #[test]
    fn any_product(ty in 0..GROUPED.len(), rows in 1..70usize, units in 1..12usize, tokens in 1..12usize, seed: u64) {
        let (rows, units, tokens) = if cfg!(miri) { (rows % 2 + 1, 1, 1) } else { (rows, units, tokens) };
        products(GROUPED[ty], rows, units.min(2048 / unit(GROUPED[ty])), tokens, seed);
    }
}
