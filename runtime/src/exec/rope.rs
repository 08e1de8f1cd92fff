//! Rotation tables: how fast each pair of a head turns, by position.
//!
//! LongRoPE models (Ding et al. 2024) have two sets of frequencies, one for sequences up to the context of the first
//! training and one for longer ones. Keys are cached after rotation, and all layers but the first depend on the
//! rotations before them, so a cache holds one set from its first position to its last.

use halfbyte_formats::gguf::Gguf;

use crate::{
    RuntimeError,
    compat::{Compat, RopeFactors, Semantics},
    config::ModelConfig,
    weights::Weights,
};

const SHORT: &str = "rope_factors_short.weight";
const LONG: &str = "rope_factors_long.weight";

/// One of the two sets of rotation frequencies of a LongRoPE model; others have only the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FactorSet {
    /// For sequences no longer than the original context.
    #[default]
    Short,
    /// For longer ones.
    Long,
}

impl FactorSet {
    /// `short` or `long`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Long => "long",
        }
    }
}

/// What decides between the sets.
#[derive(Clone, Copy)]
enum Rule {
    Always(FactorSet),
    /// Long if the sequence has more tokens than this.
    Sequence(usize),
    /// Long if the session has room for more tokens than this.
    Capacity(usize),
}

/// The rotations of a model.
pub(crate) struct Rotations {
    /// Inverse frequency of each rotated pair: (rope_dim / 2).
    short: Vec<f32>,
    /// The same for long sequences; empty without factors.
    long: Vec<f32>,
    /// Multiplies sines and cosines, hence queries and keys.
    magnitude: f32,
    rule: Rule,
}

impl Rotations {
    /// Without factors: `1 / base^(2i / n)`. There is no set to choose then.
    pub(crate) fn plain(config: &ModelConfig, semantics: Semantics) -> Result<Self, RuntimeError> {
        if semantics.factors != RopeFactors::Auto {
            return Err(RuntimeError::InvalidOption {
                option: "rope_factors",
                found: semantics.factors.name().to_owned(),
                expected: "auto: this model has no rope factors".to_owned(),
            });
        }
        Ok(Self {
            short: inverse_frequencies(config, None),
            long: Vec::new(),
            magnitude: 1.0,
            rule: Rule::Always(FactorSet::Short),
        })
    }

    /// With the factors that the file has, if any. Only llama.cpp looks at the magnitude without them.
    pub(crate) fn load(
        file: &Gguf,
        weights: &mut Weights<'_>,
        config: &ModelConfig,
        semantics: Semantics,
        magnitude: impl FnOnce() -> Result<f32, RuntimeError>,
    ) -> Result<Self, RuntimeError> {
        if file.tensor(SHORT).is_none() && file.tensor(LONG).is_none() {
            let plain = Self::plain(config, semantics)?;
            let scaled = semantics.compat == Compat::LlamaCpp;
            return Ok(Self { magnitude: if scaled { magnitude()? } else { 1.0 }, ..plain });
        }
        let original = config.original_context;
        Ok(Self {
            short: inverse_frequencies(config, Some(&factors(weights, SHORT, config)?)),
            long: inverse_frequencies(config, Some(&factors(weights, LONG, config)?)),
            magnitude: magnitude()?,
            rule: match (semantics.factors, semantics.compat) {
                (RopeFactors::Short, _) => Rule::Always(FactorSet::Short),
                (RopeFactors::Long, _) => Rule::Always(FactorSet::Long),
                (RopeFactors::Auto, Compat::Reference) => Rule::Sequence(original),
                (RopeFactors::Auto, Compat::LlamaCpp) => Rule::Capacity(original),
            },
        })
    }

    /// The set for a sequence of `tokens` in a session with room for `capacity`.
    pub(crate) fn set(&self, tokens: usize, capacity: usize) -> FactorSet {
        let long = |is| if is { FactorSet::Long } else { FactorSet::Short };
        match self.rule {
            Rule::Always(set) => set,
            Rule::Sequence(original) => long(tokens > original),
            Rule::Capacity(original) => long(capacity > original),
        }
    }

    /// Fills `cos` and `sin`, `(positions, rope_dim / 2)`, for the positions from `start` on.
    pub(crate) fn fill(&self, set: FactorSet, start: usize, cos: &mut [f32], sin: &mut [f32]) {
        let frequencies = match set {
            FactorSet::Long if !self.long.is_empty() => &self.long,
            _ => &self.short,
        };
        let rows = cos.chunks_exact_mut(frequencies.len()).zip(sin.chunks_exact_mut(frequencies.len()));
        for (position, (cos, sin)) in (start..).zip(rows) {
            for ((cos, sin), &frequency) in cos.iter_mut().zip(sin).zip(frequencies) {
                // The angle is rounded to f32 as the reference does; its sine and cosine are then exact.
                let angle = f64::from(position as f32 * frequency);
                *cos = angle.cos() as f32 * self.magnitude;
                *sin = angle.sin() as f32 * self.magnitude;
            }
        }
    }
}

/// The factors called `name`: one for each rotated pair.
fn factors(weights: &mut Weights<'_>, name: &str, config: &ModelConfig) -> Result<Vec<f32>, RuntimeError> {
    let factors = weights.vector(name, config.rope_dim / 2)?;
    match factors.iter().position(|factor| !factor.is_normal() || *factor < 0.0) {
        None => Ok(factors),
        Some(index) => Err(RuntimeError::TensorValue {
            name: name.to_owned(),
            index,
            found: factors[index],
            expected: "a positive number",
        }),
    }
}

/// `1 / (factor · base^(2i / n))` for `i` in `0..n / 2`, rounded to `f32` after each operation as transformers rounds
/// (`_compute_default_rope_parameters`, `_compute_longrope_parameters`), so that angles at high positions agree with
/// it to the last bit.
fn inverse_frequencies(config: &ModelConfig, factors: Option<&[f32]>) -> Vec<f32> {
    let n = config.rope_dim;
    let power = |i: usize| f64::from(config.rope_base).powf(f64::from((2 * i) as f32 / n as f32)) as f32;
    let factor = |i: usize| factors.and_then(|factors| factors.get(i)).copied().unwrap_or(1.0);
    (0..n / 2).map(|i| 1.0 / (factor(i) * power(i))).collect()
}
