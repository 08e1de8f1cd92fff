//! Shared pieces of the benchmarks: shapes and seeded data.
