//! Files and file system: what opens and what does not, shards, both ways of loading.

mod scratch;
mod support;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use halfbyte_formats::{
    Foreign, FormatError, QuantType,
    gguf::{Gguf, GgufWriter, Load},
};
use support::raw::valid;

/// A fresh folder for one test.
fn folder(test: &str) -> PathBuf {
    let folder = scratch::scratch().join("gguf_files").join(test);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// What is wrong with `path`, which must be the same for both ways of loading.
fn refused(path: &Path) -> FormatError {
    let [mapped, copied] = [Load::Map, Load::Copy].map(|how| Gguf::open_with(path, how).unwrap_err());
    assert_eq!(format!("{mapped:?}"), format!("{copied:?}"));
    mapped
}

#[test]
fn mapped_and_copied_files_are_equal() {
    let path = folder("equal").join("model.gguf");
    fs::write(&path, valid().build()).unwrap();
    let [mapped, copied] = [Load::Map, Load::Copy].map(|how| Gguf::open_with(&path, how).unwrap());
    assert_eq!(mapped.metadata().iter().collect::<Vec<_>>(), copied.metadata().iter().collect::<Vec<_>>());
    for (a, b) in mapped.tensors().iter().zip(copied.tensors()) {
        assert_eq!((&a.name, &a.dims, a.ty, &*a.data), (&b.name, &b.dims, b.ty, &*b.data));
    }
}

#[test]
fn a_copied_file_survives_truncation() {
    let path = folder("truncated").join("model.gguf");
    fs::write(&path, valid().build()).unwrap();
    let file = Gguf::open_with(&path, Load::Copy).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    assert_eq!(*file.tensor("output_norm.weight").unwrap().data, [1; 20]);
}

#[test]
fn a_mapped_file_survives_its_replacement() {
    let path = folder("replaced").join("model.gguf");
    fs::write(&path, valid().build()).unwrap();
    let file = Gguf::open(&path).unwrap();
    GgufWriter::new().create(&path).unwrap().finish().unwrap();
    assert_eq!(*file.tensor("output_norm.weight").unwrap().data, [1; 20]);
    assert!(Gguf::open(&path).unwrap().tensors().is_empty());
}

#[test]
fn an_empty_file_is_refused() {
    let path = folder("empty").join("model.gguf");
    File::create(&path).unwrap();
    assert!(matches!(refused(&path), FormatError::NotGguf { found: Foreign::Empty }));
}

#[test]
fn a_missing_file_is_refused() {
    let path = folder("missing").join("model.gguf");
    assert!(matches!(refused(&path), FormatError::Io { action: "open", path: named, .. } if named == path));
}

#[test]
fn a_folder_is_refused() {
    let path = folder("folder");
    assert!(matches!(refused(&path), FormatError::NotRegularFile { kind: "a directory", .. }));
}

#[cfg(unix)]
#[test]
fn devices_sockets_and_fifos_are_refused_without_waiting() {
    let folder = folder("special");
    assert!(matches!(refused(Path::new("/dev/zero")), FormatError::NotRegularFile { kind: "a device", .. }));
    let socket = folder.join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(matches!(refused(&socket), FormatError::NotRegularFile { kind: "a socket", .. }));
    let fifo = folder.join("fifo");
    if std::process::Command::new("mkfifo").arg(&fifo).status().is_ok_and(|status| status.success()) {
        assert!(matches!(refused(&fifo), FormatError::NotRegularFile { kind: "a FIFO", .. }));
    }
}

#[cfg(unix)]
#[test]
fn a_path_that_is_not_utf8_opens() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let path = folder("not_utf8").join(OsStr::from_bytes(b"mod\xFFel.gguf"));
    fs::write(&path, valid().build()).unwrap();
    assert_eq!(Gguf::open(&path).unwrap().tensors().len(), 3);
}

#[cfg(unix)]
#[test]
fn a_sparse_file_is_refused_without_being_read() {
    let path = folder("sparse").join("model.gguf");
    fs::write(&path, valid().build()).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(5 << 30).unwrap();
    assert!(matches!(Gguf::open(&path), Err(FormatError::TrailingBytes { offset: 1440, .. })));
    fs::remove_file(&path).unwrap();
}

#[cfg(unix)]
#[test]
fn a_large_tensor_is_not_read_on_opening() {
    // 4 GiB of holes: opening it by map takes no memory and no time.
    let path = folder("large").join("model.gguf");
    let mut writer = GgufWriter::new();
    writer.declare("w", &[1 << 16, 1 << 16], QuantType::I8).unwrap();
    writer.declare("v", &[1], QuantType::F32).unwrap();
    let mut head = Vec::new();
    drop(writer.write_to(&mut head).unwrap());
    fs::write(&path, &head).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(head.len() as u64 + (4 << 30) + 4).unwrap();
    let file = Gguf::open(&path).unwrap();
    assert_eq!(file.tensor("w").unwrap().data.len(), 4 << 30);
    assert_eq!(*file.tensor("v").unwrap().data, [0; 4]);
    fs::remove_file(&path).unwrap();
}

/// A text takes at least the 8 bytes of its length, so there can be as many as the file is long.
#[test]
fn metadata_without_end_is_read_to_its_limit() {
    const LIMIT: u64 = 256 << 20;
    let path = folder("endless").join("model.gguf");
    let mut head = b"GGUF".to_vec();
    head.extend(3_u32.to_le_bytes());
    head.extend([0_u64, 1, 1].map(u64::to_le_bytes).as_flattened());
    head.push(b'a');
    // An array of texts, all empty.
    head.extend([9_u32, 8].map(u32::to_le_bytes).as_flattened());
    head.extend((LIMIT / 4).to_le_bytes());
    fs::write(&path, &head).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(head.len() as u64 + 2 * LIMIT).unwrap();
    let error = Gguf::open(&path).unwrap_err();
    fs::remove_file(&path).unwrap();
    let FormatError::OutOfRange { what: "end of metadata", found, max: LIMIT, .. } = error else { panic!("{error}") };
    assert!(found <= LIMIT + 8, "{found}");
}

/// Shard `no` of `count`, with one tensor called `w<no>`, of a model that has `tensors` in all.
fn shard(no: u16, count: u16, tensors: i32) -> GgufWriter {
    let mut writer = GgufWriter::new();
    writer.put("split.no", no).unwrap();
    writer.put("split.count", count).unwrap();
    writer.put("split.tensors.count", tensors).unwrap();
    if no == 0 {
        writer.put("general.architecture", "phi3").unwrap();
    }
    writer.declare(&format!("w{no}"), &[32], QuantType::I8).unwrap();
    writer
}

fn bytes(shard: GgufWriter, no: u8) -> Vec<u8> {
    let mut stream = shard.write_to(Vec::new()).unwrap();
    stream.write_tensor(&format!("w{no}"), &[no; 32]).unwrap();
    stream.finish().unwrap()
}

fn whole_model() -> [Vec<u8>; 3] {
    [0, 1, 2].map(|no| bytes(shard(no.into(), 3, 3), no))
}

/// Three shards on disk, under the names that tie them together.
fn model_on_disk(test: &str) -> [PathBuf; 3] {
    let folder = folder(test);
    let paths = [1, 2, 3].map(|no| folder.join(format!("model-0000{no}-of-00003.gguf")));
    for (path, shard) in paths.iter().zip(whole_model()) {
        fs::write(path, shard).unwrap();
    }
    paths
}

#[test]
fn a_split_model_opens_by_any_shard() {
    let len: usize = whole_model().iter().map(Vec::len).sum();
    for path in model_on_disk("split") {
        assert_eq!(Gguf::file_bytes(&path).unwrap(), len as u64);
        let file = Gguf::open(&path).unwrap();
        assert_eq!(file.metadata().str("general.architecture").unwrap(), Some("phi3"));
        assert_eq!(file.tensors().iter().map(|tensor| tensor.name.as_str()).collect::<Vec<_>>(), ["w0", "w1", "w2"]);
        for no in 0..3 {
            assert_eq!(*file.tensor(&format!("w{no}")).unwrap().data, [no; 32]);
        }
    }
}

/// So neither is mapped: its bytes are asked for before it is copied.
#[test]
fn a_file_whose_bytes_are_counted_is_not_read() {
    let folder = folder("counted");
    let write = |name: &str, len| fs::write(folder.join(name), vec![b'x'; len]).unwrap();
    let count = |name: &str| Gguf::file_bytes(folder.join(name));
    write("a-00001-of-00002.gguf", 3);
    write("a-00002-of-00002.gguf", 5);
    assert_eq!(count("a-00001-of-00002.gguf").unwrap(), 8);
    assert_eq!(count("a-00002-of-00002.gguf").unwrap(), 8);
    // Names that only look like those of shards.
    for name in ["a.gguf", "a-00003-of-00002.gguf", "a-00000-of-00002.gguf", "a-1-of-2.gguf", "a-+0001-of-00002.gguf"] {
        write(name, 7);
        assert_eq!(count(name).unwrap(), 7, "{name}");
    }
    write("b-00001-of-00001.gguf", 9);
    assert_eq!(count("b-00001-of-00001.gguf").unwrap(), 9);
    assert!(matches!(count("c.gguf"), Err(FormatError::Io { .. })));
    assert!(matches!(count(""), Err(FormatError::NotRegularFile { .. })));
}

#[test]
fn a_missing_shard_is_named() {
    let paths = model_on_disk("split_missing");
    fs::remove_file(&paths[1]).unwrap();
    assert!(matches!(refused(&paths[0]), FormatError::Io { path, .. } if path == paths[1]));
    assert!(matches!(Gguf::file_bytes(&paths[0]), Err(FormatError::Io { path, .. }) if path == paths[1]));
}

#[test]
fn a_renamed_shard_is_told_its_name() {
    let paths = model_on_disk("split_renamed");
    let renamed = paths[0].with_file_name("model.gguf");
    fs::rename(&paths[0], &renamed).unwrap();
    let error = refused(&renamed);
    assert!(matches!(&error, FormatError::ShardName { no: 1, count: 3, .. }));
    assert!(error.to_string().ends_with("-00001-of-00003.gguf"), "{error}");
    // The name of its neighbour is wrong as well.
    fs::rename(&renamed, &paths[1]).unwrap();
    assert!(matches!(refused(&paths[1]), FormatError::ShardName { no: 1, .. }));
}

#[test]
fn shards_in_memory_must_be_complete_and_in_order() {
    let [a, b, c] = whole_model();
    assert_eq!(Gguf::from_shards([a.clone(), b.clone(), c.clone()]).unwrap().tensors().len(), 3);
    let refused = |shards: &[&Vec<u8>]| Gguf::from_shards(shards.iter().map(|&shard| shard.clone())).unwrap_err();
    let mismatch = |error, field| matches!(error, FormatError::ShardMismatch { what, .. } if what == field);
    assert!(mismatch(refused(&[]), "number of shards"));
    assert!(mismatch(refused(&[&a, &b]), "split.count"));
    assert!(mismatch(refused(&[&a, &b, &c, &c]), "split.count"));
    assert!(mismatch(refused(&[&a, &c, &b]), "split.no"));
    assert!(mismatch(refused(&[&b, &b, &c]), "split.no"));
    assert!(matches!(refused(&[&a, &b, &valid().build()]), FormatError::ShardMismatch { .. }));
}

#[test]
fn shards_of_different_models_are_refused() {
    let [a, b, c] = whole_model();
    let refused = |shard: Vec<u8>| Gguf::from_shards([a.clone(), shard, c.clone()]).unwrap_err();
    let other_count = bytes(shard(1, 3, 4), 1);
    assert!(matches!(refused(other_count), FormatError::ShardMismatch { shard: 2, what: "split.tensors.count", .. }));
    let mut other_architecture = shard(1, 3, 3);
    other_architecture.put("general.architecture", "qwen2").unwrap();
    let error = refused(bytes(other_architecture, 1));
    assert!(matches!(error, FormatError::ShardMismatch { what: "general.architecture", .. }));
    let mut other_version = b;
    other_version[4] = 2;
    assert!(matches!(refused(other_version), FormatError::ShardMismatch { what: "version", .. }));
    let mut same_name = GgufWriter::new();
    for (key, number) in [("split.no", 1u16), ("split.count", 3)] {
        same_name.put(key, number).unwrap();
    }
    same_name.declare("w0", &[32], QuantType::I8).unwrap();
    assert!(matches!(refused(bytes(same_name, 0)), FormatError::DuplicateTensor { tensor } if tensor == "w0"));
}
