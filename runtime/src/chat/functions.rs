//! Filters and functions of templates, with limits on what they make.
//!
//! Those whose result is never much larger than what they are given are the engine's. Names and arguments are those of
//! Jinja 3.1 (`jinja2/filters.py`), and what transformers adds (`utils/chat_template_utils.py`).

use std::{
    collections::HashMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use minijinja::{
    Environment, Error, State, filters, functions,
    value::{Kwargs, Rest, Value, ValueKind, ValueOrKwargs},
};

use super::{
    ChatError,
    date::Date,
    guard,
    meter::{Meter, VALUE_BYTES, fail, invalid, too_large},
    methods, predicates,
    print::{Capped, Json, JsonError},
    slice::slice,
    value::{Ordered, pairs},
};

/// Most spaces of one level that `tojson` and `indent` write.
const MAX_INDENT: usize = 64;
/// Longest path of attributes.
const MAX_PATH: usize = 256;

/// Adds all of them to `environment`.
pub(super) fn add(environment: &mut Environment<'_>, meter: &Arc<Meter>) {
    add_checks(environment, meter);
    add_functions(environment, meter);
    add_filters(environment, meter);
    predicates::add(environment, meter);
}

/// Filters of the engine, whose results are counted.
fn add_filters(environment: &mut Environment<'_>, meter: &Arc<Meter>) {
    let engines = [
        ("length", Value::from_function(filters::length)),
        ("count", Value::from_function(filters::length)),
        ("lower", Value::from_function(filters::lower)),
        ("upper", Value::from_function(filters::upper)),
        ("title", Value::from_function(filters::title)),
        ("capitalize", Value::from_function(filters::capitalize)),
        ("reverse", Value::from_function(filters::reverse)),
        ("default", Value::from_function(filters::default)),
        ("d", Value::from_function(filters::default)),
        ("round", Value::from_function(filters::round)),
        ("abs", Value::from_function(filters::abs)),
        ("int", Value::from_function(filters::int)),
        ("float", Value::from_function(filters::float)),
        ("attr", Value::from_function(filters::attr)),
        ("first", Value::from_function(filters::first)),
        ("last", Value::from_function(filters::last)),
        ("min", Value::from_function(filters::min)),
        ("max", Value::from_function(filters::max)),
        ("sort", Value::from_function(filters::sort)),
        ("unique", Value::from_function(filters::unique)),
        ("list", Value::from_function(filters::list)),
        ("dictsort", Value::from_function(filters::dictsort)),
        ("select", Value::from_function(filters::select)),
        ("reject", Value::from_function(filters::reject)),
        ("selectattr", Value::from_function(filters::selectattr)),
        ("rejectattr", Value::from_function(filters::rejectattr)),
        ("map", Value::from_function(filters::map)),
    ];
    for (name, filter) in engines {
        let meter = Arc::clone(meter);
        environment.add_filter(name, move |state: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| {
            let args = args.into_values();
            gone_through(&meter, name, &args)?;
            let made = filter.call(state, &args)?;
            let others = matches!(name, "lower" | "upper" | "title" | "capitalize" | "reverse");
            let made = if others { meter.said(made) } else { made };
            meter.made(&made)?;
            Ok::<_, Error>(made)
        });
    }
    add_own_filters(environment, meter);
}

/// Checks a filter that goes along a path of attributes, of each value of a list, or compares the values: what is in
/// the list may be there again and again, and the filter goes through it each time, without a look at the clock.
fn gone_through(meter: &Meter, filter: &str, args: &[Value]) -> Result<(), Error> {
    let given = args.get(1).filter(|_| matches!(filter, "selectattr" | "rejectattr"));
    let named = args.last().filter(|last| last.is_kwargs()).and_then(|last| last.get_attr("attribute").ok());
    let path = given.cloned().or(named).filter(|path| !path.is_undefined());
    if path.is_none() && !matches!(filter, "sort" | "unique" | "min" | "max" | "dictsort") {
        return Ok(());
    }
    let Some(list) = args.first() else { return Ok(()) };
    meter.few(list.len().unwrap_or(0))?;
    let bytes = meter.compared(list, false)?;
    match path.as_ref().and_then(Value::as_str) {
        Some(path) if path.len() > MAX_PATH => Err(too_large("a path of attributes", MAX_PATH, "bytes")),
        // For several, all are copied.
        Some(paths) if filter == "sort" && paths.contains(',') => {
            meter.charge(bytes.saturating_mul(paths.split(',').count()))
        }
        _ if filter == "dictsort" => meter.charge(list.len().unwrap_or(0) * methods::PAIR_BYTES),
        _ => Ok(()),
    }
}

/// What `guard` puts into a template.
fn add_checks(environment: &mut Environment<'_>, meter: &Arc<Meter>) {
    for (name, plain) in [(guard::KEEP, false), (guard::PLAIN, true)] {
        let meter = Arc::clone(meter);
        environment.add_function(name, move |values: Rest<Value>| match values.as_slice() {
            [value] => meter.keep(value, plain),
            // `set a, b = c, d`
            several => meter.keep(&Value::from(several.to_vec()), plain),
        });
    }
    let for_ticks = Arc::clone(meter);
    environment.add_function(guard::TICK, move |text_bytes: usize, values: Rest<Value>| {
        for_ticks.charge(text_bytes)?;
        values.iter().try_for_each(|value| for_ticks.check(value))
    });
    let for_maps = Arc::clone(meter);
    environment.add_function(guard::DICT, move |entries: Rest<Value>| {
        let (entries, []) = entries.as_chunks() else { return Err(invalid("a map has a value for each name")) };
        dict(&for_maps, &entries.iter().map(|[name, value]| (name.clone(), value.clone())).collect::<Vec<_>>())
    });
    for (name, plain) in [(guard::CHECKED, false), (guard::SOUGHT, true)] {
        let meter = Arc::clone(meter);
        environment.add_filter(name, move |value: Value| meter.compared(&value, plain).map(|_| value));
    }
    let for_made = Arc::clone(meter);
    environment.add_filter(guard::MADE, move |value: Value| for_made.made(&value).map(|()| value));
    let for_indices = Arc::clone(meter);
    environment.add_filter(guard::INDEX, move |index: Value| for_indices.charge(0).map(|()| index));
    let for_texts = Arc::clone(meter);
    environment.add_filter(guard::TEXT, move |value: Value| match value.kind() {
        // Numbers are the same in both languages; what is undefined stays so, for those who ask.
        ValueKind::String | ValueKind::Number | ValueKind::Undefined => for_texts.made(&value).map(|()| value),
        _ => for_texts.str(&value).map(Value::from),
    });
    let for_slices = Arc::clone(meter);
    environment.add_filter(
        guard::SLICE,
        move |value: &Value, start: Option<i64>, stop: Option<i64>, step: Option<i64>| {
            let step = step.unwrap_or(1);
            let made = slice(value, start, stop, step)?;
            let made = if step == 1 { made } else { for_slices.said(made) };
            for_slices.made(&made).map(|()| made)
        },
    );
    environment.add_filter(guard::NUMBER, |value: Value| {
        if value.is_number() { Ok(value) } else { Err(invalid("only numbers can be multiplied in chat templates")) }
    });
}

/// A map in which a name that comes again has the last value.
fn dict(meter: &Meter, entries: &[(Value, Value)]) -> Result<Value, Error> {
    meter.few(entries.len())?;
    meter.charge(entries.len() * VALUE_BYTES)?;
    let mut map: Vec<(Value, Value)> = Vec::new();
    let mut places = HashMap::new();
    for (name, value) in entries {
        // Names that are no texts are written in the template, and few.
        let place = match name.as_str() {
            Some(text) => *places.entry(text).or_insert(map.len()),
            None => map.iter().position(|(other, _)| other == name).unwrap_or(map.len()),
        };
        match map.get_mut(place) {
            Some((_, held)) => held.clone_from(value),
            None => map.push((name.clone(), value.clone())),
        }
    }
    Ok(Ordered::of(map))
}

/// The entries of `map`, which is one.
fn entries(map: &Value) -> Result<Vec<(Value, Value)>, Error> {
    match map.kind() {
        ValueKind::Map => Ok(pairs(map)),
        kind => Err(invalid(format!("a {kind} is no map"))),
    }
}

fn add_functions(environment: &mut Environment<'_>, meter: &Arc<Meter>) {
    environment.add_function("range", functions::range);
    let for_maps = Arc::clone(meter);
    environment.add_function("dict", move |given: Option<&Value>, more: Kwargs| {
        let mut all = given.map(entries).transpose()?.unwrap_or_default();
        for name in more.args() {
            all.push((Value::from(name), more.peek(name)?));
        }
        dict(&for_maps, &all)
    });
    let meter = Arc::clone(meter);
    environment.add_function("namespace", move |defaults: Option<ValueOrKwargs>| {
        let defaults = defaults.map(ValueOrKwargs::into_value);
        if let Some(defaults) = &defaults {
            entries(defaults)?.iter().try_for_each(|(_, value)| meter.keep(value, true).map(drop))?;
        }
        functions::namespace(defaults.map(ValueOrKwargs::from))
    });
    environment.add_function("raise_exception", |message: Value| -> Result<Value, Error> {
        let message =
            message.as_str().map_or_else(|| message.kind().to_string(), |text| text.chars().take(1000).collect());
        Err(fail(ChatError::Refused { message: message.replace(char::is_control, " ") }))
    });
    environment.add_function("strftime_now", |format: &str| {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        Date::from_unix(seconds).format(format).ok_or_else(|| {
            invalid("strftime_now knows %Y %y %m %d %e %b %B %a %A %j %H %I %M %S %p %F %T %%, up to 1000 bytes")
        })
    });
}

fn add_own_filters(environment: &mut Environment<'_>, meter: &Arc<Meter>) {
    let m = Arc::clone(meter);
    environment.add_filter("trim", move |value: &Value, chars: Option<&str>| {
        m.str(value).map(|text| methods::strip(&text, chars).to_owned())
    });
    // There is no escaping to be saved from.
    environment.add_filter("safe", |value: Value| value);
    let m = Arc::clone(meter);
    environment.add_filter("items", move |value: &Value| match value.kind() {
        ValueKind::Map => methods::items(&m, value),
        // As Jinja has it.
        ValueKind::Undefined => Ok(Value::from(Vec::<Value>::new())),
        kind => Err(invalid(format!("a {kind} has no items"))),
    });
    let m = Arc::clone(meter);
    environment.add_filter("string", move |value: &Value| m.str(value));
    let m = Arc::clone(meter);
    environment.add_filter("join", move |value: &Value, glue: Option<&str>, attribute: Option<&str>| {
        join(&m, value, glue.unwrap_or_default(), attribute)
    });
    let m = Arc::clone(meter);
    environment.add_filter("replace", move |text: &str, old: &str, new: &str, count: Option<usize>| {
        replace(&m, text, old, new, count)
    });
    let m = Arc::clone(meter);
    environment.add_filter("indent", move |text: &str, args: Rest<Value>| indent(&m, text, &args));
    let m = Arc::clone(meter);
    environment.add_filter("tojson", move |_: &State<'_, '_>, value: &Value, indent: Option<Value>, args: Kwargs| {
        tojson(&m, value, indent, &args)
    });
}

/// The texts of `value`'s items with `glue` between them.
pub(super) fn join(meter: &Meter, value: &Value, glue: &str, attribute: Option<&str>) -> Result<String, Error> {
    let mut joined = String::new();
    for (n, item) in value.try_iter()?.checked().enumerate() {
        let mut item = item?;
        for part in attribute.iter().flat_map(|path| path.split('.')) {
            item = item.get_attr(part)?;
        }
        let text = meter.str(&item)?;
        let glue = if n > 0 { glue } else { "" };
        meter.fits(joined.len() + glue.len() + text.len())?;
        joined.push_str(glue);
        joined.push_str(&text);
    }
    Ok(joined)
}

/// `text` with the first `count` (or all) `old` replaced by `new`. Names of special tokens in the pieces, and in `new`,
/// stay what they are; what only begins in one is none.
pub(super) fn replace(meter: &Meter, text: &str, old: &str, new: &str, count: Option<usize>) -> Result<String, Error> {
    let found = text.matches(old).take(count.unwrap_or(usize::MAX)).count();
    let new = meter.ended(new);
    let bytes = found.saturating_mul(new.len()).saturating_add(text.len());
    meter.fits(bytes)?;
    meter.charge(bytes)?;
    let mut made = String::new();
    for (n, piece) in text.splitn(found + 1, old).enumerate() {
        made.push_str(if n > 0 { &new } else { "" });
        made.push_str(&if n < found { meter.ended(piece) } else { piece.into() });
    }
    meter.fits(made.len()).map(|()| made)
}

fn indent(meter: &Meter, text: &str, args: &[Value]) -> Result<String, Error> {
    let (positional, kwargs): (&[Value], Kwargs) = minijinja::value::from_args(args)?;
    let arg = |n: usize, name: &str| match positional.get(n) {
        Some(value) => Ok(Some(value.clone())),
        None => kwargs.get::<Option<Value>>(name),
    };
    let width = match arg(0, "width")? {
        None => "    ".to_owned(),
        Some(width) => level(&width)?,
    };
    let (first, blank) = (arg(1, "first")?, arg(2, "blank")?);
    kwargs.assert_all_used()?;
    let [first, blank] = [first, blank].map(|flag| flag.is_some_and(|flag| flag.is_true()));
    let bytes = text.len() + (text.matches('\n').count() + 1) * width.len();
    meter.fits(bytes)?;
    meter.charge(bytes)?;
    let mut out = String::new();
    for (n, line) in text.lines().enumerate() {
        if n > 0 {
            out.push('\n');
        }
        if if n == 0 { first } else { blank || !line.is_empty() } {
            out.push_str(&width);
        }
        out.push_str(line);
    }
    // Python splits "a\n" into one line and an end, which Jinja keeps.
    if text.ends_with('\n') {
        out.push('\n');
        out.push_str(if blank { &width } else { "" });
    }
    Ok(out)
}

/// Spaces of a level: so many, or these.
fn level(value: &Value) -> Result<String, Error> {
    match (value.as_usize(), value.as_str()) {
        (Some(width), _) if width <= MAX_INDENT => Ok(" ".repeat(width)),
        (_, Some(spaces)) if spaces.len() <= MAX_INDENT => Ok(spaces.to_owned()),
        _ => Err(too_large("a level of indentation", MAX_INDENT, "bytes")),
    }
}

fn tojson(meter: &Meter, value: &Value, indent: Option<Value>, args: &Kwargs) -> Result<String, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => args.get::<Option<Value>>("indent")?,
    };
    let indent = indent.filter(|indent| !indent.is_none()).map(|indent| level(&indent)).transpose()?;
    let separators = args.get::<Option<Vec<Value>>>("separators")?;
    let ascii = args.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let sort_keys = args.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    args.assert_all_used()?;
    let [comma, colon] = match separators.as_deref() {
        None => [if indent.is_some() { "," } else { ", " }, ": "].map(str::to_owned),
        Some([comma, colon]) => [meter.str(comma)?, meter.str(colon)?],
        Some(_) => return Err(invalid("tojson: separators are two texts")),
    };
    let mut out = Capped::new(meter.text_limit);
    let written = Json { indent, comma, colon, ascii, sort_keys, mark: meter.mark() }.write(value, &mut out);
    let text = out.into_text();
    meter.charge(text.len())?;
    match written {
        Ok(()) => Ok(text),
        Err(JsonError::TooLong) => Err(meter.too_long()),
        Err(JsonError::NoJson(kind)) => Err(invalid(format!("tojson: a {kind} value has no JSON"))),
    }
}
