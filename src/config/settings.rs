//! `--set KEY=VALUE`.

use super::overlay::{choose_kind, kinds_of};
use crate::json::Unique;
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

/// Puts one `KEY=VALUE` into the user's recipe. A new `kind` leaves behind the fields that only the old kind has.
pub fn set(recipe: &mut Value, setting: &str) -> Result<()> {
    let (key, text) = setting
        .split_once('=')
        .with_context(|| format!("`{setting}` has no `=`\nhint: for instance training.batch_size=16"))?;
    let value = match serde_json::from_str(text) {
        Ok(value) => {
            serde_json::from_str::<Unique>(text).with_context(|| format!("`{key}`"))?;
            value
        }
        Err(error) if text.starts_with(['{', '[', '"']) => bail!("its value is not valid JSON: {error}"),
        Err(_) => Value::String(text.to_string()),
    };
    if key.split('.').any(str::is_empty) {
        bail!("`{key}` is no path\nhint: for instance training.batch_size");
    }
    let own = recipe.pointer("/task/kind").is_some_and(|kind| kind == "sequences");
    if own && ["task.input_width", "task.output_width", "task.max_steps"].contains(&key) {
        bail!("ntm reads it from the files\nhint: `task.train` names one");
    }
    let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
    let mut place = &mut *recipe;
    for part in section.split('.').filter(|part| !part.is_empty()) {
        let object = place.as_object_mut().with_context(|| format!("no section holds `{part}` of `{key}`"))?;
        place = object.entry(part).or_insert_with(|| Value::Object(Map::new()));
    }
    let object = place.as_object_mut().with_context(|| format!("`{section}` is not a section"))?;
    if name == "kind" && !kinds_of(section).is_empty() && object.get("kind") != Some(&value) {
        let new = choose_kind(section, &value)?;
        object.retain(|field, _| new.get(field).is_some());
    }
    let before = object.insert(name.to_string(), value.clone());
    for field in what_a_file_had(key) {
        object.remove(*field);
    }
    let kind = |task: &Value| task.get("kind").cloned();
    let kinds = match key {
        "task.kind" => Some([before, Some(value)]),
        "task" => Some([before.as_ref().and_then(kind), kind(&value)]),
        _ => None,
    };
    if let Some(kinds) = kinds {
        let usual = kinds_of("task")[0]["kind"].clone();
        let [old, new] = kinds.map(|kind| kind.unwrap_or(usual.clone()));
        choose_kind("task", &new)?;
        if old != new {
            leave_task_behind(recipe);
        }
    }
    Ok(())
}

/// The fields beside the path of a file that say what it held, which another one will not.
fn what_a_file_had(key: &str) -> &'static [&'static str] {
    match key {
        "training.from" => &["from_content"],
        "task.train" => &["train_content", "input_width", "output_width", "max_steps"],
        "task.eval" => &["eval_content"],
        _ => &[],
    }
}

/// Removes what a recipe says of its task elsewhere: axes, figures and bounds, which mean nothing to another one.
fn leave_task_behind(recipe: &mut Value) {
    for (section, names) in [("", &["evaluation", "solved"]), ("/training", &["restart", "curriculum"])] {
        if let Some(Value::Object(section)) = recipe.pointer_mut(section) {
            section.retain(|name, _| !names.contains(&name.as_str()));
        }
    }
}
