//! Writing to a disk that is full: in a process of its own, as the limit on files that stands for it is the process's.

#![cfg(unix)]

mod scratch;

use std::fs;

use halfbyte_formats::{FormatError, QuantType, gguf::GgufWriter};

/// Lets files of this process grow to `bytes` at most, until this is dropped.
struct Limit(libc::rlimit);

impl Limit {
    fn new(bytes: libc::rlim_t) -> Self {
        let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: no handler is set. Ignored, the signal that comes with the limit leaves the write to fail.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        // SAFETY: the system writes the limit there was.
        let got = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut old) };
        // SAFETY: the system reads the limit.
        let set = unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &libc::rlimit { rlim_cur: bytes, ..old }) };
        assert_eq!((got, set), (0, 0), "{}", std::io::Error::last_os_error());
        Self(old)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // SAFETY: the system reads the limit.
        unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &self.0) };
    }
}

#[test]
fn a_full_disk_leaves_nothing_behind() {
    let folder = scratch::scratch().join("gguf_full_disk");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("model.gguf");
    fs::write(&path, "old").unwrap();

    let mut writer = GgufWriter::new();
    writer.declare("w", &[1 << 20], QuantType::I8).unwrap();
    let limit = Limit::new(1 << 16);
    let mut file = writer.create(&path).unwrap();
    let part = [1; 1000];
    let written = (0..1 << 10).map(|_| file.write_part("w", &part)).find(Result::is_err);
    let finished = file.finish();
    drop(limit);
    assert!(matches!(written, Some(Err(FormatError::Io { action: "write", .. }))), "{written:?}");
    assert!(finished.is_err());
    let names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["model.gguf"]);
    assert_eq!(fs::read(&path).unwrap(), b"old");
}
