//! Methods of Python's texts and dictionaries, as far as chat templates use them.

use std::{collections::HashSet, sync::Arc};

use minijinja::{
    Environment, Error, ErrorKind,
    value::{Tuple, Value, ValueKind, from_args},
};

use super::{
    functions,
    meter::{Meter, VALUE_BYTES, invalid},
    value::pairs,
};

/// Adds all of them to `environment`.
pub(super) fn add(environment: &mut Environment<'_>, meter: &Arc<Meter>) {
    let meter = Arc::clone(meter);
    environment.set_unknown_method_callback(move |_, value, method, args| {
        let made = match (value.as_str(), value.kind()) {
            (Some(text), _) => of_text(&meter, text, method, args)?,
            (_, ValueKind::Map) => of_map(&meter, value, method, args)?,
            _ => return Err(ErrorKind::UnknownMethod.into()),
        };
        meter.made(&made).map(|()| made)
    });
}

fn of_text(meter: &Meter, text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let none = || from_args::<()>(args);
    let chars = || from_args::<(Option<&str>,)>(args).map(|(chars,)| chars);
    let affixes = || {
        let (affixes,): (&Value,) = from_args(args)?;
        let listed = || affixes.try_iter().map(Iterator::collect);
        let affixes: Vec<Value> = affixes.as_str().map_or_else(listed, |affix| Ok(vec![affix.into()]))?;
        affixes.iter().map(|affix| affix.to_str().ok_or_else(|| invalid("not a text"))).collect::<Result<Vec<_>, _>>()
    };
    let split = |from_right| -> Result<Value, Error> {
        let (separator, max): (Option<&str>, Option<i64>) = from_args(args)?;
        // -1 is Python's way to say: all.
        let max = max.and_then(|max| usize::try_from(max).ok()).unwrap_or(usize::MAX - 1);
        let pieces = pieces(text, separator, max, from_right)?;
        meter.charge(text.len() + pieces.len() * VALUE_BYTES)?;
        Ok(pieces.into_iter().map(Value::from).collect())
    };
    let all = |belongs: fn(char) -> bool| Value::from(!text.is_empty() && text.chars().all(belongs));
    meter.charge(text.len())?;
    Ok(match method {
        "strip" => strip(text, chars()?).into(),
        "lstrip" => left(text, chars()?).into(),
        "rstrip" => right(text, chars()?).into(),
        "split" => split(false)?,
        "rsplit" => split(true)?,
        "splitlines" => {
            none()?;
            meter.charge(text.matches('\n').count() * VALUE_BYTES)?;
            text.lines().map(Value::from).collect()
        }
        "startswith" => affixes()?.iter().any(|affix| text.starts_with(&**affix)).into(),
        "endswith" => affixes()?.iter().any(|affix| text.ends_with(&**affix)).into(),
        "removeprefix" => {
            let (affix,): (&str,) = from_args(args)?;
            text.strip_prefix(affix).unwrap_or(text).into()
        }
        "removesuffix" => {
            let (affix,): (&str,) = from_args(args)?;
            text.strip_suffix(affix).unwrap_or(text).into()
        }
        "replace" => {
            let (old, new, count): (&str, &str, Option<i64>) = from_args(args)?;
            let count = count.and_then(|count| usize::try_from(count).ok());
            functions::replace(meter, text, old, new, count)?.into()
        }
        "join" => {
            let (items,): (&Value,) = from_args(args)?;
            functions::join(meter, items, text, None)?.into()
        }
        "find" => {
            let (part,): (&str,) = from_args(args)?;
            let index = text.find(part).and_then(|at| text.get(..at)).map(|before| before.chars().count());
            index.map_or(Value::from(-1), Value::from)
        }
        "count" => {
            let (part,): (&str,) = from_args(args)?;
            text.matches(part).count().into()
        }
        "lower" | "upper" | "title" | "capitalize" => {
            none()?;
            meter.said(match method {
                "lower" => text.to_lowercase().into(),
                "upper" => text.to_uppercase().into(),
                "title" => title(text).into(),
                _ => capitalized(text).into(),
            })
        }
        "isdigit" => all(char::is_numeric),
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(char::is_alphanumeric),
        "isspace" => all(is_space),
        _ => return Err(ErrorKind::UnknownMethod.into()),
    })
}

fn of_map(meter: &Meter, map: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match method {
        "get" => {
            let (name, default): (&Value, Option<Value>) = from_args(args)?;
            let found = map.get_item(name)?;
            Ok(if found.is_undefined() { default.unwrap_or_else(|| Value::from(())) } else { found })
        }
        "items" => from_args::<()>(args).and_then(|()| items(meter, map)),
        "keys" => from_args::<()>(args).map(|()| pairs(map).into_iter().map(|(name, _)| name).collect()),
        "values" => from_args::<()>(args).map(|()| pairs(map).into_iter().map(|(_, value)| value).collect()),
        _ => Err(ErrorKind::UnknownMethod.into()),
    }
}

/// What a pair of name and value takes.
pub(super) const PAIR_BYTES: usize = 3 * VALUE_BYTES;

/// Pairs of name and value.
pub(super) fn items(meter: &Meter, map: &Value) -> Result<Value, Error> {
    let pairs = pairs(map);
    meter.charge(pairs.len() * PAIR_BYTES)?;
    Ok(pairs.into_iter().map(|(name, value)| Value::from(Tuple::from([name, value]))).collect())
}

/// Python's white space: Unicode's, and four separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `text` without white space, or any of `chars`, at its ends.
pub(super) fn strip<'t>(text: &'t str, chars: Option<&str>) -> &'t str {
    right(left(text, chars), chars)
}

fn left<'t>(text: &'t str, chars: Option<&str>) -> &'t str {
    text.trim_start_matches(ends(chars))
}

fn right<'t>(text: &'t str, chars: Option<&str>) -> &'t str {
    text.trim_end_matches(ends(chars))
}

/// What is stripped: white space, or any of `chars`, which may be as many as the text has.
fn ends(chars: Option<&str>) -> impl Fn(char) -> bool {
    let chars: Option<HashSet<char>> = chars.map(|chars| chars.chars().collect());
    move |c| chars.as_ref().map_or_else(|| is_space(c), |chars| chars.contains(&c))
}

/// The pieces of `text` between separators, or runs of white space, of which at most `max` count.
fn pieces<'t>(text: &'t str, separator: Option<&str>, max: usize, from_right: bool) -> Result<Vec<&'t str>, Error> {
    match (separator, from_right) {
        (Some(""), _) => Err(invalid("cannot split at an empty text")),
        (Some(separator), false) => Ok(text.splitn(max + 1, separator).collect()),
        (Some(separator), true) => {
            let mut pieces: Vec<_> = text.rsplitn(max + 1, separator).collect();
            pieces.reverse();
            Ok(pieces)
        }
        (None, false) => {
            let (mut pieces, mut rest) = (Vec::new(), left(text, None));
            while let Some(end) = rest.find(is_space).filter(|_| pieces.len() < max) {
                let (piece, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
                pieces.push(piece);
                rest = left(after, None);
            }
            pieces.extend(Some(rest).filter(|rest| !rest.is_empty()));
            Ok(pieces)
        }
        (None, true) if max >= text.len() => Ok(text.split(is_space).filter(|piece| !piece.is_empty()).collect()),
        (None, true) => Err(invalid("rsplit with a limit needs a separator")),
    }
}

fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_word = false;
    for c in text.chars() {
        if in_word {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        in_word = c.is_alphabetic();
    }
    out
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    let first: String = chars.next().into_iter().flat_map(char::to_uppercase).collect();
    first + &chars.as_str().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn split(text: &str, separator: Option<&str>, max: usize, from_right: bool, expected: &[&str]) {
        assert_eq!(pieces(text, separator, max, from_right).unwrap(), expected);
    }

    /// Expected pieces are those of CPython's `str.split` and `str.rsplit`.
    #[test]
    fn text_is_split_as_in_python() {
        let all = usize::MAX - 1;
        split("a,b,,c", Some(","), all, false, &["a", "b", "", "c"]);
        split("a,b,,c", Some(","), 1, false, &["a", "b,,c"]);
        split("a,b,,c", Some(","), 2, true, &["a,b", "", "c"]);
        split("", Some(","), all, false, &[""]);
        split("  a \n b\u{1c}c ", None, all, false, &["a", "b", "c"]);
        split("  a  b  c ", None, 1, false, &["a", "b  c "]);
        split("  a  b  c ", None, 0, false, &["a  b  c "]);
        split("  ", None, all, false, &[]);
        split(" a b ", None, all, true, &["a", "b"]);
        assert!(pieces("a", Some(""), all, false).is_err());
    }

    #[test]
    fn ends_are_stripped_as_in_python() {
        assert_eq!(strip(" \u{a0}\u{1f}a b\n", None), "a b");
        assert_eq!(strip("xxaxbyx", Some("xy")), "axb");
        assert_eq!((left("xax", Some("x")), right("xax", Some("x"))), ("ax", "xa"));
    }
}
