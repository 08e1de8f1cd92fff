//! Parsing takes at most 4 times the bytes of the file, plus 1 MiB, whatever the bytes are.
//!
//! One test only: the allocator counts the whole process, and tests run side by side.

mod support;

use std::{fs, path::Path};

use halfbyte_formats::{
    FormatError,
    gguf::{Gguf, GgufWriter, Strings, Value},
};
use support::{
    alloc::Counting,
    fixtures,
    raw::{Raw, array, kind, tensor, valid},
};

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

/// Parses `bytes` within the bound; tells how much of it was used, in percent.
fn parse(name: &str, bytes: Vec<u8>) -> (Result<Gguf, FormatError>, usize) {
    let len = bytes.len();
    let bound = 4 * len + (1 << 20);
    let (result, peak) = ALLOCATOR.peak_during(|| Gguf::from_bytes(bytes));
    assert!(peak <= bound, "{name}: {peak} bytes allocated for {len} bytes of file");
    (result, peak * 100 / bound)
}

/// As [`parse`], for a file that is all right.
fn accepted(name: &str, bytes: Vec<u8>) {
    let len = bytes.len();
    let (result, percent) = parse(name, bytes);
    assert!(result.is_ok(), "{name}: {result:?}");
    println!("{name}: {len} bytes, {percent} % of the bound");
}

#[test]
fn parsing_allocates_no_more_than_4_times_the_file_and_1_mib() {
    for fixture in fixtures::all() {
        parse(&fixture.name, fixture.bytes).0.map(drop).ok();
    }
    let good = valid().build();
    for len in 0..good.len() {
        parse("cut", good[..len].to_vec()).0.map(drop).ok();
    }
    accepted("good", good);

    let mut entries = Raw::new();
    for number in 0..65_536u32 {
        // Names without a prefix: the smallest entries that can be.
        entries = entries.put(format!("{number:x}"), kind::U8, [0]);
    }
    accepted("as_many_tiny_entries_as_allowed", entries.build());

    let mut arrays = Raw::new();
    for number in 0..65_536u32 {
        arrays = arrays.put(format!("{number:x}"), kind::ARRAY, array(kind::U8, 1, [0]));
    }
    accepted("as_many_tiny_arrays_as_allowed", arrays.build());

    // Room is not made for as many as a file says it has: here one fills it.
    let count = 65_536u64;
    let mut claimed = Raw { entry_count: Some(count), ..Raw::new() };
    let (entry, each) = (8 + 1 + 4 + 4 + 8, 14 * count as usize);
    claimed = claimed.put("x", kind::ARRAY, array(kind::U8, (each - entry) as u64, vec![0; each - entry]));
    let (result, percent) = parse("one_entry_that_is_said_to_be_many", claimed.build());
    assert!(matches!(result, Err(FormatError::OutOfBounds { what: "key length", .. })), "{result:?}");
    println!("one_entry_that_is_said_to_be_many: {percent} % of the bound");

    // Nor for many entries of the smallest size, of which but 95 have keys of their own.
    let mut twice = Raw::new();
    for number in 0..count {
        twice = twice.put([b' ' + (number % 95) as u8], kind::U8, [0]);
    }
    let (result, percent) = parse("keys_of_one_character", twice.build());
    assert!(matches!(result, Err(FormatError::DuplicateKey { .. })), "{result:?}");
    println!("keys_of_one_character: {percent} % of the bound");

    let mut tensors = Raw { alignment: Some(1), ..Raw::new() }.put_u32("general.alignment", 1);
    for number in 0..65_536u32 {
        tensors = tensors.describe(tensor(format!("{number:x}"), &[1], 24, number.into()));
    }
    accepted("as_many_tiny_tensors_as_allowed", tensors.data(vec![0; 65_536]).build());

    for (kind, name, element) in kind::SCALARS {
        let count = 8_000_000 / element.len();
        let bytes = array(kind, count as u64, element.repeat(count));
        accepted(&format!("array_of_{name}"), Raw::new().put("key", kind::ARRAY, bytes).build());
    }
    let empty: Strings = std::iter::repeat_n("", 1_000_000).collect();
    accepted("array_of_empty_strings", written("key", empty));
    accepted("one_long_string", written("key", "x".repeat(8_000_000)));

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/vocab");
    for name in ["qwen2", "llama-bpe", "phi-3"] {
        match fs::read(folder.join(format!("ggml-vocab-{name}.gguf"))) {
            Ok(bytes) => accepted(name, bytes),
            Err(_) => println!("skipped: ../shared/data/vocab/ggml-vocab-{name}.gguf is not there"),
        }
    }
}

fn written(key: &str, value: impl Into<Value>) -> Vec<u8> {
    let mut writer = GgufWriter::new();
    writer.put(key, value).unwrap();
    writer.write_to(Vec::new()).unwrap().finish().unwrap()
}
