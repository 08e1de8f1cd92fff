//! Bad inputs: the table of [`support::fixtures`], every cut and every flipped bit of a small good file.

mod support;

use halfbyte_formats::{FormatError, gguf::Gguf};
use support::{check, fixtures, raw::valid};

#[test]
fn every_fixture_gives_its_error() {
    let fixtures = fixtures::all();
    let mut wrong = Vec::new();
    for fixture in &fixtures {
        match fixture.run() {
            Err(error) if (fixture.expected)(&error) => {}
            Err(error) => wrong.push(format!("{}: {error:?}", fixture.name)),
            Ok(()) => wrong.push(format!("{}: accepted", fixture.name)),
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), fixtures.len(), wrong.join("\n"));
    println!("{} bad inputs", fixtures.len());
    assert!(fixtures.len() >= 126, "{}", fixtures.len());
}

#[test]
fn fixture_names_are_unique() {
    let mut names: Vec<_> = fixtures::all().into_iter().map(|fixture| fixture.name).collect();
    let len = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), len);
}

#[test]
fn every_message_is_one_line_in_lower_case() {
    for fixture in fixtures::all() {
        let message = fixture.run().unwrap_err().to_string();
        let starts = message.starts_with(char::is_lowercase) || message.starts_with("GGUF");
        assert!(!message.contains('\n') && !message.ends_with('.') && starts, "{}: {message}", fixture.name);
    }
}

#[test]
fn the_good_file_is_good() {
    let file = Gguf::from_bytes(valid().build()).unwrap();
    assert_eq!(file.tensors().len(), 3);
    assert_eq!(file.metadata().str("general.architecture").unwrap(), Some("gpt-oss"));
    assert_eq!(file.metadata().str("test.Wide-Key x").unwrap(), Some("mit Umlaut: ä"));
    assert_eq!(*file.tensor("output_norm.weight").unwrap().data, [1; 20]);
    assert_eq!(file.tensor("blk.0.ffn.weight").unwrap().dims, [256, 1, 1, 1]);
    check::gguf(&valid().build());
}

#[test]
fn version_2_is_read_like_3() {
    let mut bytes = valid().build();
    bytes[4] = 2;
    assert_eq!(Gguf::from_bytes(bytes).unwrap().version(), 2);
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let (good, head) = (valid().build(), valid().head().len());
    // The last tensor ends 16 bytes before the file; without this padding it is complete.
    let last = good.len() - 16;
    for len in 0..good.len() {
        let cut = good[..len].to_vec();
        match Gguf::from_bytes(cut) {
            Ok(_) => assert!(len >= last, "accepted at {len}"),
            Err(FormatError::NotGguf { .. }) => assert_eq!(len, 0),
            Err(FormatError::OutOfBounds { offset, .. }) => assert!(len < head && offset <= len as u64, "at {len}"),
            Err(FormatError::Truncated { need, have, .. }) => assert!(have == len && need > len && len >= head),
            Err(error) => panic!("cut at {len}: {error:?}"),
        }
    }
}

#[test]
fn no_flipped_bit_breaks_the_reader() {
    let good = valid().build();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        check::gguf(&bad);
    }
}

#[test]
fn no_overwritten_field_breaks_the_reader() {
    let good = valid().build();
    for at in 0..valid().head().len() - 8 {
        for number in [0, 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 63, u64::MAX] {
            let mut bad = good.clone();
            bad[at..at + 8].copy_from_slice(&u64::to_le_bytes(number));
            check::gguf(&bad);
            let mut bad = good.clone();
            bad[at..at + 4].copy_from_slice(&u32::to_le_bytes(number as u32));
            check::gguf(&bad);
        }
    }
}
