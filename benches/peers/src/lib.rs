//! The same product, as several engines compute it: ours on each tier, candle's, and ggml's from builds of llama.cpp
//! and ik_llama.cpp. One thread each, the same stored weights, the same inputs in f32.
//!
//! Every engine gets the row-major blocks of a GGUF file and may arrange them as it likes before the clock starts. What
//! is timed begins with inputs in f32 and ends with outputs in f32: where inputs are rounded to 8 bits, that is part of
//! it.

mod candle;
mod ggml;
mod ours;

use halfbyte_benches::Shape;
use halfbyte_formats::QuantType;

/// A product that is ready to run.
pub trait Side {
    /// Computes it.
    fn run(&mut self);

    /// What [`run`](Self::run) computed last: `(tokens, rows)`.
    fn result(&self) -> Vec<f32>;
}

/// Somebody who can multiply.
pub trait Engine {
    /// As in the id of a benchmark.
    fn name(&self) -> &str;

    /// Takes the weights `(rows, depth)` in blocks of `ty`, and the inputs `x: (tokens, depth)`; `None` if this engine
    /// does not know the format.
    fn prepare(&self, ty: QuantType, shape: Shape, weights: &[u8], x: &[f32]) -> Option<Box<dyn Side>>;

    /// Whether the engine knows the format.
    fn knows(&self, ty: QuantType) -> bool {
        let shape = Shape { rows: 64, depth: 512, tokens: 1 };
        let weights = vec![0; shape.rows * shape.depth / ty.block_len() * ty.block_bytes()];
        self.prepare(ty, shape, &weights, &vec![0.0; shape.depth]).is_some()
    }
}

/// Every engine there is, ours first: best tier, other tiers of 8-bit inputs, candle, then what `HALFBYTE_GGML` names.
///
/// # Panics
/// If a library that was named cannot be used.
pub fn engines() -> Vec<Box<dyn Engine>> {
    let mut engines: Vec<Box<dyn Engine>> = Vec::new();
    engines.extend(ours::tiers().map(|tier| Box::new(tier) as Box<dyn Engine>));
    engines.push(Box::new(candle::Candle));
    match std::env::var("HALFBYTE_GGML") {
        Err(_) => println!("HALFBYTE_GGML is not set: without ggml"),
        Ok(names) => {
            for name in names.split(':').filter(|name| !name.is_empty()) {
                let found = ggml::open(name).unwrap_or_else(|error| panic!("HALFBYTE_GGML, {name}: {error}"));
                engines.extend(found.map(|engine| Box::new(engine) as Box<dyn Engine>));
            }
        }
    }
    engines
}
