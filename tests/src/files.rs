//! Committed files that tests open. For Android they are in the test programs, which are all that a phone has.

use std::path::PathBuf;

/// The path of a committed file: `committed!("../models/tiny-mimo-f16.gguf")`, from the folder of the crate that asks.
#[macro_export]
macro_rules! committed {
    ($path:literal) => {{
        #[cfg(target_os = "android")]
        let path = $crate::written($path, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/", $path)));
        #[cfg(not(target_os = "android"))]
        let path = std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/", $path));
        path
    }};
}

/// A file in the folder for temporary ones, of the last name in `path`, with these contents.
///
/// # Panics
/// Where it cannot be written.
#[cfg(target_os = "android")]
#[must_use]
pub fn written(path: &str, contents: &[u8]) -> PathBuf {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::{env, fs, process};

    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let name = path.rsplit('/').next().expect("a name");
    let there = env::temp_dir().join(format!("halfbyte-{name}"));
    if fs::metadata(&there).is_ok_and(|found| found.len() == contents.len() as u64) {
        return there;
    }
    // Other threads and programs may write it at the same time: each writes its own, and the last one stays.
    let own = env::temp_dir().join(format!("{name}-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    fs::write(&own, contents).expect("room for a test's file");
    fs::rename(&own, &there).expect("a name in the same folder");
    there
}

/// The file of a bundled model in Q4_0.
///
/// # Panics
/// If there is none of this name.
#[must_use]
pub fn bundled(name: &str) -> PathBuf {
    match name {
        "tiny-mimo" => committed!("../cli/models/tiny-mimo-q4_0.gguf"),
        "mtp-tiny-mimo" => committed!("../cli/models/mtp-tiny-mimo-q4_0.gguf"),
        "tiny-phimoe" => committed!("../cli/models/tiny-phimoe-q4_0.gguf"),
        _ => panic!("no model {name} is bundled"),
    }
}
