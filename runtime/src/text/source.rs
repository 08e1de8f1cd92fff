//! The tokenizer's metadata keys: which are read, what they may be, what is assumed when they are absent.
//!
//! Keys and defaults as in llama.cpp `src/llama-vocab.cpp`. Unlike there, an unknown pre-tokenizer and an id outside
//! the vocabulary are errors: a guess would silently change what the model reads.

use std::borrow::Cow;

use halfbyte_formats::gguf::{Metadata, Strings};

use super::{
    TokenizerError, TokenizerOptions, reserve,
    split::Pattern,
    vocabulary::{Kind, Vocabulary},
    with_room,
};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
/// Tokens named by these keys end a generation, too.
const END_KEYS: [&str; 5] = [
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
    "tokenizer.ggml.fim_pad_token_id",
    "tokenizer.ggml.fim_rep_token_id",
    "tokenizer.ggml.fim_sep_token_id",
];
/// Checked although nothing here uses them: an id outside the vocabulary shows that the file is damaged.
const OTHER_IDS: [&str; 2] = ["tokenizer.ggml.unknown_token_id", "tokenizer.ggml.padding_token_id"];
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";
const CHAT_TEMPLATE: &str = "tokenizer.chat_template";
const ARCHITECTURE: &str = "general.architecture";

/// Texts of tokens that end a generation whatever the keys say: early Phi-4 files, for one, name a padding token as
/// the end (llama.cpp has the same list, longer).
const END_TEXTS: [&str; 10] = [
    "<|endoftext|>",
    "<|im_end|>",
    "<|end|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "</s>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
];
/// SentencePiece models whose special tokens swallow the white space after them, all but these.
const STRIPPING_ARCHITECTURES: [&str; 2] = ["phimoe", "phi3"];
const NOT_STRIPPING: [&str; 3] = ["<unk>", "<s>", "<|endoftext|>"];
/// What else ends a generation of those models (their `generation_config.json`): the next turn's opening.
const ASSISTANT: &str = "<|assistant|>";

/// How text is cut and merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// Model `gpt2`. With `whole_pieces` a piece that is a token needs no merges to become it.
    ByteLevel { pattern: Pattern, whole_pieces: bool },
    /// Model `llama`. With `space_prefix` each run of text gets a space before it.
    SentencePiece { space_prefix: bool },
}

const MODELS: &str = "gpt2, llama";
const PRES: &str = "qwen2, dbrx, gpt-4o, llama-bpe";

/// The scheme a file asks for.
pub(super) fn scheme(metadata: &Metadata, options: &TokenizerOptions) -> Result<Scheme, TokenizerError> {
    match required(metadata.str(MODEL)?, MODEL)? {
        "llama" => Ok(Scheme::SentencePiece { space_prefix: metadata.bool(ADD_SPACE_PREFIX)?.unwrap_or(true) }),
        "gpt2" => {
            let pre = match &options.pre {
                Some(pre) => pre,
                None => metadata.str(PRE)?.unwrap_or_default(),
            };
            let pattern = match pre {
                "qwen2" => Pattern::Qwen2,
                "dbrx" | "llama-bpe" => Pattern::Cl100k,
                "gpt-4o" => Pattern::O200k,
                found => return Err(TokenizerError::UnknownPre { found: found.to_owned(), supported: PRES }),
            };
            Ok(Scheme::ByteLevel { pattern, whole_pieces: pre == "llama-bpe" })
        }
        found => Err(TokenizerError::UnknownModel { found: found.to_owned(), supported: MODELS }),
    }
}

/// The texts and kinds of all tokens.
pub(super) fn tokens(metadata: &Metadata) -> Result<(&Strings, Vec<Kind>), TokenizerError> {
    let tokens = required(metadata.strings(TOKENS)?, TOKENS)?;
    let types = required(metadata.usizes(TOKEN_TYPE)?, TOKEN_TYPE)?;
    same_length(TOKEN_TYPE, tokens.len(), types.len())?;
    let mut kinds = with_room("tokens", types.len())?;
    for (id, &stored) in (0..).zip(types.iter()) {
        kinds.push(Kind::from_gguf(id, stored)?);
    }
    Ok((tokens, kinds))
}

/// The merges of a byte-level vocabulary.
pub(super) fn merges(metadata: &Metadata) -> Result<&Strings, TokenizerError> {
    required(metadata.strings(MERGES)?, MERGES)
}

/// The scores of a SentencePiece vocabulary.
pub(super) fn scores(metadata: &Metadata, tokens: usize) -> Result<Cow<'_, [f32]>, TokenizerError> {
    let scores = required(metadata.f32s(SCORES)?, SCORES)?;
    same_length(SCORES, tokens, scores.len())?;
    Ok(scores)
}

/// What single tokens mean.
#[derive(Debug)]
pub(super) struct Roles {
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) add_bos: bool,
    /// Tokens that end a generation, sorted.
    pub(super) ends: Vec<u32>,
    /// Special tokens that swallow the white space after them, sorted.
    pub(super) strips: Vec<u32>,
    pub(super) chat_template: Option<String>,
}

impl Roles {
    pub(super) fn new(metadata: &Metadata, scheme: Scheme, vocabulary: &Vocabulary) -> Result<Self, TokenizerError> {
        let id = |key| token_id(metadata, key, vocabulary.len());
        let (bos, eos) = (id(BOS)?, id(EOS)?);
        for key in OTHER_IDS {
            id(key)?;
        }
        let mut ends: Vec<u32> = eos.into_iter().collect();
        for key in END_KEYS {
            ends.extend(id(key)?);
        }
        ends.extend(END_TEXTS.iter().filter_map(|text| end_token(text, vocabulary)));

        let sentence_piece = matches!(scheme, Scheme::SentencePiece { .. });
        let architecture = metadata.str(ARCHITECTURE)?.unwrap_or_default();
        let mut strips = Vec::new();
        if sentence_piece && STRIPPING_ARCHITECTURES.contains(&architecture) {
            let special = vocabulary.iter().filter(|(_, kind, _)| matches!(kind, Kind::Control | Kind::UserDefined));
            let stripping = special.filter(|(.., bytes)| NOT_STRIPPING.iter().all(|text| text.as_bytes() != *bytes));
            for (id, ..) in stripping {
                reserve("special tokens", &mut strips, 1)?;
                strips.push(id);
            }
            ends.extend(vocabulary.find_literal(ASSISTANT));
        }
        ends.sort_unstable();
        ends.dedup();

        // llama.cpp: SentencePiece and Llama 3 vocabularies begin with BOS unless the file says otherwise.
        let add_bos_default =
            matches!(scheme, Scheme::SentencePiece { .. } | Scheme::ByteLevel { whole_pieces: true, .. });
        let add_bos = metadata.bool(ADD_BOS)?.unwrap_or(add_bos_default);
        let chat_template = match metadata.str(CHAT_TEMPLATE)? {
            Some(text) => {
                let mut copy = String::new();
                let full = |_| TokenizerError::OutOfMemory { what: "the chat template", bytes: text.len() };
                copy.try_reserve_exact(text.len()).map_err(full)?;
                copy.push_str(text);
                Some(copy)
            }
            None => None,
        };
        Ok(Self { bos, eos, add_bos, ends, strips, chat_template })
    }
}

/// The token called `text` that ends a generation. A normal token is one only if it looks like markup: `</s>` is also
/// HTML, and an ordinary token of Qwen2's vocabulary.
fn end_token(text: &str, vocabulary: &Vocabulary) -> Option<u32> {
    let plain = || text.starts_with("<|").then(|| vocabulary.find(text.as_bytes())).flatten();
    vocabulary.find_literal(text).or_else(plain)
}

fn token_id(metadata: &Metadata, key: &'static str, tokens: usize) -> Result<Option<u32>, TokenizerError> {
    let Some(found) = metadata.usize(key)? else { return Ok(None) };
    match u32::try_from(found) {
        Ok(id) if found < tokens => Ok(Some(id)),
        _ => Err(TokenizerError::IdOutOfRange { key, found, tokens }),
    }
}

fn required<T>(value: Option<T>, key: &'static str) -> Result<T, TokenizerError> {
    value.ok_or(TokenizerError::MissingKey { key })
}

fn same_length(key: &'static str, expected: usize, found: usize) -> Result<(), TokenizerError> {
    if expected == found { Ok(()) } else { Err(TokenizerError::LengthMismatch { key, expected, found }) }
}
