//! Tests of templates (`x is defined`), which filters ask, too. Names are those of Jinja 3.1 (`jinja2/tests.py`).

use std::sync::Arc;

use minijinja::{
    Environment, State, tests,
    value::{Value, ValueKind},
};

use super::meter::Meter;

/// Adds all of them to `env`.
pub(super) fn add(env: &mut Environment<'_>, meter: &Arc<Meter>) {
    add_comparisons(env, meter);
    env.add_test("undefined", tests::is_undefined);
    env.add_test("defined", tests::is_defined);
    env.add_test("none", tests::is_none);
    env.add_test("boolean", tests::is_boolean);
    env.add_test("odd", tests::is_odd);
    env.add_test("even", tests::is_even);
    env.add_test("divisibleby", tests::is_divisibleby);
    env.add_test("number", tests::is_number);
    env.add_test("integer", tests::is_integer);
    env.add_test("float", tests::is_float);
    env.add_test("string", tests::is_string);
    env.add_test("mapping", tests::is_mapping);
    env.add_test("true", tests::is_true);
    env.add_test("false", tests::is_false);
    // These read a text to its end, and filters ask them for each value of a list.
    let read = |value: &Value| value.as_str().map_or(0, str::len);
    for (name, test) in [("lower", tests::is_lower as fn(&Value) -> bool), ("upper", tests::is_upper)] {
        let meter = Arc::clone(meter);
        env.add_test(name, move |value: &Value| meter.charge(read(value)).map(|()| test(value)));
    }
    let meter = Arc::clone(meter);
    env.add_test("sameas", move |value: &Value, other: &Value| {
        meter.charge(read(value)).map(|()| tests::is_sameas(value, other))
    });
    // In Python, text and maps can be gone through and asked for a part by its index, and so can an undefined value.
    for name in ["sequence", "iterable"] {
        env.add_test(name, |value: &Value| {
            use ValueKind::{Iterable, Map, Seq, String, Undefined};
            matches!(value.kind(), String | Seq | Iterable | Map | Undefined)
        });
    }
}

/// Tests that compare, as the operators do: filters do it again and again.
fn add_comparisons(env: &mut Environment<'_>, meter: &Arc<Meter>) {
    type Comparison = fn(&Value, &Value) -> bool;
    let all: [(&[&str], Comparison); 6] = [
        (&["eq", "equalto", "=="], tests::is_eq),
        (&["ne", "!="], tests::is_ne),
        (&["lt", "lessthan", "<"], tests::is_lt),
        (&["gt", "greaterthan", ">"], tests::is_gt),
        (&["le", "<="], tests::is_le),
        (&["ge", ">="], tests::is_ge),
    ];
    for (names, test) in all {
        for name in names {
            let meter = Arc::clone(meter);
            env.add_test(*name, move |value: &Value, other: &Value| {
                meter.compared(other, false).map(|_| test(value, other))
            });
        }
    }
    let meter = Arc::clone(meter);
    env.add_test("in", move |state: &State<'_, '_>, value: &Value, other: &Value| {
        meter.compared(value, true)?;
        meter.compared(other, false)?;
        tests::is_in(state, value, other)
    });
}
