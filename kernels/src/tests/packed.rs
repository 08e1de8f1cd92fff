//! Stored panels: every tier builds from them what scalar builds.

use std::ops::Range;

use halfbyte_formats::quant::PanelType;
use proptest::prelude::*;

use super::panel::{arranged, assert_same, built, check_gemv};
use super::{Rng, cases, tables};
use crate::dispatch::table::{Kernel, KernelTable};
use crate::pack::PackLayout;
use crate::panel::{GROUPS, PanelKernel, ROWS};
use crate::quantized::GROUP;
use crate::scalar;

/// Under miri one format of each kind.
fn types() -> impl Iterator<Item = PanelType> {
    let small = ["q5_0", "q4_k", "q6_k", "u4_g64_z"];
    PanelType::ALL.into_iter().filter(move |ty| !cfg!(miri) || small.contains(&ty.name()))
}

/// Bytes of `groups` groups, in whole units.
fn len(ty: PanelType, groups: usize) -> usize {
    (groups * GROUP).div_ceil(ty.unit_len()) * ty.unit_bytes()
}

/// Where the halves of a unit are, and whether bytes that stand for scales are, too.
fn scales(ty: PanelType) -> (Range<usize>, Range<usize>) {
    match ty {
        PanelType::Q4_0 => (512..576, 0..0),
        PanelType::Q5_0 => (640..704, 0..0),
        PanelType::Q8_0 => (1024..1088, 0..0),
        PanelType::Q4_K | PanelType::Q5_K => (0..64, 64..192),
        PanelType::Q6_K => (3328..3360, 3072..3328),
        PanelType::U4 { group, .. } => (1024..1024 + 128 / group.inputs() * 32, 0..0),
    }
}

/// Random panels: any bytes, or without zeros, infinities and NaN among the scales but for a few zeros.
fn stored(ty: PanelType, groups: usize, any: bool, zeros: bool, rng: &mut Rng) -> Vec<u8> {
    let mut data = rng.bytes(len(ty, groups));
    if any {
        return data;
    }
    let (halves, bytes) = scales(ty);
    for unit in data.chunks_exact_mut(ty.unit_bytes()) {
        for half in unit[halves.clone()].chunks_exact_mut(2) {
            half[1] = half[1] & 0xbf | 0x04;
            if zeros && rng.below(20) == 0 {
                half.copy_from_slice(&[0, 0x80 * rng.below(2) as u8]);
            }
        }
        unit[bytes.clone()].iter_mut().for_each(|byte| *byte |= 1);
    }
    data
}

/// The kernel of a tier.
fn kernel(table: &KernelTable, ty: PanelType) -> PanelKernel {
    match (table.kernel)(PackLayout::Panels(ty)) {
        Some(Kernel::Panels(kernel)) => kernel,
        other => panic!("{ty:?}: {other:?}"),
    }
}

#[track_caller]
fn check(ty: PanelType, groups: usize, data: &[u8]) {
    let scalar = scalar::panel::packed(ty);
    let expected = built(scalar.build, &[data.as_ptr(); ROWS], groups);
    for (isa, table) in tables() {
        let kernel = kernel(table, ty);
        assert_eq!(kernel.kind, scalar.kind);
        let found = built(kernel.build, &[data.as_ptr(); ROWS], groups);
        let what = format!("{ty:?} {isa:?} {groups} groups");
        assert_same(&what, kernel.kind, groups, &found, &arranged(isa, kernel.kind, groups, &expected));
        check_gemv(&what, kernel, &[data.as_ptr(); ROWS], groups, &expected);
    }
}

/// Every place shows: numbered bytes, and one byte everywhere.
#[test]
fn numbered_and_extreme_bytes() {
    for ty in types() {
        let numbered = |i: usize| (i * 7 + i / 251) as u8;
        check(ty, GROUPS, &(0..len(ty, GROUPS)).map(numbered).collect::<Vec<u8>>());
        let bytes = [0x00, 0xff, 0x80, 0x7f, 0x7b, 0x01, 0x0f, 0xf0, 0x3c];
        for byte in bytes.into_iter().take(if cfg!(miri) { 1 } else { bytes.len() }) {
            check(ty, GROUPS, &vec![byte; len(ty, GROUPS)]);
        }
    }
}

/// Panels are normal where their scales are.
#[test]
fn ordinary_scales_are_normal() {
    for ty in types() {
        let data = stored(ty, GROUPS, false, false, &mut Rng(4));
        for (isa, table) in tables() {
            let found = built(kernel(table, ty).build, &[data.as_ptr(); ROWS], GROUPS);
            assert!(found.normal, "{ty:?} {isa:?}");
        }
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_panels(groups in 1..=GROUPS, offset in 0..64usize, any: bool, zeros: bool, seed: u64) {
        let mut rng = Rng(seed);
        for ty in types() {
            let groups = (groups * GROUP).next_multiple_of(ty.unit_len()) / GROUP;
            let mut data = vec![0xa5; offset];
            data.extend(stored(ty, groups, any, zeros, &mut rng));
            check(ty, groups, &data[offset..]);
        }
    }
}

/// Stored panels that end, or begin, where nothing more can be read; and products with them.
#[cfg(all(unix, not(miri)))]
#[test]
fn nothing_beside_is_touched() {
    use halfbyte_formats::Bytes;

    use super::guard::{Guarded, Side};
    use crate::ops::{self, Store};
    use crate::{Activations, Kernels, Tile, quantized_words};

    for side in [Side::Before, Side::After] {
        for ty in types() {
            for units in 1..=GROUPS * GROUP / ty.unit_len() {
                let groups = units * ty.unit_len() / GROUP;
                let data = stored(ty, groups, false, false, &mut Rng(2));
                check(ty, groups, &Guarded::new(&data, side));
                let rows = [&data[..], &data].concat();
                for (isa, _) in tables() {
                    let k = Kernels::with_isa(isa).expect("available");
                    let w = Bytes::from_owner(Guarded::new(&rows, side));
                    let w = k.packed(ty, 20, groups * GROUP, w).expect("valid shape");
                    let x = vec![0.5; w.depth()];
                    let mut words = vec![0; quantized_words(1, w.depth()).expect("whole groups")];
                    ops::quantize(&k, &x, w.depth(), &mut words).expect("right shapes");
                    let mut out = [0.0; 20];
                    let mut out = Tile::new(&mut out, 1, 20).expect("right length");
                    ops::matmul(&k, &w, 0..20, Activations::Q8(&words), Store::Set, &mut out).expect("right shapes");
                }
            }
        }
    }
}
