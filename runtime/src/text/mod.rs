//! Text to tokens and back: byte-level BPE and SentencePiece BPE, built from GGUF metadata.
//!
//! [`Tokenizer::from_metadata`] checks a vocabulary once; after that [`Tokenizer::encode`] cannot fail on any text and
//! takes time in proportion to it. The steps, each in its own module: special tokens are cut out (`literal`), what is
//! between them is cut into pieces (`split`, byte-level only), bytes or characters merge into tokens (`merge`), ids are
//! looked up in `vocabulary`. [`Decoder`] goes the other way, token by token. `source` knows the metadata keys.
//!
//! Ids equal those of Hugging Face's `tokenizers` with the models' own `tokenizer.json`, except that no Unicode
//! normalisation is applied (Qwen2's asks for NFC; llama.cpp applies none either).

mod class;
mod decode;
mod error;
mod literal;
#[cfg(feature = "chat")]
mod marked;
mod merge;
mod source;
mod split;
mod vocabulary;

use std::{fmt, sync::Arc};

use halfbyte_formats::gguf::Metadata;

pub use decode::Decoder;
pub use error::TokenizerError;

use literal::Literals;
use merge::{Merger, Merges};
use source::{Roles, Scheme};
use split::Splitter;
use vocabulary::{Kind, Vocabulary, Writing};

/// What the application decides about a tokenizer instead of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenizerOptions {
    /// Pre-tokenizer to use in place of `tokenizer.ggml.pre`, for files that lack it or name an unknown one:
    /// `qwen2`, `dbrx`, `gpt-4o` or `llama-bpe`. SentencePiece vocabularies have none.
    pub pre: Option<String>,
}

/// What the names of special tokens in a text are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// Ordinary text: right for everything that comes from a user. Only tokens that the vocabulary calls
    /// user-defined are matched all the same.
    AsText,
    /// The tokens themselves: right for markup that the application wrote.
    Parse,
}

/// A vocabulary and its rules: immutable, `Send + Sync`, cheap to clone.
///
/// ```
/// use halfbyte::text::{Special, Tokenizer, TokenizerError};
/// use halfbyte_formats::gguf::Metadata;
///
/// fn round_trip(metadata: &Metadata, text: &str) -> Result<bool, TokenizerError> {
///     let tokenizer = Tokenizer::from_metadata(metadata)?;
///     let ids = tokenizer.encode(text, Special::AsText);
///     Ok(tokenizer.decode_lossy(&ids) == text)
/// }
/// ```
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    vocabulary: Vocabulary,
    merges: Merges,
    rules: Rules,
    roles: Roles,
    /// Matched in every text.
    user_defined: Literals,
    /// Matched on [`Special::Parse`].
    special: Literals,
    /// Those of `special` that no text may become by itself.
    #[cfg(feature = "chat")]
    control: Literals,
}

/// What is done to the text between special tokens.
#[derive(Debug)]
enum Rules {
    ByteLevel { splitter: Splitter, whole_pieces: bool },
    SentencePiece { space_prefix: bool, by_words: bool },
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}

/// An empty vector with room for `len` elements; `what` they are is only for the error.
fn with_room<T>(what: &'static str, len: usize) -> Result<Vec<T>, TokenizerError> {
    let mut list = Vec::new();
    reserve(what, &mut list, len)?;
    Ok(list)
}

/// Makes room for `more` elements.
fn reserve<T>(what: &'static str, list: &mut Vec<T>, more: usize) -> Result<(), TokenizerError> {
    let bytes = (list.len().saturating_add(more)).saturating_mul(size_of::<T>());
    list.try_reserve(more).map_err(|_| TokenizerError::OutOfMemory { what, bytes })
}

impl Tokenizer {
    /// Bytes of memory that it takes, but for what is the same for all.
    pub(crate) fn len_bytes(&self) -> usize {
        self.inner.vocabulary.len_bytes() + self.inner.merges.len_bytes()
    }

    /// The tokenizer that a file's `tokenizer.ggml.*` keys describe.
    ///
    /// # Errors
    /// [`TokenizerError`] if a key is missing or of the wrong kind, model or pre-tokenizer are not supported, or the
    /// vocabulary contradicts itself.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, TokenizerError> {
        Self::from_metadata_with(metadata, &TokenizerOptions::default())
    }

    /// As [`Tokenizer::from_metadata`], where `options` override the file.
    ///
    /// # Errors
    /// As [`Tokenizer::from_metadata`].
    pub fn from_metadata_with(metadata: &Metadata, options: &TokenizerOptions) -> Result<Self, TokenizerError> {
        let scheme = source::scheme(metadata, options)?;
        let (texts, kinds) = source::tokens(metadata)?;
        let writing = match scheme {
            Scheme::ByteLevel { .. } => Writing::ByteLevel,
            Scheme::SentencePiece { .. } => Writing::SentencePiece,
        };
        let vocabulary = Vocabulary::new(writing, texts.iter(), kinds)?;
        let (merges, rules) = match scheme {
            Scheme::ByteLevel { pattern, whole_pieces } => (
                Merges::listed(&vocabulary, source::merges(metadata)?.iter())?,
                Rules::ByteLevel { splitter: Splitter::new(pattern), whole_pieces },
            ),
            Scheme::SentencePiece { space_prefix } => (
                Merges::scored(&vocabulary, &source::scores(metadata, vocabulary.len())?)?,
                Rules::SentencePiece { space_prefix, by_words: vocabulary.spaces_begin_tokens() },
            ),
        };
        let roles = Roles::new(metadata, scheme, &vocabulary)?;
        let user_defined = Literals::new(&vocabulary, |kind| kind == Kind::UserDefined)?;
        let special =
            Literals::new(&vocabulary, |kind| matches!(kind, Kind::UserDefined | Kind::Control | Kind::Unknown))?;
        #[cfg(feature = "chat")]
        let control = Literals::new(&vocabulary, |kind| matches!(kind, Kind::Control | Kind::Unknown))?;
        Ok(Self {
            inner: Arc::new(Inner {
                vocabulary,
                merges,
                rules,
                roles,
                user_defined,
                special,
                #[cfg(feature = "chat")]
                control,
            }),
        })
    }

    /// The ids of `text`. No begin-of-sequence token is added: see [`Tokenizer::add_bos`].
    ///
    /// Never fails: what no token covers becomes tokens of single bytes.
    pub fn encode(&self, text: &str, special: Special) -> Vec<u32> {
        let literals = match special {
            Special::AsText => &self.inner.user_defined,
            Special::Parse => &self.inner.special,
        };
        let mut ids = Vec::with_capacity(text.len() / 4 + 1);
        self.encode_into(text, literals, &mut Merger::default(), &mut ids);
        ids
    }

    /// Appends the ids of `text`, in which `literals` are special.
    fn encode_into(&self, text: &str, literals: &Literals, merger: &mut Merger, ids: &mut Vec<u32>) {
        let Inner { vocabulary, roles, .. } = &*self.inner;
        let mut rest = text;
        while let Some(found) = literals.first_in(rest, vocabulary) {
            // Literals are whole characters, so both cuts are between characters.
            self.encode_plain(rest.get(..found.start).unwrap_or(""), merger, ids);
            ids.push(found.id);
            rest = rest.get(found.end..).unwrap_or("");
            if roles.strips.binary_search(&found.id).is_ok() {
                rest = rest.trim_start();
            }
        }
        self.encode_plain(rest, merger, ids);
    }

    /// Text without special tokens.
    fn encode_plain(&self, text: &str, merger: &mut Merger, ids: &mut Vec<u32>) {
        let Inner { vocabulary, merges, rules, .. } = &*self.inner;
        match rules {
            _ if text.is_empty() => {}
            Rules::ByteLevel { splitter, whole_pieces } => {
                for piece in splitter.pieces(text) {
                    let whole = if *whole_pieces { vocabulary.find(piece.as_bytes()) } else { None };
                    match whole {
                        Some(id) => ids.push(id),
                        None => {
                            let bytes = piece.bytes().map(|byte| vocabulary.byte(byte));
                            merger.run(merges, bytes, |id| ids.push(id));
                        }
                    }
                }
            }
            Rules::SentencePiece { space_prefix, by_words } => {
                let mut prefix = space_prefix.then_some(' ');
                for piece in split::words(text, *by_words) {
                    // U+2581 is how the vocabulary writes a space; in a text it is one, too.
                    let chars = piece.chars().map(|c| if c == '\u{2581}' { ' ' } else { c });
                    let symbols = prefix.take().into_iter().chain(chars).map(|c| merge::character(c, vocabulary));
                    merger.run(merges, symbols, |symbol| match merge::as_character(symbol) {
                        None => ids.push(symbol),
                        Some(c) => ids.extend(c.encode_utf8(&mut [0; 4]).bytes().map(|byte| vocabulary.byte(byte))),
                    });
                }
            }
        }
    }

    /// The bytes that `ids` stand for from the start of a text, control tokens left out. They need not be UTF-8.
    pub fn decode(&self, ids: &[u32]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        for &id in ids {
            bytes.extend_from_slice(self.printed(id, false));
        }
        if self.adds_space() && bytes.first() == Some(&b' ') {
            bytes.remove(0);
        }
        bytes
    }

    /// As [`Tokenizer::decode`], with U+FFFD for what is not UTF-8.
    pub fn decode_lossy(&self, ids: &[u32]) -> String {
        String::from_utf8_lossy(&self.decode(ids)).into_owned()
    }

    /// A decoder at the start of a text.
    pub fn decoder(&self) -> Decoder {
        Decoder::new(self.clone())
    }

    /// The bytes token `id` stands for, where those of a control token are its name; `None` outside the vocabulary.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.inner.vocabulary.bytes(id)
    }

    /// The token that is exactly `text`: a special one of that name, or else an ordinary one.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        let vocabulary = &self.inner.vocabulary;
        vocabulary.find_literal(text).or_else(|| vocabulary.find(text.as_bytes()))
    }

    /// Number of tokens, unused ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.vocabulary.len()
    }

    /// Whether `id` is structure rather than text: it prints nothing, and text becomes it only by [`Special::Parse`].
    pub fn is_control(&self, id: u32) -> bool {
        matches!(self.inner.vocabulary.kind(id), Some(Kind::Control | Kind::Unknown))
    }

    /// The token that begins a sequence, if the file names one.
    pub fn bos(&self) -> Option<u32> {
        self.inner.roles.bos
    }

    /// The token that ends a sequence, if the file names one. Others end one, too: see
    /// [`Tokenizer::end_of_generation`].
    pub fn eos(&self) -> Option<u32> {
        self.inner.roles.eos
    }

    /// Whether the model expects [`Tokenizer::bos`] before a text.
    pub fn add_bos(&self) -> bool {
        self.inner.roles.add_bos
    }

    /// Whether the model means to stop with `id`: end of sequence, of turn or of message, by the file's keys and by the
    /// names of tokens.
    pub fn end_of_generation(&self, id: u32) -> bool {
        self.inner.roles.ends.binary_search(&id).is_ok()
    }

    /// The file's chat template, in Jinja.
    pub fn chat_template(&self) -> Option<&str> {
        self.inner.roles.chat_template.as_deref()
    }

    /// What `id` adds to a text.
    fn printed(&self, id: u32, show_control: bool) -> &[u8] {
        let Inner { vocabulary, .. } = &*self.inner;
        match vocabulary.kind(id) {
            Some(Kind::Unused) | None => &[],
            Some(kind) if kind.is_silent() && !show_control => &[],
            Some(_) => vocabulary.bytes(id).unwrap_or(&[]),
        }
    }

    /// Whether encoding puts a space before the text, which decoding takes away.
    fn adds_space(&self) -> bool {
        matches!(self.inner.rules, Rules::SentencePiece { space_prefix: true, .. })
    }
}
