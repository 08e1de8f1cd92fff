//! Cutting text into the pieces inside which byte pairs may merge.
//!
//! Each vocabulary was trained behind one regular expression; its matches, one after the other, are the pieces. The
//! expressions need look-ahead, and a backtracking engine must give up on some inputs, so they are written out here
//! as scanners over [`Class`]: no input fails, each takes time linear in its length. The tests compare them with the
//! expressions themselves. SentencePiece vocabularies are not split for meaning, only for speed: see [`words`].
//!
//! All of them try, in this order, at each position:
//! ```text
//! cl100k, qwen2   (?i:'s|'t|'re|'ve|'m|'ll|'d)  |  [^\r\n\p{L}\p{N}]?\p{L}+
//! o200k           [^\r\n\p{L}\p{N}]?U*W+(?i:'s|'t|'re|'ve|'m|'ll|'d)?  |  [^\r\n\p{L}\p{N}]?U+W*(?i:'s|…|'d)?
//!                     where U = [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}], W = [\p{Ll}\p{Lm}\p{Lo}\p{M}]
//! qwen2           \p{N}      cl100k, o200k  \p{N}{1,3}
//! cl100k, qwen2    ?[^\s\p{L}\p{N}]+[\r\n]*      o200k   ?[^\s\p{L}\p{N}]+[\r\n/]*
//! all             \s*[\r\n]+  |  \s+(?!\S)  |  \s+
//! ```
//! Sources: `tokenizer.json` of Qwen2, of Phi-4 and Llama 3 (cl100k), of Phi-4-mini (o200k). llama.cpp's versions
//! differ in two points, where we follow the originals: it approximates U and W by ASCII case, and its contractions
//! lack U+017F (`ſ`), which `(?i:'s)` matches.

use super::class::{Class, Classes};

/// Which expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    /// GGUF `qwen2`.
    Qwen2,
    /// GGUF `dbrx` and `llama-bpe`.
    Cl100k,
    /// GGUF `gpt-4o`.
    O200k,
}

/// Cuts text by one expression.
#[derive(Debug)]
pub(super) struct Splitter {
    pattern: Pattern,
    classes: Classes,
}

impl Splitter {
    pub(super) fn new(pattern: Pattern) -> Self {
        Self { pattern, classes: Classes::new() }
    }

    /// The pieces of `text`, in order; joined they are `text`, and none is empty.
    pub(super) fn pieces<'t>(&self, text: &'t str) -> impl Iterator<Item = &'t str> {
        let mut rest = text;
        std::iter::from_fn(move || {
            let first = rest.chars().next()?;
            // A piece of at least one character: a scanner that returned 0 would stop the world.
            let len = self.piece_len(rest, first).max(first.len_utf8());
            let (piece, tail) = rest.split_at_checked(len).unwrap_or((rest, ""));
            rest = tail;
            Some(piece)
        })
    }

    /// Bytes of the piece that `text`, which begins with `first`, begins with.
    fn piece_len(&self, text: &str, first: char) -> usize {
        let class = self.classes.of(first);
        let word = match self.pattern {
            Pattern::O200k => self.cased_word(text, first, class),
            Pattern::Qwen2 | Pattern::Cl100k => contraction(text).or_else(|| self.word(text, first, class)),
        };
        if let Some(len) = word {
            return len;
        }
        match class {
            Class::Number if self.pattern == Pattern::Qwen2 => first.len_utf8(),
            Class::Number => self.run(text, 3, |c| c == Class::Number),
            _ => self.symbols(text, first).unwrap_or_else(|| self.spaces(text)),
        }
    }

    /// `[^\r\n\p{L}\p{N}]?\p{L}+`
    fn word(&self, text: &str, first: char, class: Class) -> Option<usize> {
        let lead = if class.may_lead_word() { first.len_utf8() } else { 0 };
        let letters = self.run(tail(text, lead), usize::MAX, Class::is_letter);
        (letters > 0).then_some(lead + letters)
    }

    /// The two word branches of o200k. The optional lead is tried first, as an expression would; only a mark can be
    /// both the lead and part of the word.
    fn cased_word(&self, text: &str, first: char, class: Class) -> Option<usize> {
        let lead = class.may_lead_word().then(|| first.len_utf8());
        let starts = || lead.into_iter().chain([0]);
        let end = starts()
            .find_map(|start| Some(start + self.capitals_then_lower(tail(text, start))?))
            .or_else(|| starts().find_map(|start| Some(start + self.capitals(tail(text, start))?)))?;
        Some(end + contraction(tail(text, end)).unwrap_or(0))
    }

    /// `U*W+`: characters of U are given back one by one until one of W, which is also in U, can be the `W+`.
    fn capitals_then_lower(&self, text: &str) -> Option<usize> {
        let mut last_shared = None;
        for (at, c) in text.char_indices() {
            let class = self.classes.of(c);
            if !is_upper(class) {
                if is_lower(class) {
                    return Some(at + self.run(tail(text, at), usize::MAX, is_lower));
                }
                break;
            }
            if is_lower(class) {
                last_shared = Some(at + c.len_utf8());
            }
        }
        last_shared
    }

    /// `U+W*`
    fn capitals(&self, text: &str) -> Option<usize> {
        let upper = self.run(text, usize::MAX, is_upper);
        (upper > 0).then(|| upper + self.run(tail(text, upper), usize::MAX, is_lower))
    }

    /// ` ?[^\s\p{L}\p{N}]+[\r\n]*`, for o200k with `/` among the line ends.
    fn symbols(&self, text: &str, first: char) -> Option<usize> {
        let lead = usize::from(first == ' ');
        let symbols = self.run(tail(text, lead), usize::MAX, Class::is_symbol);
        if symbols == 0 {
            return None;
        }
        let end = lead + symbols;
        let slash = self.pattern == Pattern::O200k;
        let after = tail(text, end).bytes().take_while(|&b| matches!(b, b'\r' | b'\n') || slash && b == b'/');
        Some(end + after.count())
    }

    /// `\s*[\r\n]+|\s+(?!\S)|\s+`: up to the last line end if there is one; else all but the last space, which goes
    /// with the word after it.
    fn spaces(&self, text: &str) -> usize {
        let (mut end, mut last, mut line_end) = (0, 0, None);
        for (at, c) in text.char_indices() {
            let class = self.classes.of(c);
            if !class.is_space() {
                break;
            }
            (last, end) = (at, at + c.len_utf8());
            if class == Class::LineEnd {
                line_end = Some(end);
            }
        }
        match line_end {
            Some(line_end) => line_end,
            None if end == text.len() || last == 0 => end,
            None => last,
        }
    }

    /// Bytes of the longest run of at most `most` characters whose class `belongs`.
    fn run(&self, text: &str, most: usize, belongs: impl Fn(Class) -> bool) -> usize {
        text.chars().take(most).take_while(|&c| belongs(self.classes.of(c))).map(char::len_utf8).sum()
    }
}

/// The words of `text`, each with the spaces before it; joined they are `text`. Where no token has a space after
/// anything but a space, merging word by word is the same as merging all at once, and faster. Else, with `apart` false,
/// all of `text` is one word.
pub(super) fn words(text: &str, apart: bool) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut in_word = false;
        let first_of_next = rest.char_indices().find(|&(_, c)| {
            let blank = matches!(c, ' ' | '\u{2581}');
            let found = apart && in_word && blank;
            in_word |= !blank;
            found
        });
        let end = first_of_next.map_or(rest.len(), |(at, _)| at);
        let (word, tail) = rest.split_at_checked(end).unwrap_or((rest, ""));
        rest = tail;
        Some(word)
    })
}

/// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`
fn is_upper(class: Class) -> bool {
    matches!(class, Class::Upper | Class::Caseless | Class::Mark)
}

/// `[\p{Ll}\p{Lm}\p{Lo}\p{M}]`
fn is_lower(class: Class) -> bool {
    matches!(class, Class::Lower | Class::Caseless | Class::Mark)
}

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)`; the one letter outside ASCII that folds into it is `ſ`.
fn contraction(text: &str) -> Option<usize> {
    let mut rest = text.strip_prefix('\'')?.chars();
    let first = rest.next()?;
    let second = match first.to_ascii_lowercase() {
        's' | 't' | 'm' | 'd' | 'ſ' => return Some(1 + first.len_utf8()),
        'r' | 'v' => 'e',
        'l' => 'l',
        _ => return None,
    };
    (rest.next()?.to_ascii_lowercase() == second).then_some(3)
}

/// `text` from byte `at`, which is always a character's start.
fn tail(text: &str, at: usize) -> &str {
    text.get(at..).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use fancy_regex::Regex;
    use proptest::prelude::*;

    use super::*;

    const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    const CL100K: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    const O200K: &str = concat!(
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    );

    /// Few characters, so that every order of classes comes up.
    fn texts() -> impl Strategy<Value = String> {
        let one_of_each = prop::sample::select(vec![
            'a', 'z', 'A', 'É', 'é', 'ǅ', 'ʰ', 'ª', '語', '\u{301}', '\u{93e}', '1', '½', '\'', 's', 'S', 'ſ', 'r',
            'E', 'l', 'L', 't', 'v', 'm', ' ', ' ', '\t', '\n', '\r', '\u{a0}', '\u{85}', '/', '.', '_', '🦙',
            '\u{200d}',
        ]);
        let any = prop_oneof![9 => one_of_each, 1 => any::<char>()];
        prop::collection::vec(any, 0..24).prop_map(String::from_iter)
    }

    #[test]
    fn pieces_are_the_matches_of_the_expression() {
        let rules = [(Pattern::Qwen2, QWEN2), (Pattern::Cl100k, CL100K), (Pattern::O200k, O200K)]
            .map(|(pattern, expression)| (Splitter::new(pattern), Regex::new(expression).unwrap()));
        proptest!(ProptestConfig::with_cases(10_000), |(text in texts())| {
            for (splitter, expression) in &rules {
                let expected: Vec<&str> = expression.find_iter(&text).map(|found| found.unwrap().as_str()).collect();
                let found: Vec<&str> = splitter.pieces(&text).collect();
                prop_assert_eq!(&found, &expected, "{:?}", splitter.pattern);
                prop_assert_eq!(found.concat(), text.as_str());
            }
        });
    }

    proptest! {
        #[test]
        fn words_joined_are_the_text(text in "[a ▁é]{0,12}", apart: bool) {
            let found: Vec<&str> = words(&text, apart).collect();
            prop_assert_eq!(found.concat(), text.as_str());
            prop_assert!(found.iter().all(|word| !word.is_empty()));
            prop_assert!(apart || found.len() <= 1);
        }
    }

    #[test]
    fn splits_worth_knowing() {
        let cases: [(Pattern, &str, &[&str]); 10] = [
            (Pattern::Qwen2, "I'll pay 1234", &["I", "'ll", " pay", " ", "1", "2", "3", "4"]),
            (Pattern::Cl100k, "I'LL pay 1234", &["I", "'LL", " pay", " ", "123", "4"]),
            (Pattern::Cl100k, "a   b", &["a", "  ", " b"]),
            (Pattern::Cl100k, "a \n\n  b ", &["a", " \n\n", " ", " b", " "]),
            (Pattern::Cl100k, "x\u{301}y", &["x", "\u{301}y"]),
            (Pattern::O200k, "x\u{301}y", &["x\u{301}y"]),
            (Pattern::O200k, "camelCaseHTTPServer", &["camel", "Case", "HTTPServer"]),
            (Pattern::O200k, "DON'T stop'saying", &["DON'T", " stop's", "aying"]),
            (Pattern::O200k, "ÉCOLEÉté", &["ÉCOLEÉté"]),
            (Pattern::O200k, "//\n/a", &["//\n/", "a"]),
        ];
        for (pattern, text, expected) in cases {
            let found: Vec<&str> = Splitter::new(pattern).pieces(text).collect();
            assert_eq!(found, expected, "{pattern:?}");
        }
    }

    #[test]
    fn words_end_where_spaces_begin() {
        let cases: [(&str, &[&str]); 4] =
            [("a b", &["a", " b"]), ("  a  b ", &["  a", "  b", " "]), ("a▁b", &["a", "▁b"]), ("", &[])];
        for (text, expected) in cases {
            assert_eq!(words(text, true).collect::<Vec<_>>(), expected);
        }
    }
}
