//! What is read and written again is the same file; what is written is read back.

mod support;

use std::{fs, path::Path};

use halfbyte_formats::{
    QuantType,
    gguf::{Gguf, GgufWriter, Strings, Value},
};
use proptest::{collection::vec, prelude::*};
use support::{check, raw};

#[test]
fn real_vocabularies_are_rewritten_byte_for_byte() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/vocab");
    for name in ["qwen2", "llama-bpe", "phi-3"] {
        let path = folder.join(format!("ggml-vocab-{name}.gguf"));
        let Ok(bytes) = fs::read(&path) else {
            println!("skipped: ../shared/data/vocab/ggml-vocab-{name}.gguf is not there");
            continue;
        };
        let file = Gguf::open(&path).unwrap();
        assert!(file.tensors().is_empty());
        let tokens = file.metadata().strings("tokenizer.ggml.tokens").unwrap().unwrap();
        let types = file.metadata().usizes("tokenizer.ggml.token_type").unwrap().unwrap();
        assert!(tokens.len() > 32_000 && tokens.len() == types.len());
        assert!(check::rewrite(&file).unwrap() == bytes, "{name}");
    }
}

#[test]
fn the_good_file_is_rewritten_byte_for_byte() {
    let bytes = raw::valid().build();
    assert!(check::rewrite(&Gguf::from_bytes(bytes.clone()).unwrap()).unwrap() == bytes);
}

#[test]
fn integers_of_any_width_are_sizes() {
    let mut writer = GgufWriter::new();
    let values: [Value; 8] =
        [7u8.into(), 7i8.into(), 7u16.into(), 7i16.into(), 7u32.into(), 7i32.into(), 7u64.into(), 7i64.into()];
    for value in &values {
        writer.put(value.kind(), value.clone()).unwrap();
    }
    writer.put("largest", u64::MAX).unwrap();
    writer.put("sizes", vec![0i16, 1, i16::MAX]).unwrap();
    let file = Gguf::from_bytes(writer.write_to(Vec::new()).unwrap().finish().unwrap()).unwrap();
    for value in values {
        assert_eq!(file.metadata().usize(value.kind()).unwrap(), Some(7));
    }
    assert_eq!(file.metadata().usize("largest").unwrap().map(|v| v as u64), Some(u64::MAX));
    assert_eq!(file.metadata().usizes("sizes").unwrap().unwrap(), [0, 1, 32_767].as_slice());
    assert_eq!(file.metadata().usize("absent").unwrap(), None);
}

#[test]
fn floats_of_both_widths_are_f32() {
    let mut writer = GgufWriter::new();
    writer.put("f32", 0.1f32).unwrap();
    writer.put("f64", 0.1f64).unwrap();
    writer.put("f32s", vec![0.1f32, -0.0]).unwrap();
    writer.put("f64s", vec![0.1f64, 1e300]).unwrap();
    let file = Gguf::from_bytes(writer.write_to(Vec::new()).unwrap().finish().unwrap()).unwrap();
    assert_eq!(file.metadata().f32("f32").unwrap(), Some(0.1));
    assert_eq!(file.metadata().f32("f64").unwrap(), Some(0.1));
    assert_eq!(file.metadata().f32s("f32s").unwrap().unwrap(), [0.1, -0.0].as_slice());
    assert_eq!(file.metadata().f32s("f64s").unwrap().unwrap(), [0.1, f32::INFINITY].as_slice());
}

/// Any value; floats by their bits, so that NaNs are among them.
fn value() -> impl Strategy<Value = Value> {
    let f32s = any::<u32>().prop_map(f32::from_bits);
    let f64s = any::<u64>().prop_map(f64::from_bits);
    let strings = vec(".{0,9}", 0..9).prop_map(|strings| strings.into_iter().collect::<Strings>());
    prop_oneof![
        any::<u8>().prop_map_into(),
        any::<i8>().prop_map_into(),
        any::<u16>().prop_map_into(),
        any::<i16>().prop_map_into(),
        any::<u32>().prop_map_into(),
        any::<i32>().prop_map_into(),
        any::<u64>().prop_map_into(),
        any::<i64>().prop_map_into(),
        any::<bool>().prop_map_into(),
        f32s.clone().prop_map_into(),
        f64s.clone().prop_map_into(),
        ".{0,40}".prop_map_into(),
        vec(any::<u8>(), 0..9).prop_map_into(),
        vec(any::<i8>(), 0..9).prop_map_into(),
        vec(any::<u16>(), 0..9).prop_map_into(),
        vec(any::<i16>(), 0..9).prop_map_into(),
        vec(any::<u32>(), 0..9).prop_map_into(),
        vec(any::<i32>(), 0..9).prop_map_into(),
        vec(any::<u64>(), 0..9).prop_map_into(),
        vec(any::<i64>(), 0..9).prop_map_into(),
        vec(any::<bool>(), 0..9).prop_map_into(),
        vec(f32s, 0..9).prop_map_into(),
        vec(f64s, 0..9).prop_map_into(),
        strings.prop_map_into(),
    ]
}

/// A tensor's shape and type: rows are whole blocks.
fn shape() -> impl Strategy<Value = (Vec<usize>, QuantType)> {
    let ty = proptest::sample::select(QuantType::ALL.to_vec());
    (ty, 1..3usize, vec(1..4usize, 0..4)).prop_map(|(ty, blocks, mut dims)| {
        dims.insert(0, blocks * ty.block_len());
        (dims, ty)
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        entries in proptest::collection::btree_map("[ -~]{1,20}", value(), 0..12),
        shapes in vec(shape(), 0..6),
        alignment in proptest::option::of(0..9u32),
    ) {
        let mut writer = GgufWriter::new();
        for (key, value) in &entries {
            writer.put(key, value.clone()).unwrap();
        }
        if let Some(exponent) = alignment {
            writer.put("general.alignment", 1u32 << exponent).unwrap();
        }
        let sizes: Vec<_> = shapes.iter().map(|(dims, ty)| {
            dims.iter().skip(1).product::<usize>() * ty.row_bytes(dims[0]).unwrap()
        }).collect();
        for (no, (dims, ty)) in shapes.iter().enumerate() {
            writer.declare(&format!("blk.{no}.ä"), dims, *ty).unwrap();
        }
        let mut stream = writer.write_to(Vec::new()).unwrap();
        for (no, &size) in sizes.iter().enumerate() {
            stream.write_tensor(&format!("blk.{no}.ä"), &vec![no as u8 + 1; size]).unwrap();
        }
        let bytes = stream.finish().unwrap();

        check::gguf(&bytes);
        let file = Gguf::from_bytes(bytes.clone()).unwrap();
        for (key, value) in &entries {
            // By their text, because a NaN equals nothing.
            prop_assert_eq!(format!("{:?}", file.metadata().value(key).unwrap()), format!("{value:?}"));
        }
        prop_assert_eq!(file.tensors().len(), shapes.len());
        for (no, (tensor, (dims, ty))) in file.tensors().iter().zip(&shapes).enumerate() {
            prop_assert_eq!((&tensor.dims, tensor.ty), (dims, *ty));
            prop_assert!(tensor.data.len() == sizes[no] && tensor.data.iter().all(|&byte| byte == no as u8 + 1));
        }
        prop_assert_eq!(check::rewrite(&file).unwrap(), bytes);
    }

    #[test]
    fn no_bytes_break_the_reader(bytes in vec(any::<u8>(), 0..400)) {
        check::gguf(&bytes);
        check::gguf(&[b"GGUF\x03\0\0\0".as_slice(), &bytes].concat());
    }

    #[test]
    fn no_changed_bytes_break_the_reader(changes in vec((0..1440usize, any::<u8>()), 1..6)) {
        let mut bytes = raw::valid().build();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        check::gguf(&bytes);
    }
}
