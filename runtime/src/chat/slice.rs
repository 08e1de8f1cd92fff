//! Slices as Python has them.

use minijinja::{
    Error,
    value::{Value, ValueKind},
};

use super::meter::invalid;

/// Python's `value[start:stop:step]`.
pub(super) fn slice(value: &Value, start: Option<i64>, stop: Option<i64>, step: i64) -> Result<Value, Error> {
    if step == 0 {
        return Err(invalid("the step of a slice cannot be 0"));
    }
    if let Some(text) = value.as_str() {
        let bounds = bounds(text.chars().count(), start, stop, step);
        if step == 1 {
            let [from, to] = bounds.map(|at| usize::try_from(at).unwrap_or(0));
            let at = |n: usize| text.char_indices().nth(n).map_or(text.len(), |(at, _)| at);
            return Ok(text.get(at(from)..at(to.max(from))).unwrap_or("").into());
        }
        let chars: Vec<char> = text.chars().collect();
        return Ok(places(bounds, step).filter_map(|at| chars.get(at)).collect::<String>().into());
    }
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.collect();
            Ok(places(bounds(items.len(), start, stop, step), step).filter_map(|at| items.get(at).cloned()).collect())
        }
        kind => Err(invalid(format!("a {kind} cannot be sliced"))),
    }
}

/// Where a slice of `len` items begins, and where it has ended: negative bounds count from the end, and all are moved
/// to what there is.
fn bounds(len: usize, start: Option<i64>, stop: Option<i64>, step: i64) -> [i64; 2] {
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let bound = |at: i64| (if at < 0 { at.saturating_add(len) } else { at }).clamp(low, high);
    let (first, last) = if step > 0 { (low, high) } else { (high, low) };
    [start.map_or(first, bound), stop.map_or(last, bound)]
}

/// The places from the one bound to the other.
fn places([start, stop]: [i64; 2], step: i64) -> impl Iterator<Item = usize> {
    let mut at = start;
    std::iter::from_fn(move || {
        let place = at;
        at = at.saturating_add(step);
        if step > 0 { place < stop } else { place > stop }.then(|| usize::try_from(place).ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected parts are those of CPython.
    #[test]
    fn slices_are_those_of_python() {
        for (start, stop, step, expected) in [
            (None, None, 1, "abcde"),
            (Some(1), None, 1, "bcde"),
            (Some(-2), None, 1, "de"),
            (None, Some(-2), 1, "abc"),
            (Some(-9), Some(9), 2, "ace"),
            (Some(3), Some(1), 1, ""),
            (None, None, -1, "edcba"),
            (Some(3), Some(0), -1, "dcb"),
            (Some(-2), Some(-9), -2, "db"),
            (None, Some(0), -3, "eb"),
            (Some(0), None, -1, "a"),
            (Some(i64::MIN), Some(i64::MAX), i64::MAX, "a"),
            (Some(i64::MAX), Some(i64::MIN), i64::MIN, "e"),
        ] {
            let text = slice(&Value::from("abcde"), start, stop, step).unwrap();
            assert_eq!(text.as_str(), Some(expected), "[{start:?}:{stop:?}:{step}]");
            let items = slice(&"abcde".chars().map(Value::from).collect(), start, stop, step).unwrap();
            assert_eq!(items, expected.chars().map(Value::from).collect(), "[{start:?}:{stop:?}:{step}]");
        }
        assert_eq!(slice(&Value::from("äöü"), Some(1), None, 1).unwrap().as_str(), Some("öü"));
        assert!(slice(&Value::from("a"), None, None, 0).is_err());
        assert!(slice(&Value::UNDEFINED, None, None, 1).is_err());
    }
}
