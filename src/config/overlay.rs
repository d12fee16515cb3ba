//! What the user wrote, laid over the defaults of the kinds that they chose.

use super::suggest::{did_you_mean, elsewhere};
use super::words::words_of;
use super::{Blur, Metric, OnNonfinite, Restart};
use crate::{model, optim, tasks};
use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::Value;

/// Gives each section the defaults of the kind that the user chose for it.
pub fn choose_kinds(defaults: &mut Value, user: &Value, path: &str) -> Result<()> {
    if let Some(kind) = user.get("kind").filter(|_| !kinds_of(path).is_empty()) {
        *defaults = choose_kind(path, kind)?;
    }
    for (name, section) in defaults.as_object_mut().into_iter().flatten() {
        if let Some(user) = user.get(name) {
            choose_kinds(section, user, &join(path, name))?;
        }
    }
    Ok(())
}

/// Replaces the defaults, of the kinds that the user chose, by what the user wrote, whose names and types must be
/// theirs. `paths`: all that the recipe has, to say which was meant.
pub fn overlay(defaults: &mut Value, user: Value, path: &str, paths: &[String]) -> Result<()> {
    let user = match user {
        Value::Object(user) if defaults.is_object() => user,
        value => {
            check_type(defaults, &value, path)?;
            *defaults = value;
            return Ok(());
        }
    };
    let known = defaults.as_object_mut().expect("checked above");
    for (name, value) in user {
        let path = join(path, &name);
        match known.get_mut(&name) {
            Some(default) => overlay(default, value, &path, paths)?,
            None => {
                let names = known.keys().map(String::as_str);
                let all = names.clone().collect::<Vec<_>>().join(", ");
                let meant = elsewhere(&path, paths).unwrap_or_else(|| did_you_mean(&name, names));
                bail!("unknown field `{path}`{meant}\nhint: the fields here are {all}");
            }
        }
    }
    Ok(())
}

/// The default objects of every kind that the section at a path can have, the usual kind first.
pub fn kinds_of(path: &str) -> Vec<Value> {
    fn values<T: Serialize>(kinds: Vec<T>) -> Vec<Value> {
        kinds.into_iter().filter_map(|kind| serde_json::to_value(kind).ok()).collect()
    }
    match path {
        "task" => values(tasks::Task::kinds()),
        "model" => values(model::Config::kinds()),
        "model.controller" => values(model::ControllerConfig::kinds()),
        "training.clip" => values(optim::Clip::kinds()),
        "training.optimizer" => values(optim::Config::kinds()),
        "training.schedule" => values(optim::Schedule::kinds()),
        "training.curriculum" => values(tasks::Curriculum::kinds()),
        "training.blur" => values(Blur::kinds()),
        "training.on_nonfinite" => values(OnNonfinite::kinds()),
        "training.restart" => values(Restart::kinds()),
        _ => vec![],
    }
}

pub fn choose_kind(path: &str, kind: &Value) -> Result<Value> {
    let kinds = kinds_of(path);
    let names: Vec<&str> = kinds.iter().filter_map(|kind| kind["kind"].as_str()).collect();
    match kinds.iter().find(|known| known["kind"] == *kind) {
        Some(default) => Ok(default.clone()),
        None => bail!(
            "`{}` is {kind}, allowed: {}{}",
            join(path, "kind"),
            names.join(", "),
            did_you_mean(kind.as_str().unwrap_or(""), names.iter().copied())
        ),
    }
}

/// A value must have the type of the default in its place; a choice must be one of the known words.
fn check_type(default: &Value, value: &Value, path: &str) -> Result<()> {
    let expected = match default {
        Value::Number(number) if number.is_f64() => "a number",
        Value::Number(_) => "a whole number, 0 or more",
        other => described(other),
    };
    let fits = match (default, value) {
        (Value::Number(default), Value::Number(value)) => default.is_f64() || value.is_u64(),
        (Value::Array(_), Value::Array(values)) => values.iter().all(Value::is_u64),
        (default, value) => described(default) == described(value),
    };
    if !fits {
        let hint = match default {
            Value::Array(_) => "\nhint: for instance [10,20]".to_string(),
            Value::Object(fields) if fields.contains_key("kind") => format!("\nhint: `{path}.kind` chooses one"),
            _ => String::new(),
        };
        bail!("`{path}` is {value}, expected {expected}{hint}");
    }
    let words = words_at(path);
    match value.as_str() {
        Some(word) if !words.is_empty() && !words.contains(&word) => {
            bail!("`{path}` is {value}, allowed: {}{}", words.join(", "), did_you_mean(word, words.iter().copied()))
        }
        _ => Ok(()),
    }
}

/// The words allowed at a path that holds one of several, else none.
fn words_at(path: &str) -> &'static [&'static str] {
    match path {
        "task.loss" => words_of::<tasks::Loss>(),
        "task.count" => words_of::<tasks::Count>(),
        "solved.metric" | "training.restart.metric" => words_of::<Metric>(),
        "model.init.memory" => words_of::<model::MemoryStart>(),
        "model.init.weighting" => words_of::<model::WeightingStart>(),
        "model.init.keys" => words_of::<model::KeyStart>(),
        "model.init.addressing" => words_of::<model::AddressingStart>(),
        "model.activation.key" | "model.activation.add" => words_of::<model::Activation>(),
        _ => &[],
    }
}

pub fn described(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list of whole numbers",
        Value::Object(_) => "an object",
    }
}

pub fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_string() } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::DeserializeOwned;
    use serde_json::json;

    /// Asserts that these are all kinds that a `T` can be, by what serde says where it is none of them.
    fn assert_all<T: Serialize + DeserializeOwned>(kinds: Vec<T>) {
        let error = serde_json::from_value::<T>(json!({ "kind": "?" })).err().unwrap().to_string();
        let known: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
        let kinds: Vec<Value> =
            kinds.into_iter().map(|kind| serde_json::to_value(kind).unwrap()["kind"].take()).collect();
        assert_eq!(kinds, known, "{error}");
    }

    #[test]
    fn kinds_names_every_kind_in_its_order() {
        assert_all(tasks::Task::kinds());
        assert_all(model::Config::kinds());
        assert_all(model::ControllerConfig::kinds());
        assert_all(optim::Clip::kinds());
        assert_all(optim::Config::kinds());
        assert_all(optim::Schedule::kinds());
        assert_all(tasks::Curriculum::kinds());
        assert_all(Blur::kinds());
        assert_all(OnNonfinite::kinds());
        assert_all(Restart::kinds());
    }
}
