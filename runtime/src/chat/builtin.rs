//! Templates for files that have none, in our own words.
//!
//! The formats are the model cards' (MiMo: ChatML as Qwen2 writes it; Phi-4; Phi-4-mini; Phi-3.5-MoE, which
//! Phi-mini-MoE and Phi-tiny-MoE share). `tests/chat_golden.rs` compares them with the authors' own templates, rendered
//! by transformers: that is why the last two end with `eos_token` when no answer is asked for.

use super::ChatError;
use crate::{Model, text::Tokenizer};

/// A template that needs no file.
#[derive(Debug)]
pub(super) struct Builtin {
    pub(super) name: &'static str,
    pub(super) source: &'static str,
    /// Control tokens without which it means nothing.
    tokens: &'static [&'static str],
}

/// All of them.
pub(super) const BUILTINS: [Builtin; 4] = [
    Builtin { name: "mimo", source: include_str!("builtin/mimo.jinja"), tokens: &["<|im_start|>", "<|im_end|>"] },
    Builtin {
        name: "phi-4",
        source: include_str!("builtin/phi-4.jinja"),
        tokens: &["<|im_start|>", "<|im_sep|>", "<|im_end|>"],
    },
    Builtin {
        name: "phi-4-mini",
        source: include_str!("builtin/phi-4-mini.jinja"),
        tokens: &["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"],
    },
    Builtin {
        name: "phi-moe",
        source: include_str!("builtin/phi-moe.jinja"),
        tokens: &["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"],
    },
];

pub(super) fn names() -> String {
    BUILTINS.map(|builtin| builtin.name).join(", ")
}

/// The one called `name`.
pub(super) fn named(name: &str) -> Result<&'static Builtin, ChatError> {
    const ALL: &[Builtin] = &BUILTINS;
    let found = ALL.iter().find(|builtin| builtin.name == name);
    found.ok_or_else(|| ChatError::UnknownTemplate { name: name.to_owned(), names: names() })
}

/// The one for models like `model`, by its architecture and what is in its vocabulary.
pub(super) fn for_model(model: &Model, tokenizer: &Tokenizer) -> Result<&'static Builtin, ChatError> {
    let has = |token: &str| is_control(tokenizer, token);
    let name = match model.config().architecture.as_str() {
        "qwen2" => "mimo",
        "phi3" if has("<|im_sep|>") => "phi-4",
        "phi3" if has("<|tool|>") => "phi-4-mini",
        // Phi-3 has the format of the Phi-MoE models.
        "phi3" | "phimoe" => "phi-moe",
        architecture => {
            return Err(ChatError::NoTemplate { architecture: architecture.to_owned(), names: names() });
        }
    };
    let builtin = named(name)?;
    match builtin.tokens.iter().find(|token| !has(token)) {
        Some(token) => Err(ChatError::MissingToken { token, template: name }),
        None => Ok(builtin),
    }
}

fn is_control(tokenizer: &Tokenizer, token: &str) -> bool {
    tokenizer.token_id(token).is_some_and(|id| tokenizer.is_control(id))
}
