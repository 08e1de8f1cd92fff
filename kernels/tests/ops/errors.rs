//! Every refusal: the variant, its numbers, its message; and nothing written.

use halfbyte_formats::{Bytes, QuantType};
use halfbyte_kernels::{Activations, Isa, KernelError, Kernels, KvLayout, KvType, Tile, ops};

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
    let layout = KvLayout { ty: KvType::F16, kv_heads: 2, head_dim: 4, capacity: 8 };
    assert_eq!(layout.len_bytes(), Ok(128));
    let huge = KvLayout { capacity: usize::MAX / 4, ..layout };
    assert_eq!(huge.len_bytes(), Err(KernelError::TooLarge { what: "kv cache" }));

    let mut bytes = vec![0; 128];
    let row = [0.0; 8];
    assert_eq!(ops::kv_append(&k, &layout, &mut bytes, 7, &row), Ok(()));
    let past = KernelError::OutOfRange { what: "kv position", limit: 7, found: 8 };
    assert_eq!(ops::kv_append(&k, &layout, &mut bytes, 8, &row), Err(past));
    assert_eq!(ops::kv_append(&k, &layout, &mut bytes[1..], 0, &row), Err(mismatch("kv cache", 128, 127)));
    assert_eq!(ops::kv_append(&k, &layout, &mut bytes, 0, &row[1..]), Err(mismatch("kv row", 8, 7)));
    let none = KvLayout { head_dim: 0, ..layout };
    assert_eq!(ops::kv_append(&k, &none, &mut [], 0, &[]), Err(KernelError::Empty { what: "head_dim" }));
}

#[test]
fn attention() {
    let k = Kernels::detect();
    let layout = KvLayout { ty: KvType::F16, kv_heads: 2, head_dim: 4, capacity: 8 };
    let bytes = [0; 128];
    let (keys, values) = (&bytes[..], &bytes[..]);
    let a = ops::AttentionGqa { layout: &layout, keys, values, pos: 6, window: None, scale: 1.0 };
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
    for (pos, found) in [(7, 9), (usize::MAX, usize::MAX)] {
        let past = KernelError::OutOfRange { what: "visible positions", limit: 8, found };
        assert_eq!(attend(&ops::AttentionGqa { pos, ..a.clone() }, 0, &q, 12), Err(past));
    }
    let mut two = [0.0; 8];
    let mut tile = Tile::new(&mut two, 2, 4).expect("right length");
    let far = ops::Queries { data: &q, stride: usize::MAX };
    let too_large = KernelError::TooLarge { what: "attention queries" };
    assert_eq!(ops::attention_gqa(&k, &a, 0, far, &mut tile), Err(too_large));
    let short = ops::AttentionGqa { keys: &bytes[1..], ..a.clone() };
    assert_eq!(attend(&short, 0, &q, 12), Err(mismatch("attention keys", 128, 127)));
    let short = ops::AttentionGqa { values: &bytes[1..], ..a.clone() };
    assert_eq!(attend(&short, 0, &q, 12), Err(mismatch("attention values", 128, 127)));
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
