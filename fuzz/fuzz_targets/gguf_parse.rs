//! Any bytes at all.

#![no_main]

use halfbyte_fuzz::{alloc::Counting, gguf};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

fuzz_target!(|bytes: &[u8]| gguf(&ALLOCATOR, bytes));
