//! Files with a good structure and hostile values in it.

#![no_main]

use halfbyte_fuzz::{alloc::Counting, gguf, structured::File};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

fuzz_target!(|file: File| gguf(&ALLOCATOR, &file.build()));
