//! The tokens of `tokenizer.json`, by id and by text.

use std::collections::HashMap;

use serde_json::Value;

use super::{Document, FormatError, Strings, excerpt};

/// What a token is for; the numbers are those of `enum llama_token_type` in llama.cpp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    /// A row of the embedding without a token.
    Unused = 5,
    Byte = 6,
}

/// Tokens by id; holes are padding.
pub(super) struct Vocabulary {
    tokens: Vec<Option<(String, Kind)>>,
    ids: HashMap<String, usize>,
}

impl Vocabulary {
    /// Reads tokens and added tokens; all ids must be below `rows`.
    pub(super) fn read(tokenizer: &Document, rows: usize) -> Result<Self, FormatError> {
        let map = tokenizer.map("model.vocab")?;
        let mut vocabulary = Self { tokens: vec![None; rows], ids: HashMap::with_capacity(map.len()) };
        let expected = || format!("an id of its own below {rows}, the number of embedding rows");
        let slot = |id: &Value| id.as_u64().and_then(|id| usize::try_from(id).ok());
        for (text, id) in map {
            if !slot(id).is_some_and(|id| vocabulary.add(id, text, Kind::Normal)) {
                return Err(tokenizer.wrong_at(format!("model.vocab[{text:?}]"), excerpt(id), expected()));
            }
        }
        if tokenizer.value("added_tokens").is_none() {
            return Ok(vocabulary);
        }
        for index in 0..tokenizer.list("added_tokens")?.len() {
            let field = |name: &str| format!("added_tokens.{index}.{name}");
            let text = tokenizer.text(&field("content"))?;
            let special = tokenizer.flag_or(&field("special"), false)?;
            let id = tokenizer.count(&field("id"), 0..=rows.saturating_sub(1))?;
            if !vocabulary.add(id, text, if special { Kind::Control } else { Kind::UserDefined }) {
                return Err(tokenizer.wrong(&field("id"), expected()));
            }
        }
        Ok(vocabulary)
    }

    /// A token may be added again with another kind, but not take the place of another; false if it would, or if there
    /// is no such place.
    fn add(&mut self, id: usize, text: &str, kind: Kind) -> bool {
        match self.tokens.get_mut(id) {
            Some(token) if token.as_ref().is_none_or(|(old, _)| old == text) => {
                *token = Some((text.to_owned(), kind));
                self.ids.entry(text.to_owned()).or_insert(id);
                true
            }
            _ => false,
        }
    }

    /// Number of rows, those without a token included.
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(super) fn id(&self, text: &str) -> Option<usize> {
        self.ids.get(text).copied()
    }

    pub(super) fn kind(&self, text: &str) -> Option<Kind> {
        self.tokens.get(self.id(text)?)?.as_ref().map(|(_, kind)| *kind)
    }

    /// Gives the token `text` another kind and returns its id; `None` if there is none.
    pub(super) fn set_kind(&mut self, text: &str, kind: Kind) -> Option<u32> {
        let id = self.id(text)?;
        self.tokens.get_mut(id)?.as_mut()?.1 = kind;
        u32::try_from(id).ok()
    }

    /// Text and kind of every row; rows without a token have no text.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Kind)> {
        self.tokens.iter().map(|token| token.as_ref().map_or(("", Kind::Unused), |(text, kind)| (text.as_str(), *kind)))
    }

    /// The texts of all rows; those without a token are called `[PADn]`.
    pub(super) fn texts(&self) -> Strings {
        let pad = |id| format!("[PAD{id}]");
        let text = |(id, token): (usize, &Option<(String, Kind)>)| match token {
            Some((text, _)) => text.clone(),
            None => pad(id),
        };
        self.tokens.iter().enumerate().map(text).collect()
    }

    /// The kinds of all rows, as GGUF numbers them.
    pub(super) fn types(&self) -> Vec<i32> {
        self.iter().map(|(_, kind)| kind as i32).collect()
    }
}
