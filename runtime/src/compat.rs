//! Whose arithmetic a model is run with, where engines differ.

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

impl Compat {
    /// The lower-case name used on command lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::LlamaCpp => "llama.cpp",
        }
    }

    /// The one of that [`name`](Self::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Reference, Self::LlamaCpp].into_iter().find(|one| one.name() == name)
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

impl RopeFactors {
    /// The lower-case name used on command lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Short => "short",
            Self::Long => "long",
        }
    }

    /// The one of that [`name`](Self::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Auto, Self::Short, Self::Long].into_iter().find(|one| one.name() == name)
    }
}

/// What the caller decides about a graph instead of the file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Semantics {
    pub(crate) compat: Compat,
    pub(crate) factors: RopeFactors,
}
