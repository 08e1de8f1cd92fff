//! What a tier is made of.

pub(crate) mod table;
