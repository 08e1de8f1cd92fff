//! Writing that fails: sinks that break at every byte, files that must not be left behind, wrong order. A full disk is
//! in `gguf_full_disk.rs`.

mod scratch;
mod support;

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use halfbyte_formats::{
    FormatError, QuantType,
    gguf::{Gguf, GgufWriter, PACK_ALIGNMENT},
    quant::{PanelType, U4Group},
};
use support::{check, raw};

/// Two tensors and some metadata.
fn writer() -> GgufWriter {
    let mut writer = GgufWriter::new();
    writer.put("general.architecture", "gpt-oss").unwrap();
    writer.put("gpt-oss.block_count", 2u32).unwrap();
    writer.declare("a", &[32], QuantType::Q4_0).unwrap();
    writer.declare("b", &[3], QuantType::F32).unwrap();
    writer
}

fn write_all<W: Write>(sink: W) -> Result<W, FormatError> {
    let mut stream = writer().write_to(sink)?;
    stream.write_tensor("a", &[5; 18])?;
    stream.write_part("b", &[6; 5])?;
    stream.write_part("b", &[])?;
    stream.write_part("b", &[7; 7])?;
    stream.finish()
}

/// Takes `room` bytes, `step` at a time, then fails.
struct Sink {
    got: Vec<u8>,
    room: usize,
    step: usize,
    interrupt: bool,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.interrupt = !self.interrupt;
        if self.interrupt {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = bytes.len().min(self.step).min(self.room - self.got.len());
        if len == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.got.extend(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.got.len() == self.room { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

#[test]
fn short_and_interrupted_writes_give_the_same_file() {
    let whole = write_all(Vec::new()).unwrap();
    for step in [1, 3, 17] {
        let sink = Sink { got: Vec::new(), room: usize::MAX, step, interrupt: false };
        assert!(write_all(sink).unwrap().got == whole);
    }
}

#[test]
fn a_sink_that_is_full_at_any_byte_is_an_error() {
    let whole = write_all(Vec::new()).unwrap();
    assert!(Gguf::from_bytes(whole.clone()).is_ok());
    for room in 0..=whole.len() {
        let result = write_all(Sink { got: Vec::new(), room, step: 7, interrupt: false });
        let full = |e: &FormatError| matches!(e, FormatError::Io { action: "write", source, .. } if source.kind() == io::ErrorKind::StorageFull);
        assert!(result.is_err_and(|e| full(&e)), "full at {room}");
    }
}

#[test]
fn after_an_error_nothing_is_written() {
    let room = write_all(Vec::new()).unwrap().len() - 40;
    let mut stream = writer().write_to(Sink { got: Vec::new(), room, step: 7, interrupt: false }).unwrap();
    assert!(stream.write_tensor("a", &[5; 18]).is_err());
    assert!(stream.write_tensor("a", &[5; 18]).is_err());
    assert!(stream.finish().is_err());
}

#[test]
fn the_last_tensor_is_padded() {
    let whole = write_all(Vec::new()).unwrap();
    assert!(whole.len().is_multiple_of(32));
    assert_eq!(whole[whole.len() - 32..], [&[6; 5][..], &[7; 7], &[0; 20]].concat());
}

#[test]
fn data_must_come_in_order_and_in_full() {
    let mut stream = writer().write_to(Vec::new()).unwrap();
    let order = |result: Result<(), FormatError>, next: &str| matches!(result, Err(FormatError::WriteOrder { expected, .. }) if expected == next);
    let length = |result: Result<(), FormatError>, left: usize| matches!(result, Err(FormatError::LengthMismatch { expected, .. }) if expected == left);
    assert!(order(stream.write_tensor("b", &[0; 12]), "a"));
    assert!(order(stream.write_tensor("unknown", &[]), "a"));
    assert!(length(stream.write_tensor("a", &[0; 17]), 18));
    assert!(length(stream.write_tensor("a", &[0; 19]), 18));
    stream.write_part("a", &[0; 10]).unwrap();
    assert!(order(stream.write_part("b", &[0; 1]), "a"));
    assert!(length(stream.write_part("a", &[0; 9]), 8));
    stream.write_part("a", &[0; 8]).unwrap();
    stream.write_part("b", &[0; 11]).unwrap();
    assert!(order(stream.finish().map(drop), "b"));
    let mut stream = writer().write_to(Vec::new()).unwrap();
    stream.write_tensor("a", &[0; 18]).unwrap();
    assert!(order(stream.write_tensor("a", &[0; 18]), "b"));
    stream.write_tensor("b", &[0; 12]).unwrap();
    assert!(order(stream.write_tensor("b", &[0; 12]), ""));
    stream.finish().unwrap();
}

#[test]
fn the_writer_keeps_the_rules_of_the_reader() {
    let mut writer = writer();
    let put = |writer: &mut GgufWriter, key: &str| writer.put(key, 1u32).unwrap_err();
    assert!(matches!(put(&mut writer, ""), FormatError::OutOfRange { what: "key length", .. }));
    assert!(matches!(put(&mut writer, &"k".repeat(65_536)), FormatError::OutOfRange { what: "key length", .. }));
    assert!(matches!(put(&mut writer, "a\nb"), FormatError::InvalidCharacter { found: '\n', .. }));
    assert!(matches!(put(&mut writer, "gpt-oss.block_count"), FormatError::DuplicateKey { .. }));
    for alignment in [0, 3, 1 << 21] {
        let refused = writer.put("general.alignment", alignment).unwrap_err();
        assert!(matches!(refused, FormatError::InvalidAlignment { found, .. } if found == alignment));
    }
    assert!(matches!(writer.put("general.alignment", 32u64), Err(FormatError::MetadataKind { found: "u64", .. })));
    let mut declare = |name: &str, dims: &[usize], ty| writer.declare(name, dims, ty).unwrap_err();
    assert!(matches!(declare("a", &[1], QuantType::F32), FormatError::DuplicateTensor { .. }));
    assert!(matches!(declare("", &[1], QuantType::F32), FormatError::OutOfRange { .. }));
    assert!(matches!(declare(&"n".repeat(64), &[1], QuantType::F32), FormatError::OutOfRange { .. }));
    assert!(matches!(declare("n\0", &[1], QuantType::F32), FormatError::InvalidCharacter { .. }));
    assert!(matches!(declare("n", &[], QuantType::F32), FormatError::OutOfRange { what: "tensor rank", .. }));
    assert!(matches!(declare("n", &[1; 5], QuantType::F32), FormatError::OutOfRange { what: "tensor rank", .. }));
    assert!(matches!(declare("n", &[4, 0], QuantType::F32), FormatError::OutOfRange { what: "tensor dimension", .. }));
    assert!(matches!(declare("n", &[33], QuantType::Q4_0), FormatError::PartialBlock { len: 33, block: 32, .. }));
    assert!(matches!(declare("n", &[1 << 40, 1 << 40], QuantType::F32), FormatError::SizeOverflow { .. }));
}

#[test]
fn more_metadata_than_the_reader_takes_is_refused() {
    // Every kind of value, then more bytes than all entries may take: zeros that nobody touches take no memory.
    const LIMIT: u64 = 256 << 20;
    let file = Gguf::from_bytes(raw::valid().build()).unwrap();
    let mut writer = GgufWriter::new();
    for (key, value) in file.metadata().iter() {
        writer.put(key, value.clone()).unwrap();
    }
    let before = writer.clone().write_to(Vec::new()).unwrap().finish().unwrap().len() as u64;
    writer.put("k", vec![0u8; LIMIT as usize]).unwrap();
    let mut sink = Vec::new();
    let error = writer.write_to(&mut sink).map(drop).unwrap_err();
    let FormatError::OutOfRange { what: "end of metadata", found, max: LIMIT, .. } = error else { panic!("{error}") };
    assert_eq!(found, before + 8 + 1 + 4 + 4 + 8 + LIMIT, "key, two kinds, length, elements");
    assert!(sink.is_empty());
}

/// A folder with a file called `model.gguf` that says `old`.
fn folder(test: &str) -> PathBuf {
    let folder = scratch::scratch().join("gguf_write").join(test);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("model.gguf"), "old").unwrap();
    folder
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The folder holds the old file and nothing else.
fn assert_untouched(folder: &Path) {
    assert_eq!(names(folder), ["model.gguf"]);
    assert_eq!(fs::read(folder.join("model.gguf")).unwrap(), b"old");
}

#[test]
fn a_finished_file_replaces_the_old_one() {
    let folder = folder("finished");
    let mut file = writer().create(folder.join("model.gguf")).unwrap();
    file.write_tensor("a", &[5; 18]).unwrap();
    assert_eq!(fs::read(folder.join("model.gguf")).unwrap(), b"old");
    file.write_part("b", &[6; 5]).unwrap();
    file.write_part("b", &[7; 7]).unwrap();
    file.finish().unwrap();
    assert_eq!(names(&folder), ["model.gguf"]);
    assert!(fs::read(folder.join("model.gguf")).unwrap() == write_all(Vec::new()).unwrap());
}

#[test]
fn a_file_dropped_half_way_leaves_nothing_behind() {
    let folder = folder("dropped");
    let mut file = writer().create(folder.join("model.gguf")).unwrap();
    file.write_tensor("a", &[5; 18]).unwrap();
    drop(file);
    assert_untouched(&folder);
}

#[test]
fn a_file_finished_too_early_leaves_nothing_behind() {
    let folder = folder("early");
    let file = writer().create(folder.join("model.gguf")).unwrap();
    assert!(matches!(file.finish(), Err(FormatError::WriteOrder { .. })));
    assert_untouched(&folder);
}

#[test]
fn two_writers_of_one_file_do_not_meet() {
    let folder = folder("two");
    let path = folder.join("model.gguf");
    let first = GgufWriter::new().create(&path).unwrap();
    let second = GgufWriter::new().create(&path).unwrap();
    first.finish().unwrap();
    second.finish().unwrap();
    assert_eq!(names(&folder), ["model.gguf"]);
    assert!(Gguf::open(&path).is_ok());
}

#[test]
fn a_refused_rename_leaves_nothing_behind() {
    let folder = folder("rename");
    let target = folder.join("taken");
    fs::create_dir(&target).unwrap();
    fs::write(target.join("file"), "").unwrap();
    let file = GgufWriter::new().create(&target).unwrap();
    assert!(matches!(file.finish(), Err(FormatError::Io { action: "rename", .. })));
    assert_eq!(names(&folder).len(), 2);
    assert_eq!(names(&target), ["file"]);
}

#[test]
fn a_missing_folder_is_an_error() {
    let path = folder("no_folder").join("missing/model.gguf");
    assert!(matches!(GgufWriter::new().create(path), Err(FormatError::Io { action: "create", .. })));
    assert!(matches!(GgufWriter::new().create("/"), Err(FormatError::Io { action: "create", .. })));
}

#[test]
fn packed_tensors_are_bytes_with_a_description() {
    let mut writer = GgufWriter::new();
    writer.put("general.architecture", "gpt-oss").unwrap();
    writer.put("general.alignment", PACK_ALIGNMENT).unwrap();
    writer.declare("plain", &[3], QuantType::F32).unwrap();
    writer.declare_packed("matrix", &[64, 17], PanelType::Q4_0).unwrap();
    writer.declare_packed("stack", &[256, 32, 3], PanelType::Q6_K).unwrap();
    let u4 = PanelType::U4 { group: U4Group::G128, zeros: true };
    writer.declare_packed("u4", &[128, 16, 1], u4).unwrap();
    let sizes = [12, 2 * 576, 6 * 3360, 1072];
    let mut stream = writer.write_to(Vec::new()).unwrap();
    for (name, size) in ["plain", "matrix", "stack", "u4"].into_iter().zip(sizes) {
        stream.write_tensor(name, &vec![7; size]).unwrap();
    }
    let bytes = stream.finish().unwrap();
    assert!(bytes.len().is_multiple_of(1 << 16));
    let file = Gguf::from_bytes(bytes.clone()).unwrap();
    let found: Vec<_> = file.tensors().iter().map(|t| (t.ty, t.dims.clone(), t.shape(), t.panels())).collect();
    let bytes_of = |n: usize| (QuantType::I8, vec![n]);
    assert_eq!(found[0], (QuantType::F32, vec![3], &[3][..], None));
    for ((found, size), (shape, ty)) in found[1..].iter().zip(&sizes[1..]).zip([
        (&[64, 17][..], PanelType::Q4_0),
        (&[256, 32, 3], PanelType::Q6_K),
        (&[128, 16], u4),
    ]) {
        let (stored, dims) = bytes_of(*size);
        assert_eq!(*found, (stored, dims, shape, Some(ty)));
    }
    assert!(file.is_packed());
    for tensor in file.tensors() {
        let at = tensor.data.as_ptr() as usize - file.tensors()[0].data.as_ptr() as usize;
        assert!(at.is_multiple_of(1 << 16));
    }
    check::gguf(&bytes);

    let mut writer = GgufWriter::new();
    let mut refused = |dims: &[usize], ty| writer.declare_packed("a", dims, ty).unwrap_err();
    for dims in [&[][..], &[64], &[64, 0], &[0, 16], &[63, 16], &[64, 8, 2], &[64, 16, 1, 1], &[usize::MAX - 63, 16]] {
        let error = refused(dims, PanelType::Q4_0);
        assert!(matches!(&error, FormatError::PackDims { dims: found, .. } if found == dims), "{error:?}");
    }
    writer.declare_packed("a", &[64, 1], PanelType::Q4_0).unwrap();
    assert!(matches!(writer.declare_packed("a", &[64, 1], PanelType::Q4_0), Err(FormatError::DuplicateTensor { .. })));
    writer.put("halfbyte.pack.names", 1u32).unwrap();
    let error = writer.write_to(Vec::new()).unwrap_err();
    assert!(matches!(error, FormatError::DuplicateKey { key, .. } if key == "halfbyte.pack.names"));
}
