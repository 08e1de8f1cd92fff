//! Slices as Python has them.

use minijinja::{
    Error,
    value::{Value, ValueKind},
};

use super::meter::invalid;

/// Python's `value[start:stop:step]`.
pub(super) fn slice(value: &Value, start: Option<i64>, stop: Option<i64>, step: i64) -> Result<Value, Error> {
    let text: Option<Vec<char>> = value.as_str().map(|text| text.chars().collect());
    let items: Option<Vec<Value>> = match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => Some(value.try_iter()?.collect()),
        _ => None,
    };
    let Some(len) = text.as_ref().map(Vec::len).or(items.as_ref().map(Vec::len)) else {
        return Err(invalid(format!("a {} cannot be sliced", value.kind())));
    };
    if step == 0 {
        return Err(invalid("the step of a slice cannot be 0"));
    }
    // Bounds count from the end if they are negative, and are moved to what there is.
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let bound = |at: i64| (if at < 0 { at.saturating_add(len) } else { at }).clamp(low, high);
    let (start, stop) = if step > 0 {
        (start.map_or(low, bound), stop.map_or(high, bound))
    } else {
        (start.map_or(high, bound), stop.map_or(low, bound))
    };
    let mut at = start;
    let places = std::iter::from_fn(|| {
        let place = at;
        at = at.saturating_add(step);
        if step > 0 { place < stop } else { place > stop }.then(|| usize::try_from(place).ok()).flatten()
    });
    Ok(match (text, items) {
        (Some(text), _) => places.filter_map(|at| text.get(at)).collect::<String>().into(),
        (_, items) => {
            let items = items.unwrap_or_default();
            places.filter_map(|at| items.get(at).cloned()).collect()
        }
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
