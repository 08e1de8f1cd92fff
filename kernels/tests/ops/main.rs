//! Every operation on every instruction set of this CPU, against oracles in `f64`.
//!
//! Outputs lie between canaries, inputs end where their allocation ends. Error bounds are derived, in units of the
//! magnitudes that were summed, and named.

mod act;
mod attention;
mod common;
mod errors;
mod exactness;
mod kv;
mod matmul;
mod norm;
mod packed;
mod rope;
mod softmax;
mod swiglu;
