//! The table of bad inputs: each has a name, its bytes, and the one answer that is right.
//!
//! Families: header, keys and values, arrays, tensor descriptions, alignment and data section, shards, packed tensors,
//! and good files asked for a value of the wrong kind. Over 600 lines, because every input is a row of this one table.

use halfbyte_formats::{
    Foreign, FormatError, QuantType,
    gguf::{Gguf, Metadata},
};

use super::raw::{Raw, array, kind, tensor, text, valid};

type Expected = Box<dyn Fn(&FormatError) -> bool>;
type Ask = fn(&Metadata) -> Result<(), FormatError>;

/// A bad input.
pub struct Fixture {
    pub name: String,
    pub bytes: Vec<u8>,
    /// What is asked of the metadata if the file opens.
    pub ask: Ask,
    /// Whether an error is the one this input must give.
    pub expected: Expected,
}

impl Fixture {
    pub fn run(&self) -> Result<(), FormatError> {
        (self.ask)(Gguf::from_bytes(self.bytes.clone())?.metadata())
    }
}

/// All of them.
pub fn all() -> Vec<Fixture> {
    let mut table = Table(Vec::new());
    header(&mut table);
    keys_and_values(&mut table);
    arrays(&mut table);
    wrong_kinds(&mut table);
    descriptions(&mut table);
    alignment_and_data(&mut table);
    shards(&mut table);
    packed(&mut table);
    table.0
}

struct Table(Vec<Fixture>);

impl Table {
    fn add(
        &mut self,
        name: impl Into<String>,
        bytes: impl Into<Vec<u8>>,
        expected: impl Fn(&FormatError) -> bool + 'static,
    ) {
        self.ask(name, bytes, |_| Ok(()), expected);
    }

    fn ask(
        &mut self,
        name: impl Into<String>,
        bytes: impl Into<Vec<u8>>,
        ask: Ask,
        expected: impl Fn(&FormatError) -> bool + 'static,
    ) {
        self.0.push(Fixture { name: name.into(), bytes: bytes.into(), ask, expected: Box::new(expected) });
    }
}

/// A number field holds `number`, which is out of range.
fn out_of_range(field: &'static str, number: u64) -> impl Fn(&FormatError) -> bool {
    move |error| matches!(error, FormatError::OutOfRange { what, found, .. } if *what == field && *found == number)
}

/// The bytes end before `field` does.
fn cut(field: &'static str) -> impl Fn(&FormatError) -> bool {
    move |error| matches!(error, FormatError::OutOfBounds { what, need, have, .. } if *what == field && need > have)
}

fn foreign(looks: Foreign) -> impl Fn(&FormatError) -> bool {
    move |error| matches!(error, FormatError::NotGguf { found } if *found == looks)
}

/// Numbers that counters overflow on.
const NASTY: [u64; 9] =
    [65_537, (1 << 30) + 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, u64::MAX];

fn header(table: &mut Table) {
    let good = valid().build();
    table.add("empty_file", [], foreign(Foreign::Empty));
    for len in 1..24 {
        let field = match len {
            1..=3 => "magic",
            4..=7 => "version",
            8..=15 => "tensor count",
            _ => "metadata count",
        };
        table.add(format!("header_cut_at_{len}"), &good[..len], cut(field));
    }
    let with_magic = |magic: &[u8]| [magic, &good[4..]].concat();
    table.add("wrong_magic", with_magic(b"GGUX"), foreign(Foreign::Unknown { magic: *b"GGUX" }));
    table.add("lower_case_magic", with_magic(b"gguf"), foreign(Foreign::Unknown { magic: *b"gguf" }));
    table.add("reversed_magic", with_magic(b"FUGG"), |e| matches!(e, FormatError::BigEndian { .. }));
    for magic in [b"lmgg", b"fmgg", b"tjgg", b"algg"] {
        let name = format!("old_magic_{}", String::from_utf8_lossy(magic));
        table.add(name, with_magic(magic), foreign(Foreign::OldGgml));
    }
    for version in [0, 1, 4, 0xFFFF, u32::MAX] {
        let bytes = Raw { version: Some(version), ..valid() }.build();
        table.add(
            format!("version_{version}"),
            bytes,
            move |e| matches!(e, FormatError::UnsupportedVersion { found } if *found == version),
        );
    }
    for version in [1u32, 2, 3] {
        let bytes = Raw { version: Some(version.swap_bytes()), ..valid() }.build();
        table.add(format!("big_endian_version_{version}"), bytes, |e| matches!(e, FormatError::BigEndian { .. }));
    }
    for count in NASTY {
        let tensors = Raw { tensor_count: Some(count), ..valid() }.build();
        table.add(format!("tensor_count_{count}"), tensors, out_of_range("tensor count", count));
        let entries = Raw { entry_count: Some(count), ..valid() }.build();
        table.add(format!("entry_count_{count}"), entries, out_of_range("metadata count", count));
    }
    let tensors = Raw { tensor_count: Some(65_536), ..valid() }.build();
    table.add("tensor_count_beyond_file", tensors, cut("tensor descriptions"));
    let entries = Raw { entry_count: Some(65_536), ..valid() }.build();
    table.add("entry_count_beyond_file", entries, cut("metadata entries"));
    table.add("html", *b"<!DOCTYPE html><html><body>404</body></html>", foreign(Foreign::Html));
    table.add("html_after_space", *b"\n  <html lang=en>", foreign(Foreign::Html));
    table.add("json_error", *b"{\"error\":\"Access to model is restricted\"}", foreign(Foreign::Json));
    table.add("git_lfs_pointer", *b"version https://git-lfs.github.com/spec/v1\n", foreign(Foreign::GitLfs));
    table.add("zip", *b"PK\x03\x04\x14\0\0\0\x08\0", foreign(Foreign::Zip));
    table.add("elf", *b"\x7fELF\x02\x01\x01\0", foreign(Foreign::Elf));
    table.add("safetensors", *b"\x40\0\0\0\0\0\0\0{\"a\":{\"dtype\":\"F32\"", foreign(Foreign::Safetensors));
    table.add("all_zero", [0; 64], foreign(Foreign::Zeros));
    table.add("all_ff", [0xFF; 64], foreign(Foreign::Unknown { magic: [0xFF; 4] }));
}

/// An entry with the key length `len` and `bytes` as key.
fn key_of_len(len: u64, bytes: &[u8]) -> Vec<u8> {
    Raw::new().entry([&len.to_le_bytes()[..], bytes, &[0, 0, 0, 0, 1]].concat()).data([0; 64]).build()
}

fn keys_and_values(table: &mut Table) {
    for len in [0, 65_536, 1 << 32, 1 << 63, u64::MAX] {
        table.add(format!("key_length_{len}"), key_of_len(len, b"key"), out_of_range("key length", len));
    }
    table.add("key_length_beyond_file", key_of_len(60_000, b"key"), cut("key"));
    let bad_character = |bad: char| move |e: &FormatError| matches!(e, FormatError::InvalidCharacter { what: "key", found, .. } if *found == bad);
    table.add("key_with_nul", Raw::new().put_u32("a\0b", 1).build(), bad_character('\0'));
    table.add("key_with_newline", Raw::new().put_u32("a\nb", 1).build(), bad_character('\n'));
    table.add("key_with_escape", Raw::new().put_u32("\x1b[31m", 1).build(), bad_character('\x1b'));
    table.add("key_not_ascii", Raw::new().put_u32("schlüssel", 1).build(), bad_character('ü'));
    let not_utf8 = Raw::new().put(b"\xFF\xFE", kind::U32, [0; 4]).build();
    table.add("key_not_utf8", not_utf8, |e| matches!(e, FormatError::NotUtf8 { what: "key", .. }));
    let twice = Raw::new().put_u32("key", 1).put_str("other", "").put_u32("key", 2).build();
    table.add("key_twice", twice, |e| matches!(e, FormatError::DuplicateKey { key, offset: 68 } if key == "key"));

    for unknown in [13, 14, 255, 1 << 31, u32::MAX] {
        let bytes = Raw::new().put("key", unknown, [0; 32]).build();
        table.add(format!("value_type_{unknown}"), bytes, out_of_range("value type", unknown.into()));
    }
    for bad in [2, 255u8] {
        let bytes = Raw::new().put("key", kind::BOOL, [bad]).build();
        table.add(format!("bool_{bad}"), bytes, out_of_range("bool", bad.into()));
    }
    for len in [40, (1 << 30) + 1, 1 << 32, (1 << 63) - 1, 1 << 63, u64::MAX - 7, u64::MAX] {
        let bytes = Raw::new().put("key", kind::STRING, [&len.to_le_bytes()[..], b"text"].concat()).build();
        table.add(format!("string_length_{len}"), bytes, cut("string"));
    }
    for (name, bytes) in
        [("latin1", &b"\xE4"[..]), ("half", b"\xC3"), ("surrogate", b"\xED\xA0\x80"), ("long", b"\xC0\x80")]
    {
        let bytes = Raw::new().put("key", kind::STRING, text(bytes)).build();
        table.add(format!("string_not_utf8_{name}"), bytes, |e| {
            matches!(e, FormatError::NotUtf8 { what: "string", offset: 39 })
        });
    }
    for (kind, name, element) in kind::SCALARS {
        let value = &element[..element.len() - 1];
        let field = if kind == kind::STRING { "string" } else { "value" };
        let bytes = Raw::new().put_u32("pad", 0).put("key", kind, value).build();
        let expected = move |e: &FormatError| cut(field)(e) || cut("metadata entries")(e);
        table.add(format!("value_cut_{name}"), bytes, expected);
    }
    table.add("string_without_length", Raw::new().put("key", kind::STRING, [0; 7]).build(), cut("string length"));
}

fn arrays(table: &mut Table) {
    let array_file = |kind: u32, count: u64, elements: &[u8]| {
        Raw::new().put("key", kind::ARRAY, array(kind, count, elements)).build()
    };
    for (kind, name, element) in kind::SCALARS {
        let size = if kind == kind::STRING { 8 } else { element.len() as u64 };
        // Multiplied by the size of an element this wraps to that of one element, which is there.
        let wraps = (u64::MAX / size).checked_add(2);
        for count in [2, (1 << 30) + 1, 1 << 63, u64::MAX].into_iter().chain(wraps) {
            table.add(format!("array_of_{name}_counts_{count}"), array_file(kind, count, element), cut("array"));
        }
    }
    for unknown in [13, 255, u32::MAX] {
        for count in [0, 1, u64::MAX] {
            table.add(
                format!("array_element_type_{unknown}_counts_{count}"),
                array_file(unknown, count, &[0; 32]),
                out_of_range("array element type", unknown.into()),
            );
        }
    }
    let nested = |e: &FormatError| matches!(e, FormatError::NestedArray { key, .. } if key == "key");
    let strings = array(kind::STRING, 1, text("x"));
    table.add("array_of_arrays_of_strings", array_file(kind::ARRAY, 1, &strings), nested);
    table.add("array_of_no_arrays", array_file(kind::ARRAY, 0, &[]), nested);
    for depth in [2, 65, 100_000] {
        let bytes = array(kind::ARRAY, 1, []).repeat(depth);
        table.add(format!("arrays_nested_{depth}"), Raw::new().put("key", kind::ARRAY, bytes).build(), nested);
    }
    let bools = array_file(kind::BOOL, 3, &[0, 1, 2]);
    table.add("array_of_bools_with_2", bools, |e| {
        matches!(e, FormatError::OutOfRange { what: "bool", offset: 53, found: 2, .. })
    });
    let not_utf8 =
        |at: u64| move |e: &FormatError| matches!(e, FormatError::NotUtf8 { what: "string", offset } if *offset == at);
    let elements = [text("ok"), text(b"\xFF")].concat();
    table.add("array_of_strings_not_utf8", array_file(kind::STRING, 2, &elements), not_utf8(61));
    // Each half is bad although the text of both together is good.
    let elements = [text(b"\xC3"), text(b"\xA4")].concat();
    table.add("array_of_strings_splits_a_character", array_file(kind::STRING, 2, &elements), not_utf8(51));
    for len in [9, 1 << 31, 1 << 63, u64::MAX] {
        let elements = [&text("ok")[..], &len.to_le_bytes(), b"12345678"].concat();
        table.add(format!("array_string_length_{len}"), array_file(kind::STRING, 2, &elements), cut("string"));
    }
    let elements = [&text("a long string")[..], &[0; 4]].concat();
    table.add("array_string_without_length", array_file(kind::STRING, 2, &elements), cut("string length"));
    table.add("array_without_count", Raw::new().put("key", kind::ARRAY, [0; 11]).build(), cut("array length"));
    table.add("array_without_type", Raw::new().put("key", kind::ARRAY, [0; 3]).build(), cut("array element type"));
    // Small files that made other parsers allocate, or loop, for ever.
    table.add("amplify_43_bytes", &array_file(kind::U8, 1 << 63, &[])[..43], cut("array length"));
    table.add("amplify_51_bytes", array_file(kind::U8, 1 << 63, &[]), cut("array"));
    table.add("amplify_64_bytes", array_file(kind::STRING, 1 << 60, &[0; 13]), cut("array"));
}

/// Every accessor meets every kind it does not take, and numbers out of its range.
fn wrong_kinds(table: &mut Table) {
    let asks: [(&str, Ask, &[&str]); 8] = [
        ("usize", |m| m.usize("key").map(drop), &["u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64"]),
        ("f32", |m| m.f32("key").map(drop), &["f32", "f64"]),
        ("bool", |m| m.bool("key").map(drop), &["bool"]),
        ("str", |m| m.str("key").map(drop), &["string"]),
        ("usizes", |m| m.usizes("key").map(drop), &["u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64"]),
        ("f32s", |m| m.f32s("key").map(drop), &["f32", "f64"]),
        ("bools", |m| m.bools("key").map(drop), &["bool"]),
        ("strings", |m| m.strings("key").map(drop), &["string"]),
    ];
    let wrong = |e: &FormatError| matches!(e, FormatError::MetadataKind { key, .. } if key == "key");
    for (accessor, ask, takes) in asks {
        let plural =
            accessor.ends_with("zes") || accessor.ends_with("2s") || accessor.ends_with("ls") || accessor == "strings";
        for (kind, name, element) in kind::SCALARS {
            let single = Raw::new().put("key", kind, element).build();
            let many = Raw::new().put("key", kind::ARRAY, array(kind, 1, element)).build();
            let (same, other) = if plural { (many, single) } else { (single, many) };
            if !takes.contains(&name) {
                table.ask(format!("{accessor}_asked_of_{name}"), same, ask, wrong);
            }
            table.ask(format!("{accessor}_asked_of_{name}_with_wrong_rank"), other, ask, wrong);
        }
    }
    let negative = |e: &FormatError| matches!(e, FormatError::MetadataRange { key, found: ..0, .. } if key == "key");
    for (kind, name, size) in [(kind::I8, "i8", 1), (kind::I16, "i16", 2), (kind::I32, "i32", 4), (kind::I64, "i64", 8)]
    {
        let minus_one = vec![0xFF; size];
        let single = Raw::new().put("key", kind, &minus_one).build();
        table.ask(format!("negative_{name}"), single, |m| m.usize("key").map(drop), negative);
        let elements = [vec![0; size], minus_one].concat();
        let many = Raw::new().put("key", kind::ARRAY, array(kind, 2, elements)).build();
        table.ask(format!("negative_{name}_in_array"), many, |m| m.usizes("key").map(drop), negative);
    }
    for (name, number) in [("nan", f32::NAN), ("infinite", f32::INFINITY), ("minus_zero", -0.0)] {
        let bytes = Raw::new().put("key", kind::F32, number.to_le_bytes()).build();
        table.ask(format!("{name}_where_a_size_is_expected"), bytes, |m| m.usize("key").map(drop), wrong);
    }
}

/// A file whose only description is `bytes`, with enough data for anything sensible.
fn described(bytes: Vec<u8>) -> Vec<u8> {
    Raw::new().describe(bytes).data([0; 4096]).build()
}

fn descriptions(table: &mut Table) {
    for rank in [0, 5, 1 << 31, u32::MAX] {
        let mut bytes = text("w");
        bytes.extend(rank.to_le_bytes());
        bytes.extend([1; 64]);
        table.add(format!("rank_{rank}"), described(bytes), out_of_range("tensor rank", rank.into()));
    }
    for position in 0..4 {
        let mut dims = [1; 4];
        dims[position] = 0;
        let bytes = described(tensor("w", &dims, 0, 0));
        table.add(format!("dimension_{position}_is_0"), bytes, out_of_range("tensor dimension", 0));
    }
    let overflow = |e: &FormatError| matches!(e, FormatError::SizeOverflow { tensor, .. } if tensor == "w");
    let partial = |e: &FormatError| matches!(e, FormatError::PartialBlock { tensor, .. } if tensor == "w");
    let truncated = |e: &FormatError| matches!(e, FormatError::Truncated { tensor, .. } if tensor == "w");
    for ty in QuantType::ALL {
        let (name, id, block) = (ty.name(), ty.ggml_id(), ty.block_len() as u64);
        let product = described(tensor("w", &[1 << 32, 1 << 32], id, 0));
        table.add(format!("{name}_product_wraps_to_0"), product, overflow);
        let product = described(tensor("w", &[1 << 22, 1 << 22, 1 << 22, 3], id, 0));
        table.add(format!("{name}_product_wraps"), product, overflow);
        let large = described(tensor("w", &[1 << 40, 1], id, 0));
        table.add(format!("{name}_tensor_of_a_terabyte"), large, truncated);
        if block > 1 {
            let bytes = described(tensor("w", &[block + 1, 2], id, 0));
            table.add(format!("{name}_row_of_a_block_and_one"), bytes, partial);
            // The elements are whole blocks, the rows are not.
            let bytes = described(tensor("w", &[block / 2, 2], id, 0));
            table.add(format!("{name}_row_of_half_a_block"), bytes, partial);
        }
    }
    let bytes = described(tensor("w", &[1 << 62, 1], 0, 0));
    table.add("bytes_wrap_though_elements_do_not", bytes, overflow);
    table.add("dimension_of_2_to_63", described(tensor("w", &[1 << 63], 24, 0)), truncated);
    table.add("dimension_of_minus_1", described(tensor("w", &[u64::MAX], 24, 0)), truncated);

    for (id, ty) in [
        (4, "Q4_2"),
        (5, "Q4_3"),
        (9, "Q8_1"),
        (15, "Q8_K"),
        (16, "IQ2_XXS"),
        (26, "I32"),
        (28, "F64"),
        (31, "Q4_0_4_4"),
        (33, "Q4_0_8_8"),
        (36, "IQ4_NL_4_4"),
        (38, "IQ4_NL_8_8"),
        (34, "TQ1_0"),
        (43, "unknown"),
        (255, "unknown"),
        (u32::MAX, "unknown"),
    ] {
        table.add(format!("tensor_type_{id}_{ty}"), described(tensor("w", &[256], id, 0)), move |e| {
            matches!(e, FormatError::UnsupportedTensorType { tensor, name, id: found, .. }
                if tensor == "w" && *name == ty && *found == id)
        });
    }

    for len in [0, 64, 65, 1 << 31, 1 << 63, u64::MAX] {
        let mut bytes = tensor("x".repeat(80), &[4], 0, 0);
        bytes[..8].copy_from_slice(&len.to_le_bytes());
        table.add(format!("tensor_name_length_{len}"), described(bytes), out_of_range("tensor name length", len));
    }
    for (name, bad) in [("nul", '\0'), ("newline", '\n'), ("c1", '\u{85}')] {
        let bytes = described(tensor(format!("w{bad}"), &[4], 0, 0));
        table.add(
            format!("tensor_name_with_{name}"),
            bytes,
            move |e| matches!(e, FormatError::InvalidCharacter { what: "tensor name", found, .. } if *found == bad),
        );
    }
    let bytes = described(tensor(b"\xFF\xFF", &[4], 0, 0));
    table.add("tensor_name_not_utf8", bytes, |e| matches!(e, FormatError::NotUtf8 { what: "tensor name", .. }));

    let pair = |first: Vec<u8>, second: Vec<u8>| Raw::new().describe(first).describe(second).data([0; 96]).build();
    let (a, b) = (tensor("a", &[12], 0, 0), |offset| tensor("b", &[8], 0, offset));
    table.add(
        "tensor_twice",
        pair(a.clone(), tensor("a", &[8], 0, 64)),
        |e| matches!(e, FormatError::DuplicateTensor { tensor } if tensor == "a"),
    );
    let misplaced = |at: u64| move |e: &FormatError| matches!(e, FormatError::TensorOffset { tensor, expected: 64, found, .. } if tensor == "b" && *found == at);
    for (name, offset) in [
        ("unaligned", 65),
        ("not_padded", 48),
        ("overlapping", 32),
        ("same", 0),
        ("after_a_gap", 96),
        ("past_the_end", 1 << 20),
        ("wrapping", u64::MAX - 31),
        ("of_minus_1", u64::MAX),
    ] {
        table.add(format!("tensor_offset_{name}"), pair(a.clone(), b(offset)), misplaced(offset));
    }
    let first_off = pair(tensor("a", &[12], 0, 32), b(96));
    table.add(
        "first_tensor_not_at_0",
        first_off,
        |e| matches!(e, FormatError::TensorOffset { tensor, expected: 0, found: 32, .. } if tensor == "a"),
    );
    let in_head = described(tensor("w", &[4], 0, (-64i64) as u64));
    table.add("tensor_inside_the_metadata", in_head, |e| matches!(e, FormatError::TensorOffset { .. }));
    let order = pair(tensor("a", &[12], 0, 32), tensor("b", &[8], 0, 0));
    table.add("tensors_out_of_order", order, |e| matches!(e, FormatError::TensorOffset { .. }));
    let sum = pair(tensor("a", &[1 << 62], 24, 0), tensor("b", &[3 << 62], 24, 1 << 62));
    table.add("sum_of_sizes_wraps", sum, |e| matches!(e, FormatError::Truncated { tensor, .. } if tensor == "a"));

    let whole = tensor("weight", &[4, 1], 0, 0);
    for (name, len, field) in [
        ("name", 10, "tensor name"),
        ("rank", 16, "tensor rank"),
        ("dimensions", 30, "tensor dimension"),
        ("type", 36, "tensor type"),
        ("offset", 40, "tensor offset"),
    ] {
        // A first description is long enough to get past the check of the counts.
        let bytes = Raw::new().describe(tensor("x".repeat(60), &[4], 0, 0)).describe(&whole[..len]).head();
        table.add(format!("description_cut_in_{name}"), bytes, cut(field));
    }
}

fn alignment_and_data(table: &mut Table) {
    for alignment in [0, 3, 24, 33, 1 << 21, 1 << 31, u32::MAX] {
        let bytes = Raw::new().put_u32("general.alignment", alignment).build();
        table.add(
            format!("alignment_{alignment}"),
            bytes,
            move |e| matches!(e, FormatError::InvalidAlignment { found, .. } if *found == alignment),
        );
    }
    for (kind, name, element) in kind::SCALARS.into_iter().filter(|(kind, ..)| *kind != kind::U32) {
        let bytes = Raw::new().put("general.alignment", kind, element).build();
        table.add(
            format!("alignment_is_{name}"),
            bytes,
            |e| matches!(e, FormatError::MetadataKind { key, expected: "u32", .. } if key == "general.alignment"),
        );
    }
    let truncated =
        |need: usize| move |e: &FormatError| matches!(e, FormatError::Truncated { need: n, .. } if *n == need);
    let good = Raw::new().describe(tensor("w", &[8], 0, 0)).data([1; 32]);
    let (head, bytes) = (good.head(), good.build());
    table.add("data_section_missing", head, truncated(bytes.len()));
    table.add("data_section_empty", &bytes[..bytes.len() - 32], truncated(bytes.len()));
    table.add("data_short_by_1", &bytes[..bytes.len() - 1], truncated(bytes.len()));
    for extra in [1, 32, 4096] {
        let bytes = good.clone().data(vec![0; extra]).build();
        table.add(
            format!("{extra}_bytes_after_the_end"),
            bytes,
            move |e| matches!(e, FormatError::TrailingBytes { found, .. } if *found == extra),
        );
    }
    let no_tensors = Raw::new().put_u32("key", 1).data([0; 1]).build();
    table.add("data_without_tensors", no_tensors, |e| matches!(e, FormatError::TrailingBytes { found: 1, .. }));
    let other = good.put_u32("general.alignment", 64).build();
    table.add("data_placed_by_another_alignment", other, |e| {
        matches!(e, FormatError::Truncated { .. } | FormatError::TrailingBytes { .. })
    });
}

fn shards(table: &mut Table) {
    let shard = |no: u32, count: u32| Raw::new().put_u32("split.no", no).put_u32("split.count", count);
    let mismatch = |field: &'static str| move |e: &FormatError| matches!(e, FormatError::ShardMismatch { what, .. } if *what == field);
    table.add("one_shard_of_three", shard(0, 3).build(), mismatch("split.count"));
    table.add("split_count_0", shard(0, 0).build(), mismatch("split.count"));
    table.add("split_count_100000", shard(0, 100_000).build(), mismatch("split.count"));
    table.add("split_no_beyond_count", shard(3, 3).build(), mismatch("split.no"));
    let tensors = shard(0, 1).put_u32("split.tensors.count", 5).build();
    table.add("split_tensors_count_wrong", tensors, mismatch("split.tensors.count"));
    table.add("split_no_missing", Raw::new().put_u32("split.count", 2).build(), |e| {
        matches!(e, FormatError::MissingMetadata { key: "split.no" })
    });
    let negative = Raw::new().put("split.no", kind::I32, [0xFF; 4]).put_u32("split.count", 2).build();
    table.add("split_no_negative", negative, |e| matches!(e, FormatError::MetadataRange { found: -1, .. }));
    let negative = Raw::new().put("split.count", kind::I16, [0xFF; 2]).build();
    table.add("split_count_negative", negative, |e| matches!(e, FormatError::MetadataRange { found: -1, .. }));
    table.add(
        "split_count_is_text",
        Raw::new().put_str("split.count", "2").build(),
        |e| matches!(e, FormatError::MetadataKind { key, .. } if key == "split.count"),
    );
}

/// The description of packed tensors, as stored; entries can be left out.
struct Pack<'a> {
    version: Option<u32>,
    names: Option<&'a [&'a str]>,
    types: Option<&'a [&'a str]>,
    shapes: Option<&'a [u64]>,
}

impl Pack<'_> {
    /// Of a file with three tensors: `a`, 576 bytes, and `f`, plain floats, and `b`, 2304 bytes in two dimensions.
    fn build(&self) -> Vec<u8> {
        let strings = |found: &[&str]| {
            let elements: Vec<u8> = found.iter().flat_map(text).collect();
            array(kind::STRING, found.len() as u64, elements)
        };
        let mut raw = Raw::new();
        if let Some(version) = self.version {
            raw = raw.put_u32("halfbyte.pack.version", version);
        }
        for (key, found) in [("names", self.names), ("types", self.types)] {
            if let Some(found) = found {
                raw = raw.put(format!("halfbyte.pack.{key}"), kind::ARRAY, strings(found));
            }
        }
        if let Some(found) = self.shapes {
            let elements: Vec<u8> = found.iter().flat_map(|dim| dim.to_le_bytes()).collect();
            raw = raw.put("halfbyte.pack.shapes", kind::ARRAY, array(kind::U64, found.len() as u64, elements));
        }
        raw.describe(tensor("a", &[576], 24, 0))
            .describe(tensor("f", &[8], 0, 576))
            .describe(tensor("b", &[1152, 2], 24, 608))
            .data([1; 576 + 32 + 2304])
            .build()
    }
}

fn packed(table: &mut Table) {
    let good = || Pack { version: Some(1), names: Some(&["a"]), types: Some(&["q4_0"]), shapes: Some(&[64, 16, 1]) };
    let file = Gguf::from_bytes(good().build()).expect("a good file");
    assert!(file.tensor("a").is_some_and(|a| a.shape() == [64, 16] && a.panels().is_some()));

    for version in [0, 2, u32::MAX] {
        let bytes = Pack { version: Some(version), ..good() }.build();
        let expected =
            move |e: &FormatError| matches!(e, FormatError::PackVersion { found, .. } if *found == version as usize);
        table.add(format!("pack_version_{version}"), bytes, expected);
    }
    let text_version = Raw::new().put_str("halfbyte.pack.version", "1").build();
    table.add("pack_version_is_text", text_version, |e| matches!(e, FormatError::MetadataKind { .. }));
    let missing = |name: &'static str| move |e: &FormatError| matches!(e, FormatError::MissingMetadata { key } if key.ends_with(name));
    table.add("pack_version_missing", Pack { version: None, ..good() }.build(), missing("version"));
    table.add("pack_names_missing", Pack { names: None, ..good() }.build(), missing("names"));
    table.add("pack_types_missing", Pack { types: None, ..good() }.build(), missing("types"));
    table.add("pack_shapes_missing", Pack { shapes: None, ..good() }.build(), missing("shapes"));
    let shapes = Raw::new().put_u32("halfbyte.pack.version", 1);
    let none = array(kind::STRING, 0, []);
    let shapes = shapes.put("halfbyte.pack.names", kind::ARRAY, &none).put("halfbyte.pack.types", kind::ARRAY, none);
    let narrow = shapes.put("halfbyte.pack.shapes", kind::ARRAY, array(kind::U32, 0, [])).build();
    table.add("pack_shapes_of_u32", narrow, |e| matches!(e, FormatError::MetadataKind { .. }));

    let length = |name: &'static str, there: usize, wanted: usize| {
        move |e: &FormatError| {
            matches!(e, FormatError::PackLength { key, found, expected }
            if key.ends_with(name) && (*found, *expected) == (there, wanted))
        }
    };
    let two = ["q4_0", "q4_0"];
    table.add("pack_types_too_many", Pack { types: Some(&two), ..good() }.build(), length("types", 2, 1));
    table.add("pack_types_too_few", Pack { types: Some(&[]), ..good() }.build(), length("types", 0, 1));
    table.add("pack_shapes_too_few", Pack { shapes: Some(&[64, 16]), ..good() }.build(), length("shapes", 2, 3));
    let four = [64, 16, 1, 1];
    table.add("pack_shapes_too_many", Pack { shapes: Some(&four), ..good() }.build(), length("shapes", 4, 3));

    let absent = Pack { names: Some(&["c"]), ..good() }.build();
    table.add(
        "pack_no_such_tensor",
        absent,
        |e| matches!(e, FormatError::PackMissing { index: 0, tensor } if tensor == "c"),
    );
    let shapes = [64, 16, 1, 64, 16, 1];
    let twice = Pack { names: Some(&["a", "a"]), types: Some(&two), shapes: Some(&shapes), ..good() }.build();
    table.add(
        "pack_a_tensor_twice",
        twice,
        |e| matches!(e, FormatError::PackTwice { index: 1, tensor } if tensor == "a"),
    );
    for (name, ty) in [("f", QuantType::F32), ("b", QuantType::I8)] {
        let bytes = Pack { names: Some(&[name]), ..good() }.build();
        let expected = move |e: &FormatError| {
            matches!(e, FormatError::PackStored { index: 0, tensor, ty: found, .. }
            if tensor == name && *found == ty)
        };
        table.add(format!("pack_of_tensor_{name}"), bytes, expected);
    }
    for ty in ["", "Q4_0", "q4_1", "q4_0 ", "u4_g16", "f32"] {
        let bytes = Pack { types: Some(&[ty]), ..good() }.build();
        let expected = move |e: &FormatError| {
            matches!(e, FormatError::PackType { index: 0, tensor, found }
            if tensor == "a" && found == ty)
        };
        table.add(format!("pack_type_{ty:?}"), bytes, expected);
    }
    let wrong = [
        [0, 16, 1],
        [64, 0, 1],
        [64, 16, 0],
        [63, 16, 1],
        [32, 32, 1],
        [64, 17, 1],
        [128, 16, 1],
        [64, 1, 16],
        [64, 8, 2],
        [u64::MAX, 16, 1],
        [1 << 63, 16, 1],
        [64, 1 << 63, 1],
        [64, 1 << 60, 1 << 60],
        [1 << 62, 1 << 62, 16],
    ];
    for shape in wrong {
        let bytes = Pack { shapes: Some(&shape), ..good() }.build();
        let expected = move |e: &FormatError| {
            matches!(e, FormatError::PackShape { index: 0, shape: found, bytes: 576, .. }
            if *found == shape)
        };
        table.add(format!("pack_shape_{shape:?}"), bytes, expected);
    }
    // As many bytes as another format of this shape takes.
    let bytes = Pack { types: Some(&["q5_0"]), ..good() }.build();
    table.add("pack_type_of_other_size", bytes, |e| matches!(e, FormatError::PackShape { .. }));
}
