//! Rotations of the Phi models: how many dimensions turn, and LongRoPE's two sets of factors.
//!
//! transformers 4 keeps the parameters in `rope_scaling`, transformers 5 in `rope_parameters`; the original context is
//! a field of its own, or one of them. Formulas: `_compute_longrope_parameters` in transformers
//! `modeling_rope_utils.py` (Ding et al. 2024, <https://arxiv.org/abs/2402.13753>). Factors are lists in `config.json`
//! and tensors in GGUF.

use super::config::{Config, MAX_CONTEXT};
use super::document::Document;
use super::plan::{Plan, Planned};
use super::weights::Stored;
use crate::{FormatError, gguf::longrope_attn_factor};

/// How queries and keys are rotated.
pub(super) struct Rope {
    /// Where the parameters are: `rope_scaling` or `rope_parameters`.
    section: &'static str,
    /// Leading dimensions of a head that turn.
    dims: usize,
    /// Context the model was first trained with, in tokens; up to it the short factors apply.
    original: usize,
    long: Option<LongRope>,
}

struct LongRope {
    /// One divisor for each pair of dimensions.
    short: Vec<f32>,
    long: Vec<f32>,
    /// Multiplies queries and keys.
    attn_factor: f32,
}

impl Rope {
    /// Reads the parameters of a model of `config`.
    pub(super) fn read(document: &Document, config: &Config) -> Result<Self, FormatError> {
        let section = document.either("rope_scaling", "rope_parameters");
        let field = |name: &str| format!("{section}.{name}");
        let kind = document.either(&field("rope_type"), &field("type")).to_owned();
        let is_long = match document.value(&kind).map(|kind| kind.as_str()) {
            None | Some(Some("default")) => false,
            // The first Phi-3 checkpoints call it by the initials of "su-scaled".
            Some(Some("longrope" | "su")) => true,
            _ => return Err(document.wrong(&kind, "default or longrope")),
        };
        let dims = rotated(document, &field("partial_rotary_factor"), config.head_dim)?;
        // transformers gives the field outside the section priority, as Phi-3 has it there.
        let original = "original_max_position_embeddings";
        let original = document.either(original, &field(original)).to_owned();
        let original = document.count_or(&original, 2..=MAX_CONTEXT, config.context.max(2))?;
        let long =
            if is_long { Some(LongRope::read(document, section, dims, config.context, original)?) } else { None };
        Ok(Self { section, dims, original, long })
    }

    /// Whether there are factors.
    pub(super) fn is_long(&self) -> bool {
        self.long.is_some()
    }

    /// Leading dimensions of a head that turn.
    pub(super) fn dims(&self) -> usize {
        self.dims
    }

    /// The field called `name` of the parameters.
    pub(super) fn field(&self, name: &str) -> String {
        format!("{}.{name}", self.section)
    }

    /// Adds keys and factors to the file.
    pub(super) fn put(&self, plan: &mut Plan) {
        plan.put_count("rope.dimension_count", self.dims);
        plan.put_count("rope.scaling.original_context_length", self.original);
        if let Some(LongRope { short, long, attn_factor }) = &self.long {
            plan.put_own("rope.scaling.attn_factor", *attn_factor);
            for (name, factors) in [("long", long), ("short", short)] {
                plan.add(Planned::new(format!("rope_factors_{name}.weight"), Stored::vector(factors)));
            }
        }
    }
}

impl LongRope {
    fn read(
        document: &Document,
        section: &str,
        dims: usize,
        context: usize,
        original: usize,
    ) -> Result<Self, FormatError> {
        let field = |name: &str| format!("{section}.{name}");
        let attn_factor = match document.value(&field("attention_factor")) {
            Some(_) => document.positive(&field("attention_factor"))?,
            None => longrope_attn_factor(context, original),
        };
        if document.value(&field("factor")).is_some() {
            let ratio = context as f64 / original as f64;
            if document.value(&field("factor")).and_then(serde_json::Value::as_f64) != Some(ratio) {
                return Err(document.wrong(&field("factor"), format!("{ratio}, the ratio of the two contexts")));
            }
        }
        Ok(Self {
            short: document.positives(&field("short_factor"), dims / 2)?,
            long: document.positives(&field("long_factor"), dims / 2)?,
            attn_factor,
        })
    }
}

/// Dimensions that turn: the share given by `nested`, or by the field of that name outside, rounded down.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and head_dim, see the check")]
fn rotated(document: &Document, nested: &str, head_dim: usize) -> Result<usize, FormatError> {
    let field = document.either(nested, "partial_rotary_factor");
    let Some(value) = document.value(field) else { return Ok(head_dim) };
    let dims =
        value.as_f64().map(|share| share * head_dim as f64).filter(|dims| (2.0..=head_dim as f64).contains(dims));
    let dims = dims.map(|dims| dims as usize).filter(|dims| dims.is_multiple_of(2));
    dims.ok_or_else(|| document.wrong(field, format!("a share of the {head_dim} dimensions of a head: an even number")))
}
