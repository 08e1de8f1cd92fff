//! What the tests of the GGUF code share: a builder of files good and bad, the table of bad ones, one check of
//! everything that must hold for any bytes at all (used by the fuzz targets too), a counting allocator.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part of this")]

pub mod alloc;
pub mod check;
pub mod fixtures;
pub mod raw;
