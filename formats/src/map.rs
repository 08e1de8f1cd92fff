//! File mapping.
