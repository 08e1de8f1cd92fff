//! What a template's source is changed into before the engine sees it.
//!
//! The engine counts instructions, but not the bytes and values they make: a string that doubles in a loop is forty
//! instructions and a terabyte. So each tag is read here, and what makes something is made to say so:
//!
//! - `a + b` becomes `a|MADE + b|MADE`, a filter that counts its value, and `a ~ b` becomes `a|TEXT ~ b|TEXT`, which
//!   also writes it as Python does;
//! - `a[1:]` becomes `(a|SLICE(1,none))` (the engine's own slice is lazy, and unknown to its macros);
//! - `a[i]` becomes `a[(i)|INDEX]`, which looks at the clock: of a text, all characters up to it are counted;
//! - `*` has a number on both sides: on the right a literal one, on the left `|NUMBER` makes sure;
//! - `{k: v}` becomes `DICT(k, v)`, a map that keeps its order and that is told from the engine's other objects;
//! - `{% set x = E %}` becomes `{% set x = KEEP(E) %}`, which checks how large and deep a value is;
//! - `a == b` becomes `a == b|CHECKED`, and so for each comparison; `a in b` becomes `(a)|SOUGHT in b|CHECKED`, for
//!   what is sought in a text is written as one. Both check how large a value is, and the time;
//! - `{% for x in y if E %}` becomes `{% for x in y if TICK(0, x) or (E) %}`: `E` is a loop of its own;
//! - the bodies of loops, macros and call blocks begin with `{% do TICK(120, x) %}`, which checks the new variables,
//!   the time, and counts the text of the body;
//! - `{% generation %}` (a mark for training) becomes `{% if true %}`, and tags that reach outside do not exist.
//!
//! Nothing else changes, and no line is added, so the engine's messages have the right line numbers.

use super::{
    ChatError,
    lexer::{self, Tag, Token},
};

/// Names of the calls; no identifier of a template may begin like this.
const RESERVED: &str = "__hb_";
pub(super) const KEEP: &str = "__hb_keep";
pub(super) const PLAIN: &str = "__hb_plain";
pub(super) const TICK: &str = "__hb_tick";
pub(super) const MADE: &str = "__hb_made";
pub(super) const TEXT: &str = "__hb_text";
pub(super) const CHECKED: &str = "__hb_checked";
pub(super) const SOUGHT: &str = "__hb_sought";
pub(super) const SLICE: &str = "__hb_slice";
pub(super) const INDEX: &str = "__hb_index";
pub(super) const NUMBER: &str = "__hb_number";
pub(super) const DICT: &str = "__hb_dict";

/// Most tokens of one tag, and deepest nesting of brackets in it. Real templates reach 200 and 8.
const MAX_TOKENS: usize = 1024;
const MAX_BRACKETS: usize = 32;
/// Deepest nesting of blocks, and most `elif` of a template: the engine nests those, too.
const MAX_BLOCKS: usize = 32;
const MAX_ELIFS: usize = 128;

/// Tags without a body.
const SINGLE: [&str; 5] = ["elif", "else", "do", "break", "continue"];
/// Tags with a body that need nothing.
const BODIES: [&str; 2] = ["if", "filter"];

/// The source that the engine gets.
///
/// # Errors
/// [`ChatError::Syntax`] for what is not Jinja, not supported, or more than a template needs.
pub(super) fn guard(source: &str) -> Result<String, ChatError> {
    let mut guard = Guard { source, edits: Vec::new(), blocks: Vec::new(), elifs: 0, text_bytes: 0 };
    let mut end = 0;
    for tag in lexer::tags(source, MAX_TOKENS) {
        let tag = tag?;
        guard.text_bytes += tag.start - end;
        end = tag.end;
        guard.tag(tag)?;
    }
    match guard.blocks.pop() {
        Some(open) => Err(open.tag.error(format!("{} has no end", open.tag.name()))),
        None => Ok(guard.finish()),
    }
}

struct Guard<'s> {
    source: &'s str,
    /// What replaces which bytes.
    edits: Vec<Edit>,
    blocks: Vec<Open<'s>>,
    elifs: usize,
    /// Bytes of text between tags so far.
    text_bytes: usize,
}

struct Edit {
    start: usize,
    end: usize,
    text: String,
}

/// A block that is open, and the tag that opened it.
struct Open<'s> {
    tag: Tag<'s>,
    block: Block,
}

enum Block {
    /// `generation`, which ends as `endif`.
    Generation,
    /// One whose body begins with [`TICK`]: the edit to be completed, and the text before it.
    Ticking {
        edit: usize,
        names: String,
        text_bytes: usize,
    },
    /// `set` with a body: its target.
    Set(String),
    Other,
}

impl<'s> Guard<'s> {
    fn tag(&mut self, tag: Tag<'s>) -> Result<(), ChatError> {
        self.check(&tag)?;
        if !tag.is_block {
            return Ok(());
        }
        match tag.name() {
            "generation" => {
                self.rename(&tag, "if true");
                self.open(tag, Block::Generation)
            }
            "endgeneration" => {
                self.rename(&tag, "endif");
                self.close(&tag, |block| matches!(block, Block::Generation))
            }
            "for" | "macro" | "call" | "with" => {
                let names = tag.declared();
                self.filter(&tag, &names)?;
                let edit = self.edits.len();
                self.insert(tag.end, "");
                self.open(tag, Block::Ticking { edit, names, text_bytes: self.text_bytes })
            }
            "set" => self.set(tag),
            "endset" => self.close(&tag, |block| matches!(block, Block::Set(_))),
            "elif" if self.elifs == MAX_ELIFS => Err(too_many(&tag, "elif", MAX_ELIFS)),
            name if SINGLE.contains(&name) => {
                self.elifs += usize::from(name == "elif");
                Ok(())
            }
            name if BODIES.contains(&name) => self.open(tag, Block::Other),
            name => match name.strip_prefix("end") {
                Some("for" | "macro" | "call" | "with") => {
                    self.close(&tag, |block| matches!(block, Block::Ticking { .. }))
                }
                Some(opened) if BODIES.contains(&opened) => self.close(&tag, |block| matches!(block, Block::Other)),
                _ => Err(tag.error(format!("there is no tag {name:?} in chat templates"))),
            },
        }
    }

    /// Names and operators, which are the same in every tag.
    fn check(&mut self, tag: &Tag<'s>) -> Result<(), ChatError> {
        // Opening brackets, each with the colons right in it.
        let mut open: Vec<(usize, &str, Vec<usize>)> = Vec::new();
        for (at, token) in tag.tokens.iter().enumerate() {
            match token.text {
                "(" | "[" => open.push((at, token.text, Vec::new())),
                "{" => {
                    open.push((at, token.text, Vec::new()));
                    self.replace(token, &format!("{DICT}("));
                }
                ")" => drop(open.pop()),
                "]" => match open.pop() {
                    Some((opened, _, colons)) if !colons.is_empty() => self.slice(tag, opened, &colons, at)?,
                    Some((opened, ..)) => self.index(tag, opened, at),
                    None => {}
                },
                "}" => {
                    open.pop();
                    self.replace(token, ")");
                }
                ":" => match open.last_mut() {
                    Some((_, "{", _)) => self.replace(token, ","),
                    Some((_, "[", colons)) => colons.push(at),
                    _ => return Err(tag.error(": is for maps and slices".to_owned())),
                },
                "~" | "+" => {
                    let filter = if token.text == "~" { TEXT } else { MADE };
                    self.made(tag.before(at).filter(|before| before.ends_operand()), filter);
                    if let Some(end) = tag.operand_end(at + 1) {
                        // `a ~ b is c` is about b itself.
                        let tested = tag.following(end).is_some_and(|next| next.text == "is");
                        self.made(Some(end), if tested { MADE } else { filter });
                    }
                }
                "==" | "!=" | "<" | "<=" | ">" | ">=" => self.made(tag.operand_end(at + 1), CHECKED),
                "in" if !tag.is_part(at) && !tag.is_of_loop(at) => self.sought(tag, at)?,
                // It remembers what it is given, also the loop itself.
                "changed" if tag.before(at).is_some_and(|before| before.text == ".") => {
                    return Err(tag.error("loop.changed is not supported".to_owned()));
                }
                "*" | "**" if tag.before(at).is_none_or(|before| !before.ends_operand()) => {
                    return Err(tag.error(format!("{} before an argument is not supported", token.text)));
                }
                "*" => self.product(tag, at)?,
                name if token.is_name() && name.starts_with(RESERVED) => {
                    return Err(tag.error(format!("names that begin with {RESERVED} are reserved")));
                }
                _ => {}
            }
            if open.len() > MAX_BRACKETS {
                return Err(too_many(tag, "brackets inside each other", MAX_BRACKETS));
            }
        }
        Ok(())
    }

    /// `a in b` or `a not in b`, whose `in` is token `at` of `tag`.
    fn sought(&mut self, tag: &Tag<'s>, at: usize) -> Result<(), ChatError> {
        self.made(tag.operand_end(at + 1), CHECKED);
        if tag.is_test(at) {
            return Ok(());
        }
        let operator = if tag.before(at).is_some_and(|before| before.text == "not") { at - 1 } else { at };
        let last = tag.before(operator).filter(|last| last.ends_operand());
        let Some((first, last)) = tag.comparand_start(operator).zip(last) else {
            return Err(tag.error("in has something on its left".to_owned()));
        };
        // A literal is as short as the tag.
        if first.start != last.start || last.is_name() {
            self.insert(first.start, "(");
            self.insert(last.end, &format!(")|{SOUGHT}"));
        }
        Ok(())
    }

    /// The condition of `tag`, if it is a loop's and has one; it declares `names`.
    fn filter(&mut self, tag: &Tag<'s>, names: &str) -> Result<(), ChatError> {
        if let Some((token, last)) = tag.condition()? {
            self.replace(token, &format!("if {} or (", tick(0, names)));
            self.insert(last.end, ")");
        }
        Ok(())
    }

    /// `a[b:c]`, whose brackets and colons are these tokens of `tag`, as a filter of `a`.
    fn slice(&mut self, tag: &Tag<'s>, open: usize, colons: &[usize], close: usize) -> Result<(), ChatError> {
        let Some(start) = tag.operand_start(open) else {
            return Err(tag.error("a slice is of something".to_owned()));
        };
        self.insert(start.start, "(");
        let marks = [open].into_iter().chain(colons.iter().copied()).chain([close]);
        for (n, (at, next)) in marks.clone().zip(marks.skip(1)).enumerate() {
            let Some(token) = tag.tokens.get(at) else { continue };
            let mark = if n == 0 { format!("|{SLICE}(") } else { ",".to_owned() };
            self.replace(token, &(mark + if next == at + 1 { "none" } else { "" }));
        }
        if let Some(token) = tag.tokens.get(close) {
            self.replace(token, "))");
        }
        Ok(())
    }

    /// `a[b]`, whose brackets are these tokens of `tag`, unless it is a list, or `b` a literal that is soon found.
    fn index(&mut self, tag: &Tag<'s>, open: usize, close: usize) {
        let soon = |b: &Token<'_>| b.text.starts_with(['\'', '"']) || b.is_number() && b.text.len() <= 4;
        let literal = close == open + 2 && tag.after(open).is_some_and(soon);
        // The argument of a test needs no brackets.
        let of = open > usize::from(tag.is_block) && !tag.is_test(open - 1);
        let of = of && (tag.is_part(open - 1) || tag.before(open).is_some_and(Token::ends_operand));
        if let (true, [Some(open), Some(close)]) = (of && !literal, [open, close].map(|at| tag.tokens.get(at))) {
            self.replace(open, "[(");
            self.replace(close, &format!(")|{INDEX}]"));
        }
    }

    /// Puts the value that ends with `token` through `filter`, once.
    fn made(&mut self, token: Option<&Token<'s>>, filter: &str) {
        let Some(at) = token.map(|token| token.end) else { return };
        let filter = format!("|{filter}");
        if !self.edits.iter().rev().any(|edit| edit.start == at && edit.text == filter) {
            self.insert(at, &filter);
        }
    }

    /// Makes sure that the `*` which is token `at` of `tag` is about numbers.
    fn product(&mut self, tag: &Tag<'s>, at: usize) -> Result<(), ChatError> {
        let literal = tag.after(at).is_some_and(Token::is_number);
        let alone = tag.after(at + 1).is_none_or(|next| !matches!(next.text, "|" | "." | "[" | "(" | "**"));
        if !(literal && alone) {
            return Err(tag.error("* needs a number on its right: strings and lists are not multiplied".to_owned()));
        }
        if let Some(before) = tag.before(at) {
            self.insert(before.end, &format!("|{NUMBER}"));
        }
        Ok(())
    }

    fn set(&mut self, tag: Tag<'s>) -> Result<(), ChatError> {
        let assign = tag.tokens.iter().position(|token| token.text == "=");
        let pipe = tag.tokens.iter().position(|token| token.text == "|");
        let target = tag.tokens.get(1..assign.or(pipe).unwrap_or(tag.tokens.len())).unwrap_or(&[]);
        let Some((first, last)) = target.first().zip(target.last()) else {
            return Err(tag.error("set needs a name".to_owned()));
        };
        let target = self.source.get(first.start..last.end).unwrap_or_default().to_owned();
        match assign.and_then(|at| tag.tokens.get(at)) {
            None => self.open(tag, Block::Set(target)),
            Some(assign) => {
                // A namespace can hold what a variable can, but not another namespace, or itself.
                let call = if target.contains('.') { PLAIN } else { KEEP };
                // Not inserted after it: what else is put there would be outside.
                self.replace(assign, &format!("= {call}("));
                self.insert(tag.inner_end, ")");
                Ok(())
            }
        }
    }

    fn open(&mut self, tag: Tag<'s>, block: Block) -> Result<(), ChatError> {
        if self.blocks.len() == MAX_BLOCKS {
            return Err(too_many(&tag, "blocks inside each other", MAX_BLOCKS));
        }
        self.blocks.push(Open { tag, block });
        Ok(())
    }

    fn close(&mut self, tag: &Tag<'s>, fits: impl Fn(&Block) -> bool) -> Result<(), ChatError> {
        match self.blocks.pop().map(|open| open.block).filter(fits) {
            None => return Err(tag.error(format!("{} closes nothing", tag.name()))),
            Some(Block::Ticking { edit, names, text_bytes }) => {
                let tick = tick(self.text_bytes - text_bytes, &names);
                self.complete(edit, &tick);
            }
            // What was captured is checked like what is assigned.
            Some(Block::Set(target)) => {
                let edit = self.edits.len();
                self.insert(tag.end, "");
                self.complete(edit, &tick(0, &format!(", {target}")));
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Puts the tag `{% call %}` where `edit` is: right after a tag, whose end decides what becomes of the white space.
    fn complete(&mut self, edit: usize, call: &str) {
        if let Some(edit) = self.edits.get_mut(edit) {
            let tag_end = self.source.get(..edit.start).unwrap_or_default();
            let mark = tag_end.strip_suffix("%}").and_then(|tag| tag.chars().next_back());
            let mark = mark.filter(|mark| matches!(mark, '-' | '+')).map(String::from).unwrap_or_default();
            edit.text = format!("{{% do {call} {mark}%}}");
        }
    }

    fn insert(&mut self, at: usize, text: &str) {
        self.edits.push(Edit { start: at, end: at, text: text.to_owned() });
    }

    fn replace(&mut self, token: &Token<'s>, text: &str) {
        self.edits.push(Edit { start: token.start, end: token.end, text: text.to_owned() });
    }

    fn rename(&mut self, tag: &Tag<'s>, name: &str) {
        if let Some(token) = tag.tokens.first() {
            self.replace(token, name);
        }
    }

    fn finish(mut self) -> String {
        // What is put before a token, then what the token becomes.
        self.edits.sort_by_key(|edit| (edit.start, edit.end));
        let (mut out, mut copied) = (String::with_capacity(self.source.len() * 2), 0);
        for edit in &self.edits {
            out.push_str(self.source.get(copied..edit.start).unwrap_or_default());
            out.push_str(&edit.text);
            copied = edit.end;
        }
        out.push_str(self.source.get(copied..).unwrap_or_default());
        out
    }
}

fn tick(text_bytes: usize, names: &str) -> String {
    format!("{TICK}({text_bytes}{names})")
}

fn too_many(tag: &Tag<'_>, what: &str, limit: usize) -> ChatError {
    tag.error(format!("more than {limit} {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn becomes(source: &str, expected: &str) {
        assert_eq!(guard(source).unwrap(), expected);
    }

    #[track_caller]
    fn refused(source: &str, message: &str) {
        let error = guard(source).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }

    #[test]
    fn what_makes_nothing_stays() {
        for source in [
            "",
            "a\n{{ a.b[1]['x'] }}{# {% set x = 1 %} #}\n",
            "{%- if a.b('}}') and b %}{{- \"%}\" -}}{% elif c %}x{% else %}y{%- endif +%}",
            "{% raw %}{% set x = 1 %}{% include 'x' %}{% endraw %}",
            "{{ f(a, b=1)|trim|join(a[1].b['c']) - 2 / (d // e) }}",
            "{{ [a] is eq [b, c] }}{% if [a] %}{% elif not [a] %}{% endif %}{% break %}",
            "{{ 2 ** 3 - 1 }}{% break %}",
        ] {
            becomes(source, source);
        }
    }

    #[test]
    fn stores_are_checked() {
        becomes("{% set x = y ~ 'a' %}", "{% set x = __hb_keep( y|__hb_text ~ 'a'|__hb_text )%}");
        becomes("{%- set a, b = 1, 2 -%}", "{%- set a, b = __hb_keep( 1, 2 )-%}");
        becomes("{% set ns.x = ns.x + [1] %}", "{% set ns.x = __hb_plain( ns.x|__hb_made + [1]|__hb_made )%}");
        becomes("{% set x | upper %}a{% endset -%}", "{% set x | upper %}a{% endset -%}{% do __hb_tick(0, x) -%}");
        becomes("{% filter upper %}a{% endfilter %}", "{% filter upper %}a{% endfilter %}");
    }

    #[test]
    fn what_is_made_is_counted() {
        let made = |source: &str, expected: &str| {
            let expected = expected.replace('!', "|__hb_made").replace('?', "|__hb_text");
            becomes(source, &expected.replace('@', ")|__hb_index"));
        };
        made("{{ a ~ b }}{{ a + b }}", "{{ a? ~ b? }}{{ a! + b! }}");
        made("{{ a ~ b.c[d](e)~f|trim|join(g) + -h|i }}", "{{ a? ~ b.c[(d@](e)?~f|trim|join(g)?! + -h|i! }}");
        made("{{ 'a' 'b' ~ 'c' \"d\" ~ (e, f) }}", "{{ 'a' 'b'? ~ 'c' \"d\"? ~ (e, f)? }}");
        made("{{ f(a + 1)[b ~ c] + d }}", "{{ f(a! + 1!)[(b? ~ c?@]! + d! }}");
        made(
            "{% if a ~ b == c ~ d and not e + f %}{% endif %}",
            "{% if a? ~ b? == c|__hb_checked? ~ d? and not e! + f! %}{% endif %}",
        );
        made("{% if a[0][1] ~ b[c:] %}{% endif %}", "{% if a[0][1]? ~ (b|__hb_slice(c,none))? %}{% endif %}");
        made("{% if a ~ b is defined %}{% endif %}", "{% if a? ~ b! is defined %}{% endif %}");
        refused("{{ a : b }}", ": is for maps");
    }

    #[test]
    fn slices_are_ours() {
        let made = |source: &str, expected: &str| {
            becomes(source, &expected.replace('/', "|__hb_slice").replace('@', ")|__hb_index"));
        };
        made("{{ a[1:] }}{{ a[:] }}{{ a[::] }}", "{{ (a/(1,none)) }}{{ (a/(none,none)) }}{{ (a/(none,none,none)) }}");
        made("{{ a.b[c](d)[:-1:2].e[3:].f() }}", "{{ ((a.b[(c@](d)/(none,-1,2)).e/(3,none)).f() }}");
        made(
            "{{ x|f(a[b[1:]:]) if [c, d][1:] else 'e'[1:] }}",
            "{{ x|f((a/((b/(1,none)),none))) if ([c, d]/(1,none)) else ('e'/(1,none)) }}",
        );
        made("{%set x =a[1:]+b%}", "{%set x = __hb_keep((a/(1,none))|__hb_made+b|__hb_made)%}");
        made("{% for x in y[1:] %}{% endfor %}", "{% for x in (y/(1,none)) %}{% do __hb_tick(0, x) %}{% endfor %}");
        refused("{{ [1:] }}", "a slice is of something");
    }

    #[test]
    fn indices_look_at_the_clock() {
        let made = |source: &str, expected: &str| becomes(source, &expected.replace('@', ")|__hb_index"));
        made("{{ a[-1] }}{{ a[b](c)[12345] }}", "{{ a[(-1@] }}{{ a[(b@](c)[(12345@] }}");
        made("{{ a[b[-1]][c if d else e] }}", "{{ a[(b[(-1@]@][(c if d else e@] }}");
        made("{{ a['b' ~ c[0]]['d'] }}", "{{ a[('b'|__hb_text ~ c[0]|__hb_text@]['d'] }}");
        made("{{ a[b[1:]] }}{{ 'a'[-1] }}", "{{ a[((b|__hb_slice(1,none))@] }}{{ 'a'[(-1@] }}");
        made("{{ a.in[-1] }}", "{{ a.in[(-1@] }}");
        made("{% if a[-1] is eq [b] %}{% endif %}", "{% if a[(-1@] is eq [b] %}{% endif %}");
    }

    #[test]
    fn maps_are_ours() {
        becomes("{% set x = {'a': {'b': y}} %}", "{% set x = __hb_keep( __hb_dict('a', __hb_dict('b', y)) )%}");
        becomes("{{ {} }}{{ {'}': '{',}.a }}", "{{ __hb_dict() }}{{ __hb_dict('}', '{',).a }}");
    }

    #[test]
    fn bodies_tick() {
        becomes(
            "{% for a, b in c.items() if a -%}\n12{{ a }}345{% endfor %}",
            "{% for a, b in c.items() if __hb_tick(0, a, b) or ( a) -%}{% do __hb_tick(6, a, b) -%}\n12{{ a }}345{% endfor %}",
        );
        becomes(
            "{% macro f(a, b=[c, d], e=g(1)) %}x{% endmacro %}",
            "{% macro f(a, b=[c, d], e=g(1)) %}{% do __hb_tick(1, a, b, e) %}x{% endmacro %}",
        );
        becomes(
            "{% call(x) f(y) %}{% for z in x %}ab{% endfor %}{% endcall %}",
            "{% call(x) f(y) %}{% do __hb_tick(2, x) %}{% for z in x %}{% do __hb_tick(2, z) %}ab{% endfor %}{% endcall %}",
        );
        becomes("{% call f(y) +%}{% endcall %}", "{% call f(y) +%}{% do __hb_tick(0) +%}{% endcall %}");
        becomes(
            "{% with a = b, c = [d, e] %}{% endwith %}",
            "{% with a = b, c = [d, e] %}{% do __hb_tick(0, a, c) %}{% endwith %}",
        );
    }

    #[test]
    fn conditions_of_loops_tick() {
        let made = |source: &str, expected: &str| {
            let (source, expected) = (format!("{{% for {source}"), expected.replace('!', "if __hb_tick(0, x) or ("));
            becomes(
                &format!("{source} %}}{{% endfor %}}"),
                &format!("{{% for {expected} %}}{{% do __hb_tick(0, x) %}}{{% endfor %}}"),
            );
        };
        made("x in y if f(x)[0] recursive", "x in y ! f(x)[0]) recursive");
        made("x in y if(x)[1:] if x else z", "x in y !((x)|__hb_slice(1,none)) if x else z)");
        made("x in (y if z else w) if 'if'", "x in (y if z else w) ! 'if')");
        made("x in y.if if recursive", "x in y.if ! recursive)");
        made("x in y|f(a if b) if x.recursive", "x in y|f(a if b) ! x.recursive)");
        made("x in range(9) recursive", "x in range(9) recursive");
        for source in ["{% for x in y if %}", "{% for x in y if a, b %}"] {
            refused(source, "if of a loop has one condition");
        }
    }

    #[test]
    fn what_is_compared_is_checked() {
        let made = |source: &str, expected: &str| {
            becomes(source, &expected.replace('?', "|__hb_checked").replace('@', ")|__hb_sought"));
        };
        made("{{ a == -b.c[0]|d < e }}", "{{ a == -b.c[0]|d? < e? }}");
        made("{{ 'a' in b and 1 not in [c] }}", "{{ 'a' in b? and 1 not in [c]? }}");
        made("{{ a in b or not -c.d(e)|f not in g }}", "{{ (a@ in b? or not (-c.d(e)|f@ not in g? }}");
        made(
            "{{ f(a * 2 in b, g=c in d, h={'i': j in k}) }}",
            "{{ f((a|__hb_number * 2@ in b?, g=(c@ in d?, h=__hb_dict('i', (j@ in k?)) }}",
        );
        made("{{ {'a': b} in c }}", "{{ (__hb_dict('a', b)@ in c? }}");
        made("{{ x if a in b else c in d in e }}", "{{ x if (a@ in b? else (c@ in (d?@ in e? }}");
        made("{{ a is in(b) or c is not in d }}", "{{ a is in(b)? or c is not in d? }}");
        made("{{ a.not.b in c.in }}{{ a|in }}", "{{ (a.not.b@ in c.in? }}{{ a|in }}");
        made("{% with x = a in b %}{% endwith %}", "{% with x = (a@ in b? %}{% do __hb_tick(0, x) %}{% endwith %}");
        made("{% for x in y in z %}{% endfor %}", "{% for x in (y@ in z? %}{% do __hb_tick(0, x) %}{% endfor %}");
        for source in ["{{ in in a }}", "{{ is in a }}", "{{ a.is not in b }}", "{{ not in a }}"] {
            refused(source, "in has something on its left");
        }
    }

    #[test]
    fn blocks_have_an_end() {
        refused("a\n{% for x in y %}\n{% if x %}{% endif %}", "for has no end (line 2)");
        refused("{% set x %}a", "set has no end");
        refused("{% if x %}{% endfor %}", "endfor closes nothing");
        refused("{% endmacro %}", "endmacro closes nothing");
    }

    #[test]
    fn marks_for_training_are_nothing() {
        becomes("{%- generation -%}a{% endgeneration %}", "{%- if true -%}a{% endif %}");
        refused("{% generation %}{% endif %}", "closes nothing");
    }

    #[test]
    fn only_numbers_are_multiplied() {
        becomes("{{ a.b * 2 }}", "{{ a.b|__hb_number * 2 }}");
        becomes("{{ (a - b) * 2 * 3 }}", "{{ (a - b)|__hb_number * 2|__hb_number * 3 }}");
        for source in ["{{ 3 * 'a' }}", "{{ a * b }}", "{{ 3 * 2|string }}", "{{ 3 * [1] }}", "{{ 2 * 2 ** 9 }}"] {
            refused(source, "* needs a number");
        }
        refused("{{ f(*a) }}", "before an argument");
        refused("{{ f(a, **b) }}", "before an argument");
    }

    #[test]
    fn limits_are_named() {
        refused(&"{% if a %}".repeat(33), "more than 32 blocks inside each other (line 1)");
        refused(&format!("{{% if a %}}\n{}", "{% elif b %}".repeat(129)), "more than 128 elif (line 2)");
        refused(&format!("{{{{ {}1{} }}}}", "(".repeat(33), ")".repeat(33)), "more than 32 brackets");
        refused(&format!("{{{{ {}a }}}}", "not ".repeat(1024)), "more than 1024 tokens in a tag");
    }

    #[test]
    fn nothing_reaches_outside() {
        for tag in [
            "include 'a'",
            "import 'a' as b",
            "from 'a' import b",
            "extends 'a'",
            "block a",
            "trans",
            "autoescape true",
        ] {
            refused(&format!("{{% {tag} %}}"), "there is no tag");
        }
        refused("{{ __hb_keep }}", "reserved");
        refused("{{ loop.changed(loop) }}", "loop.changed");
        refused("{% %}", "there is no tag \"\"");
    }
}
