//! Unicode classes of characters, as far as the split rules tell them apart.
//!
//! The general categories come from the tables of `regex-syntax` (Unicode 16), the same that regex engines use, so
//! `\p{L}` here is `\p{L}` there. They are merged once, when a tokenizer is built, into one sorted list.

use regex_syntax::hir::{Class as HirClass, HirKind};

/// What a split rule can ask of a character; every character has exactly one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// `\p{Lu}` and `\p{Lt}`.
    Upper,
    /// `\p{Ll}`.
    Lower,
    /// `\p{Lm}` and `\p{Lo}`: letters without case.
    Caseless,
    /// `\p{M}`.
    Mark,
    /// `\p{N}`.
    Number,
    /// `\r` and `\n`.
    LineEnd,
    /// The rest of `\s`.
    Blank,
    /// Everything else.
    Other,
}

impl Class {
    /// `\p{L}`.
    pub(super) fn is_letter(self) -> bool {
        matches!(self, Self::Upper | Self::Lower | Self::Caseless)
    }

    /// `\s`.
    pub(super) fn is_space(self) -> bool {
        matches!(self, Self::LineEnd | Self::Blank)
    }

    /// `[^\s\p{L}\p{N}]`.
    pub(super) fn is_symbol(self) -> bool {
        matches!(self, Self::Mark | Self::Other)
    }

    /// `[^\r\n\p{L}\p{N}]`: what may stand before the letters of a word.
    pub(super) fn may_lead_word(self) -> bool {
        matches!(self, Self::Mark | Self::Blank | Self::Other)
    }
}

/// The classes of all characters.
#[derive(Debug)]
pub(super) struct Classes {
    ascii: [Class; 128],
    /// Ranges of code points, both ends included, sorted and apart; what lies between is [`Class::Other`].
    ranges: Vec<(u32, u32, Class)>,
}

const CATEGORIES: [(&str, Class); 5] = [
    (r"[\p{Lu}\p{Lt}]", Class::Upper),
    (r"\p{Ll}", Class::Lower),
    (r"[\p{Lm}\p{Lo}]", Class::Caseless),
    (r"\p{M}", Class::Mark),
    (r"\p{N}", Class::Number),
];

impl Classes {
    pub(super) fn new() -> Self {
        let mut ranges = Vec::with_capacity(4096);
        for (pattern, class) in CATEGORIES {
            // The patterns are constants of this file; `every_category_is_there` fails if one were not understood.
            let Ok(hir) = regex_syntax::parse(pattern) else { continue };
            if let HirKind::Class(HirClass::Unicode(set)) = hir.kind() {
                ranges.extend(set.iter().map(|r| (u32::from(r.start()), u32::from(r.end()), class)));
            }
        }
        ranges.sort_unstable_by_key(|&(start, ..)| start);
        let mut classes = Self { ascii: [Class::Other; 128], ranges };
        for code in 0..128u8 {
            let class = classes.search(char::from(code));
            if let Some(slot) = classes.ascii.get_mut(usize::from(code)) {
                *slot = class;
            }
        }
        classes
    }

    /// The class of `c`.
    pub(super) fn of(&self, c: char) -> Class {
        match self.ascii.get(c as usize) {
            Some(&class) => class,
            None => self.search(c),
        }
    }

    fn search(&self, c: char) -> Class {
        let code = u32::from(c);
        let after = self.ranges.partition_point(|&(start, ..)| start <= code);
        match after.checked_sub(1).and_then(|at| self.ranges.get(at)) {
            Some(&(_, end, class)) if code <= end => class,
            _ if matches!(c, '\r' | '\n') => Class::LineEnd,
            _ if c.is_whitespace() => Class::Blank,
            _ => Class::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_category_is_there() {
        let classes = Classes::new();
        let expected = [
            ('A', Class::Upper),
            ('É', Class::Upper),
            ('ǅ', Class::Upper),
            ('z', Class::Lower),
            ('ß', Class::Lower),
            ('ʰ', Class::Caseless),
            ('ª', Class::Caseless),
            ('語', Class::Caseless),
            ('ก', Class::Caseless),
            ('\u{301}', Class::Mark),
            ('ा', Class::Mark),
            ('7', Class::Number),
            ('½', Class::Number),
            ('Ⅷ', Class::Number),
            ('٣', Class::Number),
            ('\n', Class::LineEnd),
            ('\r', Class::LineEnd),
            ('\t', Class::Blank),
            (' ', Class::Blank),
            ('\u{85}', Class::Blank),
            ('\u{a0}', Class::Blank),
            ('\u{3000}', Class::Blank),
            ('\'', Class::Other),
            ('_', Class::Other),
            ('🦙', Class::Other),
            ('\u{200d}', Class::Other),
            ('\u{10ffff}', Class::Other),
        ];
        for (c, class) in expected {
            assert_eq!(classes.of(c), class, "{c:?}");
        }
    }

    #[test]
    fn agrees_with_the_standard_library_on_every_character() {
        let classes = Classes::new();
        for c in '\0'..=char::MAX {
            let class = classes.of(c);
            assert_eq!(class.is_space(), c.is_whitespace(), "{c:?}");
            if class.is_letter() {
                assert!(c.is_alphabetic(), "{c:?}");
            }
            if class == Class::Number {
                assert!(c.is_numeric(), "{c:?}");
            }
        }
    }
}
