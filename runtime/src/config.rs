//! Hyperparameters, parsed once from GGUF metadata into values that cannot be nonsense.
//!
//! Every key is `<architecture>.<name>`; a value that could not be computed with is an error naming its key.

use std::fmt::Display;

use halfbyte_formats::gguf::Metadata;
use halfbyte_kernels::MAX_HEAD_DIM;

use crate::RuntimeError;

/// Largest of any count here, and of the vocabulary; no model comes near, and products of two are checked where used.
pub(crate) const MAX_COUNT: usize = 1 << 24;
/// Largest context: positions are exact in `f32` up to 2^24.
const MAX_CONTEXT: usize = 1 << 24;
/// Most layers; bounds what a hostile header can make the loader look for.
const MAX_LAYERS: usize = 4096;
/// Most experts of a layer.
const MAX_EXPERTS: usize = 1024;
/// Architectures whose rotations may be scaled, by factors in the file.
const LONGROPE: [&str; 2] = ["phi3", "phimoe"];

/// What the metadata of a model says about its graph.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ModelConfig {
    /// `general.architecture`.
    pub architecture: String,
    /// `general.name`, if given.
    pub name: Option<String>,
    /// Layers of the trunk.
    pub layers: usize,
    /// Multi-token-prediction layers after the trunk.
    pub mtp_layers: usize,
    /// Longest sequence the model was made for, in tokens.
    pub context: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward layer, or of each expert in it.
    pub ffn: usize,
    /// Experts of a feed-forward layer; 0 if it is a single one.
    pub experts: usize,
    /// Experts that each token passes through.
    pub experts_used: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Leading elements of a head that are rotated.
    pub rope_dim: usize,
    /// Base of the rotation frequencies.
    pub rope_base: f32,
    /// Context of the first training, in tokens, up to which LongRoPE models use their short factors.
    pub original_context: usize,
    /// Added to the mean square in RMSNorm, to the variance in LayerNorm.
    pub norm_eps: f32,
    /// A query sees at most this many positions, itself included.
    pub window: Option<usize>,
}

impl ModelConfig {
    /// Reads and checks the hyperparameters.
    ///
    /// # Errors
    /// [`RuntimeError::MissingKey`], [`RuntimeError::InvalidKey`], or a format error if a key has the wrong kind.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, RuntimeError> {
        let architecture = metadata.str("general.architecture")?.ok_or_else(|| missing("general.architecture"))?;
        let keys = Keys { metadata, architecture };

        let blocks = keys.count("block_count", 1..=MAX_LAYERS)?;
        let mtp_layers = keys.count_or("nextn_predict_layers", 0..=blocks - 1, 0)?;
        let context = keys.count("context_length", 1..=MAX_CONTEXT)?;
        let hidden = keys.count("embedding_length", 1..=MAX_COUNT)?;
        let heads = keys.count("attention.head_count", 1..=hidden)?;
        let kv_heads = keys.count_or("attention.head_count_kv", 1..=heads, heads)?;
        if !heads.is_multiple_of(kv_heads) {
            return Err(keys.invalid("attention.head_count_kv", kv_heads, format!("a divisor of {heads} heads")));
        }
        let head_dim = keys.count_or("attention.key_length", 1..=MAX_HEAD_DIM, hidden / heads)?;
        let value_length = keys.count_or("attention.value_length", 1..=MAX_HEAD_DIM, head_dim)?;
        if value_length != head_dim {
            return Err(keys.invalid("attention.value_length", value_length, format!("{head_dim}, as the keys")));
        }
        if heads.checked_mul(head_dim).is_none_or(|rows| rows > MAX_COUNT) {
            return Err(keys.invalid(
                "attention.key_length",
                head_dim,
                format!("at most {MAX_COUNT} rows in all heads"),
            ));
        }
        let mut rope_dim = keys.count_or("rope.dimension_count", 2..=MAX_COUNT, head_dim)?;
        if architecture == "phimoe" {
            // Converters that take embedding / heads for the size of a head write too much.
            rope_dim = rope_dim.min(head_dim);
        }
        if !rope_dim.is_multiple_of(2) || rope_dim > head_dim {
            let expected = format!("an even number up to {head_dim}, the size of a head");
            return Err(keys.invalid("rope.dimension_count", rope_dim, expected));
        }
        let rope_base = keys.positive_or("rope.freq_base", 10_000.0)?;
        let norm_eps = keys.positive("attention.layer_norm_rms_epsilon")?;
        let original_context =
            keys.count_or("rope.scaling.original_context_length", 2..=MAX_CONTEXT, context.max(2))?;
        let scalings: &[&str] = if LONGROPE.contains(&architecture) { &["none", "longrope"] } else { &["none"] };
        let scaling = metadata.str(&keys.full("rope.scaling.type"))?.unwrap_or("none");
        if !scalings.contains(&scaling) {
            let expected = format!("{} (this graph scales rotations no other way)", scalings.join(" or "));
            return Err(keys.invalid("rope.scaling.type", scaling, expected));
        }
        let factor = metadata.f32(&keys.full("rope.scaling.factor"))?.unwrap_or(1.0);
        if scaling == "none" && factor != 1.0 && factor != 0.0 {
            return Err(keys.invalid("rope.scaling.factor", factor, "1 (this graph does not scale positions)"));
        }
        let experts = keys.count_or("expert_count", 0..=MAX_EXPERTS, 0)?;
        if experts > 0 && architecture != "phimoe" {
            let expected = "0: layers of this architecture have no experts";
            return Err(keys.invalid("expert_count", experts, expected));
        }
        let experts_used = keys.count_or("expert_used_count", 0..=experts, 0)?;
        // 0 and anything from the context length up say the same: every position is visible.
        let window = keys.count_or("attention.sliding_window", 0..=usize::MAX, 0)?;
        Ok(Self {
            architecture: architecture.to_owned(),
            name: metadata.str("general.name")?.map(str::to_owned),
            layers: blocks - mtp_layers,
            mtp_layers,
            context,
            hidden,
            ffn: keys.count("feed_forward_length", 1..=MAX_COUNT)?,
            experts,
            experts_used,
            heads,
            kv_heads,
            head_dim,
            rope_dim,
            rope_base,
            original_context,
            norm_eps,
            window: (1..context).contains(&window).then_some(window),
        })
    }

    /// The first key (without its prefix) in which a graph of `other` would differ from one of these, with both values.
    pub(crate) fn difference(&self, other: &Self) -> Option<(&'static str, [String; 2])> {
        let mut pairs = self.keys().into_iter().zip(other.keys());
        pairs.find_map(|((key, ours), (_, theirs))| (ours != theirs).then_some((key, [ours, theirs])))
    }

    /// All that a graph with a sidecar depends on; floats print so that equal text means equal numbers.
    fn keys(&self) -> [(&'static str, String); 12] {
        [
            ("nextn_predict_layers", self.mtp_layers.to_string()),
            ("block_count", (self.layers + self.mtp_layers).to_string()),
            ("context_length", self.context.to_string()),
            ("embedding_length", self.hidden.to_string()),
            ("feed_forward_length", self.ffn.to_string()),
            ("attention.head_count", self.heads.to_string()),
            ("attention.head_count_kv", self.kv_heads.to_string()),
            ("attention.key_length", self.head_dim.to_string()),
            ("attention.sliding_window", self.window.unwrap_or(0).to_string()),
            ("attention.layer_norm_rms_epsilon", self.norm_eps.to_string()),
            ("rope.dimension_count", self.rope_dim.to_string()),
            ("rope.freq_base", self.rope_base.to_string()),
        ]
    }

    /// Rows of the query projection.
    #[must_use]
    pub fn q_rows(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Rows of the key projection, and of the value projection.
    #[must_use]
    pub fn kv_rows(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

fn missing(key: &str) -> RuntimeError {
    RuntimeError::MissingKey { key: key.to_owned() }
}

/// A number above 0 under `<architecture>.<name>` if the key is there.
pub(crate) fn positive(metadata: &Metadata, architecture: &str, name: &str) -> Result<Option<f32>, RuntimeError> {
    let keys = Keys { metadata, architecture };
    match metadata.value(&keys.full(name)) {
        Some(_) => keys.positive(name).map(Some),
        None => Ok(None),
    }
}

/// Metadata seen through one architecture's prefix.
struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: &'a str,
}

impl Keys<'_> {
    fn full(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn invalid(&self, name: &str, found: impl Display, expected: impl Into<String>) -> RuntimeError {
        RuntimeError::InvalidKey { key: self.full(name), found: found.to_string(), expected: expected.into() }
    }

    /// A count, given once or as an array with the same value for each layer.
    fn optional(&self, name: &str) -> Result<Option<usize>, RuntimeError> {
        let key = self.full(name);
        let Ok(Some(per_layer)) = self.metadata.usizes(&key) else {
            return Ok(self.metadata.usize(&key)?);
        };
        match per_layer.split_first() {
            Some((first, rest)) if rest.iter().all(|value| value == first) => Ok(Some(*first)),
            _ => Err(self.invalid(name, "an array of different values", "one value for all layers")),
        }
    }

    fn count_or(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<usize>,
        default: usize,
    ) -> Result<usize, RuntimeError> {
        let value = self.optional(name)?.unwrap_or(default);
        if range.contains(&value) {
            return Ok(value);
        }
        Err(self.invalid(name, value, format!("{} to {}", range.start(), range.end())))
    }

    fn count(&self, name: &str, range: std::ops::RangeInclusive<usize>) -> Result<usize, RuntimeError> {
        match self.optional(name)? {
            Some(_) => self.count_or(name, range, 0),
            None => Err(missing(&self.full(name))),
        }
    }

    fn positive_or(&self, name: &str, default: f32) -> Result<f32, RuntimeError> {
        let value = self.metadata.f32(&self.full(name))?.unwrap_or(default);
        if value.is_finite() && value > 0.0 {
            return Ok(value);
        }
        Err(self.invalid(name, value, "a positive number"))
    }

    fn positive(&self, name: &str) -> Result<f32, RuntimeError> {
        if self.metadata.f32(&self.full(name))?.is_none() {
            return Err(missing(&self.full(name)));
        }
        self.positive_or(name, 0.0)
    }
}
