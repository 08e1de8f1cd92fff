//! What a template sees: messages, and values like those of JSON.

use std::sync::Arc;

use minijinja::value::{Enumerator, Object, Value as Engine};

/// A value for a template, like those of JSON. Maps keep their order.
///
/// ```
/// use halfbyte::chat::Value;
///
/// let tool = Value::Map(vec![("name".into(), "weather".into()), ("strict".into(), true.into())]);
/// assert_ne!(tool, Value::from("weather"));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any number.
    Float(f64),
    /// Text. Names of special tokens in it are text, too.
    Text(String),
    /// A list.
    List(Vec<Value>),
    /// Names and values, in order.
    Map(Vec<(String, Value)>),
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<Vec<Value>> for Value {
    fn from(value: Vec<Value>) -> Self {
        Self::List(value)
    }
}

/// Deepest nesting of a value that an application gives.
pub(super) const MAX_DEPTH: usize = 24;

impl Value {
    /// Adds the bytes of text and the number of values in it to `sum`; false if they are nested deeper than
    /// [`MAX_DEPTH`]. The other functions here are for values that are not.
    pub(super) fn measure(&self, sum: &mut (usize, usize), depth: usize) -> bool {
        sum.1 += 1;
        match self {
            _ if depth > MAX_DEPTH => false,
            Self::Text(text) => {
                sum.0 += text.len();
                true
            }
            Self::List(values) => values.iter().all(|value| value.measure(sum, depth + 1)),
            Self::Map(pairs) => pairs.iter().all(|(name, value)| {
                sum.0 += name.len();
                value.measure(sum, depth + 1)
            }),
            _ => true,
        }
    }

    /// Whether a text in it, names included, contains `c`.
    pub(super) fn contains(&self, c: char) -> bool {
        match self {
            Self::Text(text) => text.contains(c),
            Self::List(values) => values.iter().any(|value| value.contains(c)),
            Self::Map(pairs) => pairs.iter().any(|(name, value)| name.contains(c) || value.contains(c)),
            _ => false,
        }
    }

    /// As the engine's value, with each text put through `text`.
    pub(super) fn to_engine(&self, text: &impl Fn(&str) -> String) -> Engine {
        match self {
            Self::Null => Engine::from(()),
            Self::Bool(value) => Engine::from(*value),
            Self::Int(value) => Engine::from(*value),
            Self::Float(value) => Engine::from(*value),
            Self::Text(value) => Engine::from(text(value)),
            Self::List(values) => values.iter().map(|value| value.to_engine(text)).collect(),
            Self::Map(pairs) => Ordered::of(pairs.iter().map(|(name, value)| (text(name), value.to_engine(text)))),
        }
    }
}

/// A map in its order: the engine's own sort their keys. The only kind of map that templates get or make.
#[derive(Debug)]
pub(super) struct Ordered {
    pairs: Vec<(Engine, Engine)>,
    /// The places of names that are texts, sorted by them: comparing two maps looks for each name of one in the other.
    texts: Vec<usize>,
}

/// The entries of a map, or of another object with names.
pub(super) fn pairs(map: &Engine) -> Vec<(Engine, Engine)> {
    match map.downcast_object_ref::<Ordered>() {
        Some(map) => map.pairs.clone(),
        None => {
            let names = map.try_iter().into_iter().flatten();
            names.map(|name| (name.clone(), map.get_item(&name).unwrap_or_default())).collect()
        }
    }
}

impl Ordered {
    pub(super) fn of(pairs: impl IntoIterator<Item = (impl Into<Engine>, Engine)>) -> Engine {
        let pairs: Vec<(Engine, Engine)> = pairs.into_iter().map(|(name, value)| (name.into(), value)).collect();
        let named = |place: &usize| pairs.get(*place).and_then(|(name, _)| name.as_str());
        let mut texts: Vec<usize> = (0..pairs.len()).filter(|place| named(place).is_some()).collect();
        // Stable: of the same name, the first comes first.
        texts.sort_by(|a, b| named(a).cmp(&named(b)));
        Engine::from_object(Self { pairs, texts })
    }

    fn name(&self, place: usize) -> Option<&str> {
        self.pairs.get(place)?.0.as_str()
    }
}

impl Object for Ordered {
    fn get_value(self: &Arc<Self>, key: &Engine) -> Option<Engine> {
        match key.as_str() {
            Some(key) => self.get_value_by_str(key),
            None => self.pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone()),
        }
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Engine> {
        let first = self.texts.partition_point(|&place| self.name(place) < Some(key));
        let place = self.texts.get(first).copied().filter(|&place| self.name(place) == Some(key))?;
        self.pairs.get(place).map(|(_, value)| value.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.pairs.iter().map(|(name, _)| name.clone()).collect())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.pairs.len())
    }
}
