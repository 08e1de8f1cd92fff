//! The tokens: what bytes each stands for, what kind it is, and which token stands for given bytes.
//!
//! GGUF stores a token as text: in byte-level vocabularies every byte is written as one printable character (GPT-2's
//! table), in SentencePiece ones a space is written U+2581 and single bytes as `<0x41>`. All of that is undone here,
//! once: the rest of the tokenizer works on the plain bytes of user text. Bytes lie in one heap, and the way back is
//! an open-addressing table of ids, so a vocabulary of 150,000 tokens takes about 3 MB in four allocations.

use std::hash::{BuildHasher, RandomState};

use super::{TokenizerError, reserve, with_room};

/// Longest token, in bytes of its text. The longest real ones (runs of spaces) have 256; loading a SentencePiece
/// vocabulary takes time in proportion to tokens times their length.
const MAX_TOKEN_BYTES: usize = 1024;
/// Ids fit 24 bits with one value to spare for [`FREE`], and `merge` uses the upper bit for characters.
const MAX_TOKENS: usize = (1 << ID_BITS) - 1;

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Ordinary text.
    Normal,
    /// `<unk>`: stands for nothing.
    Unknown,
    /// Structure (turns, end of text): matched only when asked, prints nothing.
    Control,
    /// Literal text, always matched before anything else.
    UserDefined,
    /// A row nobody uses: never produced, prints nothing.
    Unused,
    /// One byte of text that no other token covers (SentencePiece).
    Byte,
}

impl Kind {
    /// From the number GGUF stores.
    pub(super) fn from_gguf(id: u32, stored: usize) -> Result<Self, TokenizerError> {
        match stored {
            1 => Ok(Self::Normal),
            2 => Ok(Self::Unknown),
            3 => Ok(Self::Control),
            4 => Ok(Self::UserDefined),
            5 => Ok(Self::Unused),
            6 => Ok(Self::Byte),
            found => Err(TokenizerError::UnknownTokenType { id, found }),
        }
    }

    /// Whether the token prints nothing.
    pub(super) fn is_silent(self) -> bool {
        matches!(self, Self::Unknown | Self::Control | Self::Unused)
    }
}

/// How token texts are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writing {
    /// One printable character per byte.
    ByteLevel,
    /// Plain text with U+2581 for a space.
    SentencePiece,
}

/// All tokens of a file.
#[derive(Debug)]
pub(super) struct Vocabulary {
    heap: Vec<u8>,
    /// Where each token's bytes end in `heap`; they begin where those of the token before end.
    ends: Vec<u32>,
    kinds: Vec<Kind>,
    index: Index,
    byte_ids: [u32; 256],
}

impl Vocabulary {
    /// Bytes of memory that it takes.
    pub(super) fn len_bytes(&self) -> usize {
        let Self { heap, ends, kinds, index, byte_ids: _ } = self;
        heap.capacity()
            + size_of::<u32>() * (ends.capacity() + index.slots.capacity())
            + kinds.capacity() * size_of::<Kind>()
    }

    /// Reads `tokens` (texts as stored) with one kind each.
    ///
    /// # Errors
    /// [`TokenizerError`] if a text is too long, not unique or not a byte where it should be, or a byte has no token.
    pub(super) fn new<'t>(
        writing: Writing,
        tokens: impl ExactSizeIterator<Item = &'t str>,
        kinds: Vec<Kind>,
    ) -> Result<Self, TokenizerError> {
        let n = tokens.len();
        if n > MAX_TOKENS {
            return Err(TokenizerError::TooLarge { what: "tokens", found: n, limit: MAX_TOKENS });
        }
        let mut vocabulary = Self {
            heap: with_room("texts of tokens", n * 8)?,
            ends: with_room("tokens", n)?,
            kinds,
            index: Index::with_room(n)?,
            byte_ids: [u32::MAX; 256],
        };
        for (id, text) in (0..).zip(tokens) {
            vocabulary.push(writing, id, text)?;
        }
        if writing == Writing::ByteLevel {
            for byte in 0..=u8::MAX {
                vocabulary.set_byte(byte, vocabulary.find(&[byte]));
            }
        }
        match (0..=u8::MAX).find(|&byte| vocabulary.byte(byte) == u32::MAX) {
            Some(byte) => Err(TokenizerError::MissingByteToken { byte }),
            None => Ok(vocabulary),
        }
    }

    fn push(&mut self, writing: Writing, id: u32, text: &str) -> Result<(), TokenizerError> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(TokenizerError::TokenTooLong { id, bytes: text.len(), limit: MAX_TOKEN_BYTES });
        }
        let start = self.heap.len();
        // No writing makes a text longer.
        reserve("texts of tokens", &mut self.heap, text.len())?;
        let mut kind = self.kind(id).unwrap_or(Kind::Unused);
        match (kind, writing) {
            (Kind::Byte, Writing::SentencePiece) => {
                let byte =
                    byte_of(text).ok_or_else(|| TokenizerError::InvalidByteToken { id, text: text.to_owned() })?;
                if self.byte(byte) != u32::MAX {
                    return Err(TokenizerError::DuplicateToken {
                        first: self.byte(byte),
                        second: id,
                        text: text.to_owned(),
                    });
                }
                self.set_byte(byte, Some(id));
                self.heap.push(byte);
            }
            (Kind::Normal, _) => writing.bytes_into(text, &mut self.heap),
            // Files mark the rows that pad an embedding as unused, user-defined or unknown; their text tells.
            _ if is_padding(text, id) => {
                kind = Kind::Unused;
                self.heap.extend_from_slice(text.as_bytes());
            }
            _ => self.heap.extend_from_slice(text.as_bytes()),
        }
        if let Some(slot) = self.kinds.get_mut(id as usize) {
            *slot = kind;
        }
        // At most MAX_TOKENS x MAX_TOKEN_BYTES = 2^34 bytes.
        let end = u32::try_from(self.heap.len()).map_err(|_| TokenizerError::TooLarge {
            what: "bytes of text",
            found: self.heap.len(),
            limit: u32::MAX as usize,
        })?;
        self.ends.push(end);
        if start == self.heap.len() || kind == Kind::Byte {
            return Ok(());
        }
        let Self { heap, ends, kinds, index, .. } = self;
        let bytes = heap.get(start..).unwrap_or(&[]);
        let same = |other| Class::of(kind_at(kinds, other)) == Class::of(kind) && bytes_at(heap, ends, other) == bytes;
        match index.insert(index.hash(Class::of(kind), bytes), id, same) {
            None => Ok(()),
            Some(first) => Err(TokenizerError::DuplicateToken { first, second: id, text: text.to_owned() }),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes token `id` stands for; those of a control token are its name.
    pub(super) fn bytes(&self, id: u32) -> Option<&[u8]> {
        ((id as usize) < self.ends.len()).then(|| bytes_at(&self.heap, &self.ends, id))
    }

    pub(super) fn kind(&self, id: u32) -> Option<Kind> {
        self.kinds.get(id as usize).copied()
    }

    /// Every token with its kind and bytes, by id.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, Kind, &[u8])> {
        (0..).zip(&self.kinds).map(|(id, &kind)| (id, kind, bytes_at(&self.heap, &self.ends, id)))
    }

    /// Whether `id` is a normal token that stands for `bytes`.
    pub(super) fn is_text(&self, id: u32, bytes: &[u8]) -> bool {
        bytes_at(&self.heap, &self.ends, id) == bytes && self.kind(id) == Some(Kind::Normal)
    }

    /// The normal token that stands for `bytes`.
    pub(super) fn find(&self, bytes: &[u8]) -> Option<u32> {
        self.find_in(Class::Text, bytes)
    }

    /// The token with the literal text `text` that is not a normal one.
    pub(super) fn find_literal(&self, text: &str) -> Option<u32> {
        self.find_in(Class::Literal, text.as_bytes())
    }

    fn find_in(&self, class: Class, bytes: &[u8]) -> Option<u32> {
        self.index.find(self.index.hash(class, bytes), |id| {
            bytes_at(&self.heap, &self.ends, id) == bytes && self.kind(id).is_some_and(|kind| Class::of(kind) == class)
        })
    }

    /// Whether a space stands only at the beginning of a normal token, perhaps after other spaces. Then no token
    /// reaches across the end of a word.
    pub(super) fn spaces_begin_tokens(&self) -> bool {
        let crosses = |bytes: &[u8]| bytes.windows(2).any(|pair| matches!(pair, [first, b' '] if *first != b' '));
        !self.iter().any(|(_, kind, bytes)| kind == Kind::Normal && crosses(bytes))
    }

    /// The token for one byte.
    pub(super) fn byte(&self, byte: u8) -> u32 {
        self.byte_ids.get(usize::from(byte)).copied().unwrap_or(u32::MAX)
    }

    fn set_byte(&mut self, byte: u8, id: Option<u32>) {
        if let (Some(slot), Some(id)) = (self.byte_ids.get_mut(usize::from(byte)), id) {
            *slot = id;
        }
    }
}

fn bytes_at<'h>(heap: &'h [u8], ends: &[u32], id: u32) -> &'h [u8] {
    let id = id as usize;
    let start = id.checked_sub(1).and_then(|before| ends.get(before)).map_or(0, |&end| end as usize);
    let end = ends.get(id).map_or(start, |&end| end as usize);
    heap.get(start..end).unwrap_or(&[])
}

fn kind_at(kinds: &[Kind], id: u32) -> Kind {
    kinds.get(id as usize).copied().unwrap_or(Kind::Unused)
}

impl Writing {
    /// Appends the bytes that the text of a normal token stands for.
    ///
    /// A byte-level text with a character outside the table (an added token) stands for itself, as in Hugging Face's
    /// decoder.
    pub(super) fn bytes_into(self, text: &str, out: &mut Vec<u8>) {
        let start = out.len();
        match self {
            Self::SentencePiece => {
                for (n, part) in text.split('\u{2581}').enumerate() {
                    if n > 0 {
                        out.push(b' ');
                    }
                    out.extend_from_slice(part.as_bytes());
                }
            }
            Self::ByteLevel => {
                for c in text.chars() {
                    let Some(byte) = byte_level(c) else {
                        out.truncate(start);
                        out.extend_from_slice(text.as_bytes());
                        return;
                    };
                    out.push(byte);
                }
            }
        }
    }
}

/// The byte that GPT-2's table writes as `c`: the printable bytes 33-126, 161-172 and 174-255 are written as
/// themselves, the other 68 in order as U+0100 to U+0143 (`bytes_to_unicode` of github.com/openai/gpt-2 `encoder.py`).
fn byte_level(c: char) -> Option<u8> {
    let code = u32::from(c);
    let byte = match code {
        33..=126 | 161..=172 | 174..=255 => code,
        0x100..=0x120 => code - 0x100,
        0x121..=0x142 => code - 0x121 + 127,
        0x143 => 173,
        _ => return None,
    };
    u8::try_from(byte).ok()
}

/// The byte of `<0x41>`: exactly two hexadecimal digits.
fn byte_of(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let plain = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

/// Whether `text` is `[PADid]`, the name converters give to rows without a token.
fn is_padding(text: &str, id: u32) -> bool {
    text.strip_prefix("[PAD").and_then(|rest| rest.strip_suffix(']')).is_some_and(|n| n.parse() == Ok(id))
}

/// Texts of these two classes do not compete: `</s>` can be ordinary text and a control token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Text,
    Literal,
}

impl Class {
    fn of(kind: Kind) -> Self {
        if kind == Kind::Normal { Self::Text } else { Self::Literal }
    }
}

/// From bytes to id: open addressing with linear probing, at most two thirds full. The hash is keyed at random, so that
/// no file can be made whose tokens all collide; no result depends on it.
#[derive(Debug)]
struct Index {
    /// 8 bits of the hash and 24 of the id, or [`FREE`]: small, because looking up costs little but cache misses.
    slots: Vec<u32>,
    state: RandomState,
}

const ID_BITS: u32 = 24;
const FREE: u32 = u32::MAX;

impl Index {
    fn with_room(n: usize) -> Result<Self, TokenizerError> {
        let count = (n + n / 2).next_power_of_two().max(16);
        let mut slots = with_room("index of tokens", count)?;
        slots.resize(count, FREE);
        Ok(Self { slots, state: RandomState::new() })
    }

    fn hash(&self, class: Class, bytes: &[u8]) -> u64 {
        self.state.hash_one((class == Class::Text, bytes))
    }

    /// Slots in probing order, each once.
    fn probe(&self, hash: u64) -> impl Iterator<Item = usize> + use<> {
        let mask = self.slots.len() - 1;
        let first = usize::try_from(hash & mask as u64).unwrap_or(0);
        (0..=mask).map(move |step| (first + step) & mask)
    }

    fn find(&self, hash: u64, same: impl Fn(u32) -> bool) -> Option<u32> {
        for at in self.probe(hash) {
            let &slot = self.slots.get(at)?;
            if slot == FREE {
                return None;
            }
            if let Some(id) = id_in(slot, hash).filter(|&id| same(id)) {
                return Some(id);
            }
        }
        None
    }

    /// Adds `id`, or returns the id that is there already for the same bytes.
    fn insert(&mut self, hash: u64, id: u32, same: impl Fn(u32) -> bool) -> Option<u32> {
        for at in self.probe(hash) {
            let slot = self.slots.get_mut(at)?;
            if *slot == FREE {
                *slot = tag(hash) | id;
                return None;
            }
            if let Some(other) = id_in(*slot, hash).filter(|&other| same(other)) {
                return Some(other);
            }
        }
        None
    }
}

/// The upper 8 bits of the hash, in place; the lower ones choose the slot.
fn tag(hash: u64) -> u32 {
    ((hash >> (64 - 8)) as u32) << ID_BITS
}

/// The id in a slot, if its part of the hash is that of `hash`.
fn id_in(slot: u32, hash: u64) -> Option<u32> {
    (slot & 0xFF << ID_BITS == tag(hash)).then_some(slot & !(0xFF << ID_BITS))
}
