//! Text of which only parts may contain special tokens.
//!
//! A mark behind the first character of a special token's name makes it no name; marks are dropped when the text is
//! encoded. They survive whatever a template does between the two (trimming, joining), unlike positions.

use super::{Tokenizer, merge::Merger};

impl Tokenizer {
    /// `text` with `mark` in every place where a control token could begin, also where only the end of the text keeps
    /// it from that: another text may follow. Where there is a mark already, nothing changes.
    pub(crate) fn mark_special(&self, text: &str, mark: char) -> String {
        self.mark(text, mark, true)
    }

    /// As [`mark_special`](Self::mark_special) for the end of the text only: whole names stay what they are.
    pub(crate) fn mark_end(&self, text: &str, mark: char) -> String {
        self.mark(text, mark, false)
    }

    fn mark(&self, text: &str, mark: char, whole: bool) -> String {
        let (control, vocabulary) = (&self.inner.control, &self.inner.vocabulary);
        // What is left where a template trims.
        let trimmed = text.trim_end_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c));
        let mut marked = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let start = text.len() - rest.len();
            let end = trimmed.get(start..).filter(|end| !end.is_empty()).unwrap_or(rest);
            // Each place by itself: tokens that overlap are all broken.
            let begins = whole && control.begins(rest, vocabulary) || control.is_cut(end, vocabulary);
            marked.push(c);
            rest = rest.get(c.len_utf8()..).unwrap_or("");
            if begins && !rest.starts_with(mark) {
                marked.push(mark);
            }
        }
        marked
    }

    /// The ids of `text`, in which names of special tokens are meant as such where `mark` does not break them.
    pub(crate) fn encode_marked(&self, text: &str, mark: char) -> Vec<u32> {
        let (vocabulary, roles) = (&self.inner.vocabulary, &self.inner.roles);
        let mut ids = Vec::with_capacity(text.len() / 4 + 1);
        let mut merger = Merger::default();
        // There is no special token in `rest` before `from`.
        let (mut rest, mut from) = (text, 0);
        while let Some(found) = self.inner.special.first_in(rest.get(from..).unwrap_or(""), vocabulary) {
            let (start, end) = (from + found.start, from + found.end);
            let (name, after) = (rest.get(start..end).unwrap_or(""), rest.get(end..).unwrap_or(""));
            // A name of one character cannot be broken, only marked.
            if name.chars().nth(1).is_none() && after.starts_with(mark) {
                from = end;
                continue;
            }
            self.encode_unmarked(rest.get(..start).unwrap_or(""), mark, &mut merger, &mut ids);
            ids.push(found.id);
            let strips = roles.strips.binary_search(&found.id).is_ok();
            (rest, from) = (if strips { after.trim_start() } else { after }, 0);
        }
        self.encode_unmarked(rest, mark, &mut merger, &mut ids);
        ids
    }

    fn encode_unmarked(&self, text: &str, mark: char, merger: &mut Merger, ids: &mut Vec<u32>) {
        if text.contains(mark) {
            self.encode_into(&text.replace(mark, ""), &self.inner.user_defined, merger, ids);
        } else {
            self.encode_into(text, &self.inner.user_defined, merger, ids);
        }
    }
}
