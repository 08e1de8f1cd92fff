//! From tokens back to text, one token at a time.
//!
//! A token can end in the middle of a character, so bytes are held back until they are a whole one or can no longer
//! become one. The text is the same as `String::from_utf8_lossy` of all the bytes together, however they are cut.

use super::Tokenizer;

/// Longest incomplete character.
const MAX_HELD: usize = 3;

/// Turns tokens into text as they come. After the first few tokens it allocates nothing but what the output needs.
///
/// Control tokens print nothing. At the start of a text SentencePiece's leading space is dropped: see
/// [`Decoder::mid_text`].
#[derive(Clone, Debug)]
pub struct Decoder {
    tokenizer: Tokenizer,
    /// Bytes not shown yet; between calls at most [`MAX_HELD`], the beginning of a character.
    held: Vec<u8>,
    /// Whether a leading space would be SentencePiece's own.
    drop_space: bool,
    show_control: bool,
}

impl Decoder {
    pub(super) fn new(tokenizer: Tokenizer) -> Self {
        let drop_space = tokenizer.adds_space();
        Self { tokenizer, held: Vec::with_capacity(64), drop_space, show_control: false }
    }

    /// For tokens that continue a text: a space they begin with is kept.
    #[must_use]
    pub fn mid_text(mut self) -> Self {
        self.drop_space = false;
        self
    }

    /// Prints control tokens by their names, too.
    #[must_use]
    pub fn show_control(mut self) -> Self {
        self.show_control = true;
        self
    }

    /// Appends to `out` what is certain after one more token: whole characters, and U+FFFD for bytes that cannot
    /// become one. An id outside the vocabulary prints nothing.
    pub fn push(&mut self, id: u32, out: &mut String) {
        let shown = self.tokenizer.printed(id, self.show_control);
        let Some(&first) = shown.first() else { return };
        let shown = if self.drop_space && first == b' ' { shown.get(1..).unwrap_or(&[]) } else { shown };
        self.drop_space = false;
        self.held.extend_from_slice(shown);
        self.release(out);
    }

    /// Ends the text: an incomplete character becomes U+FFFD. The decoder can go on with text that follows.
    pub fn finish(&mut self, out: &mut String) {
        if !self.held.is_empty() {
            out.push(char::REPLACEMENT_CHARACTER);
        }
        self.held.clear();
    }

    fn release(&mut self, out: &mut String) {
        let mut rest = self.held.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    out.push_str(text);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at_checked(error.valid_up_to()).unwrap_or((rest, &[]));
                    // Valid by the error's own word; lossy, so that nothing here can fail.
                    out.push_str(&String::from_utf8_lossy(valid));
                    rest = after;
                    let Some(invalid) = error.error_len() else { break };
                    out.push(char::REPLACEMENT_CHARACTER);
                    rest = rest.get(invalid..).unwrap_or(&[]);
                }
            }
        }
        debug_assert!(rest.len() <= MAX_HELD, "only an incomplete character is held");
        let shown = self.held.len() - rest.len();
        self.held.drain(..shown);
    }
}
