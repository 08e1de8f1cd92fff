//! Shared pieces of the cross-crate tests: fixture builders, a seeded generator, comparison helpers.
