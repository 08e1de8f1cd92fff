//! The tags of a template, and their tokens: as much of Jinja's lexical rules as it takes to find them.
//!
//! The rules are those of the engine (which are Jinja's): comments and raw blocks hide tags, strings and brackets hide
//! the end of one. Where the engine would go on with something odd, this is an error.

use super::ChatError;

/// One `{{ .. }}` or `{% .. %}`.
pub(super) struct Tag<'s> {
    pub(super) is_block: bool,
    /// Where it begins, and ends, in bytes.
    pub(super) start: usize,
    pub(super) end: usize,
    /// Where its closing mark begins, with the sign for white space.
    pub(super) inner_end: usize,
    pub(super) tokens: Vec<Token<'s>>,
    line: usize,
}

/// One token: a name, a number, a string with its quotes, or an operator.
#[derive(Clone, Copy)]
pub(super) struct Token<'s> {
    pub(super) text: &'s str,
    pub(super) start: usize,
    pub(super) end: usize,
    /// Of a bracket: the number of the token that is its other half.
    partner: usize,
}

/// Names that stand between operands.
const WORDS: [&str; 9] = ["and", "or", "not", "in", "is", "if", "else", "elif", "do"];

impl<'s> Tag<'s> {
    /// What a block tag is called.
    pub(super) fn name(&self) -> &'s str {
        self.tokens.first().map_or("", |token| token.text)
    }

    /// The token before number `at`.
    pub(super) fn before(&self, at: usize) -> Option<&Token<'s>> {
        self.tokens.get(at.checked_sub(1)?)
    }

    /// The token after number `at`.
    pub(super) fn after(&self, at: usize) -> Option<&Token<'s>> {
        self.tokens.get(at + 1)
    }

    /// The last token of the operand that begins with number `at`, its filters included.
    pub(super) fn operand_end(&self, mut at: usize) -> Option<&Token<'s>> {
        while matches!(self.tokens.get(at)?.text, "-" | "+" | "not") {
            at += 1;
        }
        if let Some(open) = self.tokens.get(at).filter(|token| token.opens()) {
            at = open.partner;
        }
        while let Some(next) = self.after(at) {
            match next.text {
                "." => at += 2,
                // The name comes next; its arguments are a call's.
                "|" => at += 2,
                "[" | "(" => at = next.partner,
                // Texts beside each other are one.
                text if text.starts_with(['\'', '"']) => at += 1,
                _ => break,
            }
        }
        self.tokens.get(at)
    }

    /// The first token of the operand that token number `at`, an opening bracket, is an index of.
    pub(super) fn operand_start(&self, mut at: usize) -> Option<&Token<'s>> {
        loop {
            let before = self.before(at)?;
            at = if before.closes() { before.partner } else { at - 1 };
            let indexed = before.closes() && before.text != "}" && self.before(at).is_some_and(Token::ends_operand);
            if self.before(at).is_some_and(|before| before.text == ".") {
                at -= 1;
            } else if !indexed {
                return self.tokens.get(at);
            }
        }
    }

    /// The first token of what token number `at`, an operator that compares, has on its left.
    pub(super) fn comparand_start(&self, at: usize) -> Option<&Token<'s>> {
        let mut start = at;
        while let Some(before) = self.before(start) {
            if before.closes() {
                start = before.partner;
            } else if before.opens() || before.separates() && !self.is_part(start - 1) {
                break;
            } else {
                start -= 1;
            }
        }
        self.tokens.get(start)
    }

    /// Whether token number `at`, a word of the language, is a name here: an attribute's, a filter's, or `is not`.
    pub(super) fn is_part(&self, at: usize) -> bool {
        let not = self.tokens.get(at).is_some_and(|token| token.text == "not");
        self.before(at).is_some_and(|before| matches!(before.text, "." | "|") || not && before.text == "is")
    }

    /// Whether token number `at` is the name of a test, after `is` or `is not`.
    pub(super) fn is_test(&self, at: usize) -> bool {
        let at = if self.before(at).is_some_and(|before| before.text == "not") { at - 1 } else { at };
        let is = |before: &Token<'_>| before.text == "is" && self.before(at - 1).is_some_and(Token::ends_operand);
        self.before(at).is_some_and(is)
    }

    /// Whether token number `at` is the `in` of a loop.
    pub(super) fn is_of_loop(&self, at: usize) -> bool {
        self.is_block && self.name() == "for" && self.outer("in", 0) == Some(at)
    }

    /// The `if` of a loop that has one, and the last token of its condition.
    pub(super) fn condition(&self) -> Result<Option<(&Token<'s>, &Token<'s>)>, ChatError> {
        let list = self.outer("in", 0).filter(|&at| self.is_of_loop(at));
        let Some(at) = list.and_then(|list| self.outer("if", list)) else { return Ok(None) };
        let mut last = self.tokens.len() - 1;
        let recursive = self.tokens.get(last).is_some_and(|token| token.text == "recursive");
        if recursive && self.before(last).is_some_and(Token::ends_operand) {
            last -= 1;
        }
        // In brackets, a comma would make one of two.
        if last == at || self.outer(",", at).is_some() {
            return Err(self.error("if of a loop has one condition".to_owned()));
        }
        Ok(self.tokens.get(at).zip(self.tokens.get(last)))
    }

    /// The number of the first `text` after token number `at` that is in no brackets and no [part](Self::is_part).
    fn outer(&self, text: &str, mut at: usize) -> Option<usize> {
        loop {
            at = self.tokens.get(at).filter(|token| token.opens()).map_or(at, |token| token.partner) + 1;
            if self.tokens.get(at)?.text == text && !self.is_part(at) {
                return Some(at);
            }
        }
    }

    /// `, a, b` for the variables a tag declares: a loop's targets, and parameters.
    pub(super) fn declared(&self) -> String {
        let name = self.name();
        let mut depth = 0_usize;
        let mut names = String::new();
        for (at, token) in self.tokens.iter().enumerate().skip(1) {
            let before = self.before(at).map_or("", |token| token.text);
            let begins = match name {
                "for" => true,
                "with" => depth == 0 && matches!(before, "with" | ","),
                // The rest of `call` is a call, which declares nothing.
                _ => depth == 1 && matches!(before, "(" | ","),
            };
            match token.text {
                "in" if name == "for" => break,
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 && matches!(name, "macro" | "call") {
                        break;
                    }
                }
                variable if begins && token.is_name() => {
                    names.push_str(", ");
                    names.push_str(variable);
                }
                _ if name == "call" && depth == 0 => break,
                _ => {}
            }
        }
        names
    }

    /// The token after `token`, one of these.
    pub(super) fn following(&self, token: &Token<'s>) -> Option<&Token<'s>> {
        self.tokens.iter().find(|other| other.start >= token.end)
    }

    /// An error in this tag.
    pub(super) fn error(&self, message: String) -> ChatError {
        ChatError::Syntax { line: self.line, message }
    }
}

impl Token<'_> {
    fn opens(&self) -> bool {
        matches!(self.text, "(" | "[" | "{")
    }

    fn closes(&self) -> bool {
        matches!(self.text, ")" | "]" | "}")
    }

    /// Whether a comparison does not reach beyond it.
    fn separates(&self) -> bool {
        let words = ["and", "or", "not", "in", "if", "else", "elif", "do"];
        words.contains(&self.text) || ["==", "!=", "<", "<=", ">", ">=", ",", ":", "="].contains(&self.text)
    }

    pub(super) fn is_name(&self) -> bool {
        self.text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
    }

    pub(super) fn is_number(&self) -> bool {
        self.text.starts_with(|c: char| c.is_ascii_digit())
    }

    /// Whether an operator that follows has this, or what ends here, as its left side.
    pub(super) fn ends_operand(&self) -> bool {
        self.is_number()
            || self.text.starts_with(['\'', '"', ')', ']', '}'])
            || self.is_name() && !WORDS.contains(&self.text)
    }
}

/// All tags of `source`, each with at most `max_tokens` tokens.
pub(super) fn tags(source: &str, max_tokens: usize) -> impl Iterator<Item = Result<Tag<'_>, ChatError>> {
    let mut lexer = Lexer { source, at: 0, max_tokens };
    std::iter::from_fn(move || {
        let tag = lexer.next_tag().transpose();
        if matches!(tag, Some(Err(_))) {
            lexer.at = source.len();
        }
        tag
    })
}

struct Lexer<'s> {
    source: &'s str,
    at: usize,
    max_tokens: usize,
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        self.source.get(self.at..).unwrap_or_default()
    }

    fn error<T>(&self, start: usize, message: String) -> Result<T, ChatError> {
        let line = self.source.get(..start).unwrap_or_default().matches('\n').count() + 1;
        Err(ChatError::Syntax { line, message })
    }

    fn next_tag(&mut self) -> Result<Option<Tag<'s>>, ChatError> {
        loop {
            let Some(found) = self.rest().find('{') else { return Ok(None) };
            let start = self.at + found;
            self.at = start + 1;
            let kind = match self.rest().chars().next() {
                Some(kind @ ('{' | '%' | '#')) => kind,
                _ => continue,
            };
            self.at += 1;
            if kind == '%'
                && let Some(body) = basic_tag(self.rest(), "raw")
            {
                self.at += body;
                self.skip_raw(start)?;
                continue;
            }
            if self.rest().starts_with(['-', '+']) {
                self.at += 1;
            }
            if kind == '#' {
                match self.rest().find("#}") {
                    Some(end) => self.at += end + 2,
                    None => return self.error(start, "a comment has no end".to_owned()),
                }
                continue;
            }
            return self.tag(start, kind == '%').map(Some);
        }
    }

    fn skip_raw(&mut self, start: usize) -> Result<(), ChatError> {
        while let Some(found) = self.rest().find("{%") {
            self.at += found + 2;
            if let Some(end) = basic_tag(self.rest(), "endraw") {
                self.at += end;
                return Ok(());
            }
        }
        self.error(start, "a raw block has no end".to_owned())
    }

    fn tag(&mut self, start: usize, is_block: bool) -> Result<Tag<'s>, ChatError> {
        let line = self.source.get(..start).unwrap_or_default().matches('\n').count() + 1;
        let closing = if is_block { "%}" } else { "}}" };
        let mut tokens: Vec<Token<'s>> = Vec::new();
        let mut open = Vec::new();
        loop {
            let rest = self.rest();
            self.at += rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_whitespace()).len();
            let rest = self.rest();
            if open.is_empty()
                && let Some(end) = [0, 1].into_iter().find(|&sign| {
                    (sign == 0 || rest.starts_with(['-', '+']))
                        && rest.get(sign..).is_some_and(|r| r.starts_with(closing))
                })
            {
                let inner_end = self.at;
                self.at += end + closing.len();
                return Ok(Tag { is_block, start, end: self.at, inner_end, tokens, line });
            }
            let Some(len) = token(rest) else {
                let problem = match rest.chars().next() {
                    None => format!("a tag has no {closing}"),
                    Some(quote @ ('\'' | '"')) => format!("a string has no closing {quote}"),
                    Some(other) => format!("{other:?} is not part of the language"),
                };
                return self.error(start, problem);
            };
            let text = rest.get(..len).unwrap_or_default();
            let mut token = Token { text, start: self.at, end: self.at + len, partner: 0 };
            if token.opens() {
                open.push(tokens.len());
            } else if token.closes() {
                let (count, at) = (tokens.len(), open.pop().unwrap_or(usize::MAX));
                match tokens.get_mut(at) {
                    Some(opened) if matches!((opened.text, text), ("(", ")") | ("[", "]") | ("{", "}")) => {
                        (opened.partner, token.partner) = (count, at);
                    }
                    _ => return self.error(start, format!("{text} closes nothing")),
                }
            }
            self.at = token.end;
            tokens.push(token);
            if tokens.len() > self.max_tokens {
                return self.error(start, format!("more than {} tokens in a tag", self.max_tokens));
            }
        }
    }
}

/// The length of what follows `{%` if it is the tag `name` and nothing else.
fn basic_tag(text: &str, name: &str) -> Option<usize> {
    let white = |c: char| c.is_ascii_whitespace();
    let rest = text.strip_prefix(['-', '+']).unwrap_or(text).trim_start_matches(white);
    let rest = rest.strip_prefix(name)?.trim_start_matches(white);
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest).strip_prefix("%}")?;
    Some(text.len() - rest.len())
}

/// The length of the token that `text` begins with.
fn token(text: &str) -> Option<usize> {
    let first = text.chars().next()?;
    let run = |belongs: fn(char) -> bool| text.find(|c| !belongs(c)).unwrap_or(text.len());
    match first {
        '\'' | '"' => {
            let mut escaped = false;
            let end = text.char_indices().skip(1).find(|&(_, c)| {
                let closes = c == first && !escaped;
                escaped = c == '\\' && !escaped;
                closes
            })?;
            Some(end.0 + 1)
        }
        '0'..='9' => {
            let digits = run(|c| c.is_ascii_alphanumeric() || c == '_');
            // The fraction, but not of `1.name`, and no second one.
            let fraction = text.get(digits..).and_then(|rest| rest.strip_prefix('.'));
            let fraction = fraction.filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
            Some(fraction.map_or(digits, |rest| {
                digits + 1 + rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())
            }))
        }
        'a'..='z' | 'A'..='Z' | '_' => Some(run(|c| c.is_ascii_alphanumeric() || c == '_')),
        _ if ["//", "**", "==", "!=", ">=", "<="].iter().any(|two| text.starts_with(two)) => Some(2),
        _ if "+-*/%.,:~|=><()[]{}".contains(first) => Some(1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn tokens(source: &str, expected: &[&str]) {
        let found: Vec<&str> = tags(source, 99).flat_map(|tag| tag.unwrap().tokens).map(|token| token.text).collect();
        assert_eq!(found, expected, "{source}");
    }

    #[test]
    fn tags_end_where_jinja_ends_them() {
        tokens("{{ a }}{{- b -}}{{+c+}}", &["a", "b", "c"]);
        tokens("{{ {'a': {'b': 1}} }}x", &["{", "'a'", ":", "{", "'b'", ":", "1", "}", "}"]);
        tokens("{{ '}}' ~ \"%}\\\"\" }}", &["'}}'", "~", "\"%}\\\"\""]);
        tokens("{% if a%}{% endif%}", &["if", "a", "endif"]);
        tokens("{#{{ a }}#}{ { b }}{{c}}", &["c"]);
        tokens("{%raw%}{{ a }}{%- endraw -%}{%- raw +%}{% b %}{%+ endraw%}{{ c }}", &["c"]);
        tokens("{% rawx %}", &["rawx"]);
        tokens("{{ 1.5e3+x.0.1 - 1.a }}", &["1.5e3", "+", "x", ".", "0.1", "-", "1", ".", "a"]);
        tokens("{{ a//b**c!=d<=e }}", &["a", "//", "b", "**", "c", "!=", "d", "<=", "e"]);
        tokens("text, {, {é and } %}", &[]);
    }

    #[test]
    fn what_has_no_end_is_an_error_in_its_line() {
        for (source, message) in [
            ("\n{{ a", "a tag has no }} (line 2)"),
            ("{% if\n", "a tag has no %} (line 1)"),
            ("{{ 'a }}", "a string has no closing '"),
            ("{{ 'a\\' }}", "a string has no closing '"),
            ("{# a", "a comment has no end"),
            ("a\n\n{% raw %}{% endrow %}", "a raw block has no end (line 3)"),
            ("{{ (a] }}", "] closes nothing"),
            ("{{ a) }}", ") closes nothing"),
            ("{{ (a }}", "} closes nothing"),
            ("{{ é }}", "'é' is not part of the language"),
            ("{{ a; b }}", "';' is not part of the language"),
        ] {
            let error = tags(source, 99).find_map(Result::err).unwrap().to_string();
            assert!(error.contains(message), "{source}: {error}");
        }
    }
}
