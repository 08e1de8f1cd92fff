//! Where tests may write.

use std::path::PathBuf;

/// A folder that is there where the test runs: on Android the one that cargo made is on another machine.
pub(crate) fn scratch() -> PathBuf {
    if cfg!(target_os = "android") { std::env::temp_dir() } else { env!("CARGO_TARGET_TMPDIR").into() }
}
