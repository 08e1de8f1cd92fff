//! The one hyperparameter of LongRoPE that follows from others.

/// What LongRoPE multiplies rotated queries and keys by, the value of `rope.scaling.attn_factor`:
/// `sqrt(1 + ln(context / original) / ln(original))`, and 1 if `context` is not the longer one, both in tokens
/// (`_compute_longrope_parameters` in transformers' `modeling_rope_utils.py`).
///
/// ```
/// use halfbyte_formats::gguf::longrope_attn_factor;
///
/// // Phi-4-mini.
/// assert!((longrope_attn_factor(131_072, 4096) - 1.190_238_1).abs() < 1e-6);
/// ```
#[expect(clippy::cast_possible_truncation, reason = "hyperparameters are single precision in GGUF")]
pub fn longrope_attn_factor(context: usize, original: usize) -> f32 {
    if context <= original {
        return 1.0;
    }
    let (context, original) = (context as f64, original as f64);
    (1.0 + (context / original).ln() / original.ln()).sqrt() as f32
}
