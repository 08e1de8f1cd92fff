//! What the fuzz targets share. The checks are those of the property tests, taken from there.

#[path = "../../formats/tests/support/alloc.rs"]
pub mod alloc;
#[path = "../../formats/tests/support/check.rs"]
pub mod check;
#[path = "../../formats/tests/support/fixtures.rs"]
pub mod fixtures;
pub mod model;
#[path = "../../formats/tests/support/raw.rs"]
pub mod raw;
pub mod structured;

use halfbyte_formats::gguf::Gguf;

/// Parses `bytes` and checks everything that must hold, the bound on allocations included.
pub fn gguf(allocator: &alloc::Counting, bytes: &[u8]) {
    let copy = bytes.to_vec();
    let (_, peak) = allocator.peak_during(|| Gguf::from_bytes(copy));
    let bound = 4 * bytes.len() + (1 << 20);
    assert!(peak <= bound, "{peak} bytes allocated for {} bytes of file", bytes.len());
    check::gguf(bytes);
}
