//! What serde_json leaves to others: objects with a key twice, and where two values differ.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::collections::HashSet;
use std::fmt;

/// Any JSON value whose objects have no key twice, of which nothing is kept. The maps of serde_json keep the last and
/// say nothing.
pub struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Unique, D::Error> {
        deserializer.deserialize_any(Unique)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if names.contains(&name) {
                return Err(A::Error::custom(format!("`{name}` appears twice")));
            }
            names.insert(name);
            map.next_value::<Unique>()?;
        }
        Ok(Unique)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Unique, A::Error> {
        while values.next_element::<Unique>()?.is_some() {}
        Ok(Unique)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_str<E>(self, _: &str) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_unit<E>(self) -> Result<Unique, E> {
        Ok(Unique)
    }
}

/// The first place where two values differ: its path, and what each has there.
pub struct Difference {
    pub path: String,
    pub first: Value,
    pub second: Value,
}

/// The first field, however deep, in which two values differ.
pub fn first_difference(first: &Value, second: &Value) -> Option<Difference> {
    below("", first, second)
}

fn below(path: &str, first: &Value, second: &Value) -> Option<Difference> {
    let (Value::Object(left), Value::Object(right)) = (first, second) else {
        let (path, first, second) = (path.to_string(), first.clone(), second.clone());
        return (first != second).then_some(Difference { path, first, second });
    };
    let names = left.keys().chain(right.keys().filter(|name| !left.contains_key(*name)));
    names.into_iter().find_map(|name| {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        below(&path, left.get(name).unwrap_or(&Value::Null), right.get(name).unwrap_or(&Value::Null))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_difference_is_named_with_its_path_and_both_values() {
        let of = |first, second| first_difference(&first, &second).map(|found| (found.path, found.first, found.second));
        assert_eq!(of(json!({"a": {"b": [1]}}), json!({"a": {"b": [1]}})), None);
        let deep = of(json!({"a": {"b": 1, "c": 2}}), json!({"a": {"b": 1, "c": 3}}));
        assert_eq!(deep, Some(("a.c".to_string(), json!(2), json!(3))));
        let missing = of(json!({}), json!({"a": {"b": 1}}));
        assert_eq!(missing, Some(("a".to_string(), Value::Null, json!({"b": 1}))));
    }

    #[test]
    fn a_key_that_stands_twice_is_named_with_its_place_however_deep() {
        for (text, expected) in [
            (r#"{"a": {"b": [1, -2, 0.5, "x", null, true]}, "b": {}}"#, None),
            (r#"{"a": 1, "a": 2}"#, Some("`a` appears twice at line 1 column")),
            (r#"[{"b": {"c": [{"d": 1, "e": 2, "d": 3}]}}]"#, Some("`d` appears twice")),
        ] {
            let error = serde_json::from_str::<Unique>(text).err().map(|error| error.to_string());
            assert_eq!(error.is_some(), expected.is_some(), "{text}: {error:?}");
            assert!(error.unwrap_or_default().contains(expected.unwrap_or("")), "{text}");
        }
    }
}
