//! What the machine has for a model: free memory, and storage that is fast or not.

mod memory;
mod storage;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

pub use memory::available_memory;

/// Why a model will be slow where it is, though nothing is wrong with it. [`Display`](fmt::Display) says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice {
    /// The file lies on a file system that a process serves, not the kernel. On Android these are `/sdcard` and
    /// `/storage/emulated`.
    #[non_exhaustive]
    SlowStorage {
        /// The file.
        path: PathBuf,
        /// The file system's type.
        kind: String,
    },
    /// The file is larger than the memory there is for it.
    #[non_exhaustive]
    LittleMemory {
        /// Size of the file.
        file_bytes: u64,
        /// See [`available_memory`].
        available_bytes: u64,
    },
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SlowStorage { path, kind } => write!(
                f,
                "{} lies on {kind}, from which a mapped file is read many times slower than from a file system of the \
                 kernel's: move it, on Android to the application's own files or to /data/local/tmp",
                path.display()
            ),
            Self::LittleMemory { file_bytes, available_bytes } => {
                let mib = |bytes: &u64| bytes >> 20;
                write!(
                    f,
                    "the file has {} MiB, free are {}: weights may be read from storage again and again; a smaller format \
                     helps",
                    mib(file_bytes),
                    mib(available_bytes)
                )
            }
        }
    }
}

/// What is to be said about the model file at `path` before it is used; nothing if the system does not tell, or there
/// is no such file.
pub fn advice(path: impl AsRef<Path>) -> Vec<Advice> {
    let path = path.as_ref();
    let slow = storage::slow_kind(path).map(|kind| Advice::SlowStorage { path: path.to_owned(), kind });
    let size = fs::metadata(path).map_or(0, |file| file.len());
    let little = available_memory().and_then(|available| little(size, available));
    slow.into_iter().chain(little).collect()
}

fn little(file_bytes: u64, available_bytes: u64) -> Option<Advice> {
    (file_bytes > available_bytes).then_some(Advice::LittleMemory { file_bytes, available_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_numbers_and_places() {
        assert_eq!(little(5 << 20, 5 << 20), None);
        let text = little(4_700_000_000, 3_300_000_000).expect("too little").to_string();
        assert!(text.contains("4482 MiB") && text.contains("3147"), "{text}");
        let slow = Advice::SlowStorage { path: "/sdcard/m.gguf".into(), kind: "fuse".to_owned() };
        let text = slow.to_string();
        assert!(text.contains("/sdcard/m.gguf lies on fuse") && text.contains("/data/local/tmp"), "{text}");
    }

    #[test]
    fn nothing_is_said_of_a_small_file_or_none() {
        assert_eq!(advice(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")), []);
        assert_eq!(advice("no such file"), []);
    }
}
