//! Every refusal: the variant, its numbers, its message; and nothing written.

use halfbyte_formats::quant::PanelType;
use halfbyte_formats::{Bytes, QuantType};
use halfbyte_kernels::{
    ActivationType, Activations, Isa, KernelError, Kernels, KvLayout, KvPart, KvType, MAX_HEAD_DIM, PackedMatrix,
    QuantTile, Tile, ops, quantized_words,
};

fn mismatch(what: &'static str, expected: usize, found: usize) -> KernelError {
    KernelError::ShapeMismatch { what, expected, found }
}

#[test]
fn packing() {
    let k = Kernels::detect();
    let pack = |ty, rows, depth, len| k.pack(ty, rows, depth, Bytes::from(vec![0; len])).map(|_| ());
    assert_eq!(pack(QuantType::Q4_0, 2, 64, 72), Ok(()));
    assert_eq!(pack(QuantType::Q4_0, 2, 64, 73), Err(mismatch("matrix data", 72, 73)));
    assert_eq!(pack(QuantType::Q4_0, 2, 64, 71), Err(mismatch("matrix data", 72, 71)));
    assert_eq!(pack(QuantType::Q4_0, 2, 48, 54), Err(KernelError::NotMultiple { what: "depth", unit: 32, found: 48 }));
    assert_eq!(pack(QuantType::I8, 1, 1, 1), Err(KernelError::UnsupportedType { ty: QuantType::I8 }));
    assert_eq!(pack(QuantType::F32, usize::MAX, 4, 0), Err(KernelError::TooLarge { what: "matrix" }));
    assert_eq!(pack(QuantType::F32, 0, usize::MAX, 0), Err(KernelError::TooLarge { what: "matrix" }));
}

#[test]
fn matmul() {
    let k = Kernels::detect();
    let w = k.pack(QuantType::F32, 4, 2, Bytes::from(vec![0; 32])).expect("valid shape");
    let multiply = |rows, x: &[f32], (tokens, width): (usize, usize)| {
        let mut out = vec![7.0; tokens * width];
        let mut tile = Tile::new(&mut out, tokens, width).expect("right length");
        let result = ops::matmul(&k, &w, rows, Activations::F32(x), ops::Store::Set, &mut tile);
        assert!(result.is_ok() || out.iter().all(|x| *x == 7.0), "an error has written nothing");
        result
    };
    assert_eq!(multiply(1..4, &[0.0; 4], (2, 3)), Ok(()));
    assert_eq!(multiply(1..4, &[0.0; 4], (2, 2)), Err(mismatch("matmul output rows", 3, 2)));
    assert_eq!(multiply(1..4, &[0.0; 5], (2, 3)), Err(mismatch("matmul input", 4, 5)));
    assert_eq!(multiply(2..5, &[0.0; 2], (1, 3)), Err(KernelError::OutOfRange { what: "rows", limit: 4, found: 5 }));
    #[expect(clippy::reversed_empty_ranges, reason = "the case under test")]
    let reversed = multiply(3..1, &[0.0; 2], (1, 0));
    assert_eq!(reversed, Err(KernelError::RangeReversed { what: "rows", start: 3, end: 1 }));
    assert_eq!(multiply(4..4, &[], (0, 0)), Ok(()));

    let mut row = [0.0; 3];
    assert_eq!(ops::decode_row(&w, 0, &mut row), Err(mismatch("decoded row", 2, 3)));
    let past = KernelError::OutOfRange { what: "rows", limit: 4, found: 5 };
    assert_eq!(ops::decode_row(&w, 4, &mut row[..2]), Err(past));
    let past = KernelError::TooLarge { what: "row" };
    assert_eq!(ops::decode_row(&w, usize::MAX, &mut row[..2]), Err(past));
}

/// So far past the last row that products with it wrap.
#[test]
fn rows_of_any_number() {
    let k = Kernels::detect();
    let row_major = k.pack(QuantType::F32, 4, 2, Bytes::from(vec![0; 32])).expect("valid shape");
    let panels = k.packed(PanelType::Q4_0, 4, 64, Bytes::from(vec![0; 576])).expect("valid shape");
    // Of a matrix without inputs any number of rows takes no bytes.
    let empty = k.packed(PanelType::Q4_0, usize::MAX, 0, Bytes::from(vec![])).expect("valid shape");
    let past = |found| Err(KernelError::OutOfRange { what: "rows", limit: 4, found });
    for (w, x, words) in [(&row_major, &[0.0; 2][..], &[][..]), (&panels, &[], &[0; 25])] {
        let x = if w.activations() == ActivationType::F32 { Activations::F32(x) } else { Activations::Q8(words) };
        let mut row = vec![7.0; w.depth()];
        assert_eq!(ops::decode_row(w, usize::MAX - 1, &mut row), past(usize::MAX));
        assert!(row.iter().all(|x| *x == 7.0), "an error has written nothing");
        let mut out = Tile::new(&mut [], 0, usize::MAX).expect("right length");
        for rows in [0..usize::MAX, usize::MAX - 1..usize::MAX, 0..usize::MAX / 8 + 1] {
            let end = rows.end;
            assert_eq!(ops::matmul(&k, w, rows, x, ops::Store::Set, &mut out), past(end));
        }
    }
    assert_eq!(ops::decode_row(&empty, usize::MAX - 1, &mut []), Ok(()));
}

#[test]
fn quantizing() {
    let k = Kernels::detect();
    // 32 inputs are 12 words, and one for a flag.
    let quantize = |x: &[f32], depth, words| {
        let mut out = vec![7; words];
        let result = ops::quantize(&k, x, depth, &mut out);
        assert!(result.is_ok() || out.iter().all(|word| *word == 7), "an error has written nothing");
        result
    };
    let x = [0.5; 96];
    assert_eq!(quantize(&x, 32, 39), Ok(()));
    assert_eq!(quantize(&[], 32, 0), Ok(()));
    assert_eq!(quantize(&x, 0, 39), Err(KernelError::Empty { what: "depth" }));
    assert_eq!(quantize(&x, 48, 39), Err(KernelError::NotMultiple { what: "depth", unit: 32, found: 48 }));
    assert_eq!(quantize(&x, 64, 39), Err(KernelError::NotMultiple { what: "quantize input", unit: 64, found: 96 }));
    assert_eq!(quantize(&x, 32, 38), Err(mismatch("quantize output", 39, 38)));
}

#[test]
fn swiglu() {
    let k = Kernels::detect();
    let panels = |rows: usize, depth: usize| {
        let bytes = Bytes::from(vec![0; rows.next_multiple_of(16) * depth / 32 * 18]);
        k.packed(PanelType::Q4_0, rows, depth, bytes).expect("valid shape")
    };
    let (w, higher, wider) = (panels(64, 64), panels(96, 64), panels(64, 128));
    let floats = k.pack(QuantType::F32, 64, 64, Bytes::from(vec![0; 64 * 64 * 4])).expect("valid shape");
    // Two tokens of 64 inputs, and of `outputs`.
    let swiglu = |[gate, up]: [&PackedMatrix; 2], rows, words, outputs| {
        let mut out = vec![7; quantized_words(2, outputs).expect("whole groups")];
        let mut tile = QuantTile::new(&mut out, 2, outputs).expect("right length");
        let result = ops::swiglu(&k, [gate, up], rows, &vec![0; words], &mut tile);
        // Flags are cleared before.
        assert!(result.is_ok() || out[..out.len() - 2].iter().all(|word| *word == 7), "an error has written nothing");
        result
    };
    let past = |found| Err(KernelError::OutOfRange { what: "rows", limit: 64, found });
    let units = |found| Err(KernelError::NotMultiple { what: "swiglu rows", unit: 32, found });
    assert_eq!(swiglu([&w, &w], 0..64, 50, 64), Ok(()));
    assert_eq!(swiglu([&w, &higher], 32..64, 50, 32), Ok(()));
    assert_eq!(swiglu([&w, &w], 32..32, 50, 0), Ok(()));
    assert_eq!(swiglu([&w, &w], 32..96, 50, 64), past(96));
    assert_eq!(swiglu([&higher, &w], 32..96, 50, 64), past(96));
    assert_eq!(swiglu([&w, &w], 0..usize::MAX - 31, 50, 64), past(usize::MAX - 31));
    assert_eq!(swiglu([&w, &w], 0..48, 50, 64), units(48));
    assert_eq!(swiglu([&w, &w], 16..64, 50, 64), units(16));
    #[expect(clippy::reversed_empty_ranges, reason = "the case under test")]
    let reversed = swiglu([&w, &w], 64..32, 50, 0);
    assert_eq!(reversed, Err(KernelError::RangeReversed { what: "rows", start: 64, end: 32 }));
    assert_eq!(swiglu([&w, &w], 0..64, 49, 64), Err(mismatch("swiglu input", 50, 49)));
    assert_eq!(swiglu([&w, &wider], 0..64, 50, 64), Err(mismatch("swiglu depth", 64, 128)));
    assert_eq!(swiglu([&w, &w], 0..64, 50, 32), Err(mismatch("swiglu output groups", 2, 1)));
    for pair in [[&w, &floats], [&floats, &w]] {
        let found = "row-major blocks";
        assert_eq!(swiglu(pair, 0..64, 50, 64), Err(KernelError::LayoutMismatch { found }));
    }
}

#[test]
fn tiles() {
    let mut out = [0.0; 6];
    assert_eq!(Tile::new(&mut out, 2, 4).map(|_| ()), Err(mismatch("tile", 8, 6)));
    assert_eq!(Tile::new(&mut out, usize::MAX, 2).map(|_| ()), Err(KernelError::TooLarge { what: "tile" }));
}

#[test]
fn small_operations() {
    let k = Kernels::detect();
    let (mut six, four) = ([1.0; 6], [1.0; 4]);
    let mut out = [0.0; 6];
    assert_eq!(ops::rms_norm(&k, &six, &[], 0.0, &mut out), Err(KernelError::Empty { what: "norm weight" }));
    let units = KernelError::NotMultiple { what: "norm input", unit: 4, found: 6 };
    assert_eq!(ops::rms_norm(&k, &six, &four, 0.0, &mut out), Err(units));
    assert_eq!(ops::rms_norm(&k, &four, &four, 0.0, &mut out), Err(mismatch("norm output", 4, 6)));

    let layer_norm = |x: &[f32], weight: &[f32], bias: &[f32]| {
        let mut out = [7.0; 6];
        let result = ops::layer_norm(&k, x, weight, bias, 0.0, &mut out);
        assert_eq!(out, [7.0; 6], "an error has written nothing");
        result
    };
    assert_eq!(layer_norm(&six, &[], &[]), Err(KernelError::Empty { what: "norm weight" }));
    assert_eq!(layer_norm(&six, &six, &four), Err(mismatch("norm bias", 6, 4)));
    let units = KernelError::NotMultiple { what: "norm input", unit: 4, found: 6 };
    assert_eq!(layer_norm(&six, &four, &four), Err(units));
    assert_eq!(layer_norm(&four, &four, &four), Err(mismatch("norm output", 4, 6)));

    assert_eq!(ops::rope_neox(&k, &mut six, 0, &[], &[]), Err(KernelError::Empty { what: "head_dim" }));
    let units = KernelError::NotMultiple { what: "rope input", unit: 4, found: 6 };
    assert_eq!(ops::rope_neox(&k, &mut six, 4, &[1.0], &[0.0]), Err(units));
    assert_eq!(ops::rope_neox(&k, &mut six, 3, &[1.0], &[]), Err(mismatch("rope sines", 1, 0)));
    let past = KernelError::OutOfRange { what: "rope cosines", limit: 1, found: 2 };
    assert_eq!(ops::rope_neox(&k, &mut six, 3, &[1.0; 2], &[0.0; 2]), Err(past));

    assert_eq!(ops::silu_mul(&k, &mut six, &four), Err(mismatch("silu_mul up", 6, 4)));
    assert_eq!(ops::add(&k, &mut six, &four), Err(mismatch("add operand", 6, 4)));
    let units = KernelError::NotMultiple { what: "bias operand", unit: 4, found: 6 };
    assert_eq!(ops::add_bias(&k, &mut six, &four), Err(units));
    assert_eq!(ops::add_bias(&k, &mut six, &[]), Err(KernelError::Empty { what: "bias" }));
    assert_eq!(six, [1.0; 6]);
}

#[test]
fn cache() {
    let k = Kernels::detect();
    let layout = KvLayout { ty: KvType::F16, kv_heads: 2, head_dim: 4 };
    assert_eq!((layout.half_bytes(), layout.page_bytes()), (Ok(512), Ok(2048)));
    let too_large = KernelError::TooLarge { what: "kv page" };
    for huge in [KvLayout { head_dim: usize::MAX / 4, ..layout }, KvLayout { kv_heads: usize::MAX / 4, ..layout }] {
        assert_eq!(huge.page_bytes(), Err(too_large.clone()));
    }

    let mut half = vec![0; 512];
    let row = [0.0; 4];
    let append = |layout: &KvLayout, half: &mut [u8], slot, row: &[f32]| {
        ops::kv_append(&k, layout, KvPart::Keys, half, slot, row)
    };
    assert_eq!(append(&layout, &mut half, 63, &row), Ok(()));
    let past = KernelError::OutOfRange { what: "kv slot", limit: 63, found: 64 };
    assert_eq!(append(&layout, &mut half, 64, &row), Err(past));
    assert_eq!(append(&layout, &mut half[1..], 0, &row), Err(mismatch("kv half", 512, 511)));
    assert_eq!(append(&layout, &mut half, 0, &row[1..]), Err(mismatch("kv row", 4, 3)));
    let none = KvLayout { head_dim: 0, ..layout };
    assert_eq!(append(&none, &mut [], 0, &[]), Err(KernelError::Empty { what: "head_dim" }));
    let large = KvLayout { head_dim: MAX_HEAD_DIM + 1, ..layout };
    let past = KernelError::OutOfRange { what: "head_dim", limit: MAX_HEAD_DIM, found: MAX_HEAD_DIM + 1 };
    assert_eq!(append(&large, &mut [], 0, &[]), Err(past));
}

#[test]
fn attention() {
    let k = Kernels::detect();
    let layout = KvLayout { ty: KvType::F16, kv_heads: 2, head_dim: 4 };
    let pages = vec![vec![0; 2048]];
    let a = ops::AttentionGqa { layout: &layout, pages: &pages, pos: 62, window: None, scale: 1.0 };
    // Two tokens of three heads, five elements apart from each other.
    let attend = |a: &ops::AttentionGqa<'_>, kv_head, q: &[f32], rows| {
        let mut out = vec![7.0; 2 * rows];
        let mut tile = Tile::new(&mut out, 2, rows).expect("right length");
        let result = ops::attention_gqa(&k, a, kv_head, ops::Queries { data: q, stride: 17 }, &mut tile);
        assert!(result.is_ok() || out.iter().all(|x| *x == 7.0), "an error has written nothing");
        result
    };
    let q = [0.0; 29];
    assert_eq!(attend(&a, 1, &q, 12), Ok(()));
    let past = KernelError::OutOfRange { what: "kv_head", limit: 1, found: 2 };
    assert_eq!(attend(&a, 2, &q, 12), Err(past));
    assert_eq!(attend(&a, 0, &q[1..], 12), Err(mismatch("attention queries", 29, 28)));
    let units = KernelError::NotMultiple { what: "attention output", unit: 4, found: 11 };
    assert_eq!(attend(&a, 0, &q, 11), Err(units));
    let none = ops::AttentionGqa { window: Some(0), ..a.clone() };
    assert_eq!(attend(&none, 0, &q, 12), Err(KernelError::Empty { what: "attention window" }));
    // Past the last page, by one position and by many.
    for pos in [63, 64, usize::MAX / 2] {
        assert_eq!(attend(&ops::AttentionGqa { pos, ..a.clone() }, 0, &q, 12), Err(mismatch("kv page", 2048, 0)));
    }
    let too_large = KernelError::TooLarge { what: "visible positions" };
    assert_eq!(attend(&ops::AttentionGqa { pos: usize::MAX, ..a.clone() }, 0, &q, 12), Err(too_large));
    let mut two = [0.0; 8];
    let mut tile = Tile::new(&mut two, 2, 4).expect("right length");
    let far = ops::Queries { data: &q, stride: usize::MAX };
    let too_large = KernelError::TooLarge { what: "attention queries" };
    assert_eq!(ops::attention_gqa(&k, &a, 0, far, &mut tile), Err(too_large));
    let short = vec![vec![0; 2047]];
    assert_eq!(
        attend(&ops::AttentionGqa { pages: &short, ..a.clone() }, 0, &q, 12),
        Err(mismatch("kv page", 2048, 2047))
    );
    let large = KvLayout { head_dim: MAX_HEAD_DIM + 1, ..layout };
    let past = KernelError::OutOfRange { what: "head_dim", limit: MAX_HEAD_DIM, found: MAX_HEAD_DIM + 1 };
    assert_eq!(attend(&ops::AttentionGqa { layout: &large, ..a.clone() }, 0, &q, 12), Err(past));
}

#[test]
fn attention_in_parts() {
    let k = Kernels::detect();
    let layout = KvLayout { ty: KvType::F16, kv_heads: 2, head_dim: 4 };
    let pages = vec![vec![0; 2048]; 17];
    let a = ops::AttentionGqa { layout: &layout, pages: &pages, pos: 1030, window: Some(20), scale: 1.0 };
    assert_eq!(a.splits(), 0..2);
    let attend = |a: &ops::AttentionGqa<'_>, kv_head, split, q: &[f32], len| {
        let mut part = vec![7.0; len];
        let result = ops::attention_part(&k, a, kv_head, split, q, &mut part);
        assert!(result.is_ok() || part.iter().all(|x| *x == 7.0), "an error has written nothing");
        result
    };
    let q = [0.0; 12];
    assert_eq!(ops::part_len(3, 4), Ok(18));
    assert_eq!(ops::part_len(usize::MAX / 4, 4), Err(KernelError::TooLarge { what: "attention part" }));
    for split in [0, 1] {
        assert_eq!(attend(&a, 1, split, &q, 18), Ok(()));
    }
    for split in [2, usize::MAX] {
        assert_eq!(attend(&a, 1, split, &q, 18), Err(KernelError::Empty { what: "attention split" }));
    }
    let later = ops::AttentionGqa { pos: 1050, ..a.clone() };
    assert_eq!(attend(&later, 1, 0, &q, 18), Err(KernelError::Empty { what: "attention split" }));
    let past = KernelError::OutOfRange { what: "kv_head", limit: 1, found: 2 };
    assert_eq!(attend(&a, 2, 0, &q, 18), Err(past));
    assert_eq!(attend(&a, 0, 0, &q, 17), Err(mismatch("attention part", 18, 17)));
    let units = KernelError::NotMultiple { what: "attention queries", unit: 4, found: 11 };
    assert_eq!(attend(&a, 0, 0, &q[1..], 18), Err(units));
    let beyond = ops::AttentionGqa { pos: 1088, ..a.clone() };
    assert_eq!(attend(&beyond, 0, 1, &q, 18), Err(mismatch("kv page", 2048, 0)));

    let merge = |head_dim, parts: &[f32], len| ops::attention_merge(&k, head_dim, parts, &mut vec![0.0; len]);
    let parts = [1.0; 36];
    assert_eq!(merge(4, &parts, 12), Ok(()));
    assert_eq!(merge(4, &[], 0), Ok(()));
    assert_eq!(merge(0, &parts, 12), Err(KernelError::Empty { what: "head_dim" }));
    assert_eq!(merge(4, &[], 12), Err(KernelError::Empty { what: "attention parts" }));
    let units = KernelError::NotMultiple { what: "attention parts", unit: 18, found: 35 };
    assert_eq!(merge(4, &parts[1..], 12), Err(units));
    let units = KernelError::NotMultiple { what: "attention output", unit: 4, found: 11 };
    assert_eq!(merge(4, &parts, 11), Err(units));
}

#[test]
fn messages() {
    assert_eq!(mismatch("tile", 8, 6).to_string(), "tile: expected a length of 8, found 6");
    let ty = QuantType::I8;
    assert_eq!(KernelError::UnsupportedType { ty }.to_string(), "no kernel multiplies i8");
    let past = KernelError::OutOfRange { what: "rows", limit: 4, found: 5 };
    assert_eq!(past.to_string(), "rows: 5 is past the limit of 4");
}

#[test]
fn instruction_sets() {
    let available: Vec<Isa> = Isa::available().collect();
    assert_eq!(available.last(), Some(&Isa::Scalar));
    assert_eq!(Kernels::detect().isa(), available[0]);
    for isa in available {
        assert_eq!(Isa::from_name(isa.name()), Some(isa));
        assert_eq!(Kernels::with_isa(isa).expect("available").isa(), isa);
    }
    assert_eq!(Isa::from_name("mmx"), None);
}
