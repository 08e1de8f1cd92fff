//! Whose arithmetic a model is run with, where engines differ.

use std::str::FromStr;

/// The implementation whose results a model should have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compat {
    /// The model authors' own code: what the weights were trained for.
    #[default]
    Reference,
    /// llama.cpp's graph for the same file (as of commit 0c1e570), to compare logits with it. It differs from the
    /// authors' in: the normalisation of Phi-MoE (RMSNorm), its router (softmax over the two best), its rope magnitude,
    /// sliding windows of `phi3` and `phimoe` (none), and LongRoPE's factors (chosen by the size of the context, not by
    /// the length of the text).
    LlamaCpp,
}

impl FromStr for Compat {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "reference" => Ok(Self::Reference),
            "llama.cpp" => Ok(Self::LlamaCpp),
            _ => Err("expected reference or llama.cpp".to_owned()),
        }
    }
}

/// Which of LongRoPE's two sets of factors rotations use.
///
/// To force one of a model without factors is [`RuntimeError::InvalidOption`](crate::RuntimeError::InvalidOption).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RopeFactors {
    /// What [`Compat`] says: by the authors' rule the long ones if, and only if, the sequence is longer than the
    /// context the model was first trained for.
    #[default]
    Auto,
    /// Always those for short sequences.
    Short,
    /// Always those for long sequences.
    Long,
}

impl FromStr for RopeFactors {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "auto" => Ok(Self::Auto),
            "short" => Ok(Self::Short),
            "long" => Ok(Self::Long),
            _ => Err("expected auto, short or long".to_owned()),
        }
    }
}

/// What the caller decides about a graph instead of the file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Semantics {
    pub(crate) compat: Compat,
    pub(crate) factors: RopeFactors,
}
