//! From a name, a file and flags to a resolved recipe: what the user wrote is laid over the defaults of the kinds
//! they chose, field by field, so that every error can name the field, the source and the nearest known name.

use super::words::words_of;
use super::{Blur, Evaluation, Metric, OnNonfinite, Recipe, Restart, Solved};
use crate::json::Unique;
use crate::{model, optim, tasks};
use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;
use serde_json::{Map, Value};
use std::path::Path;

include!(concat!(env!("OUT_DIR"), "/recipes.rs")); // pub const BUILT_IN: &[(name, JSON)], all of tasks/

impl Recipe {
    /// The recipe file of a run, with `KEY=VALUE` settings on top, validated.
    pub fn load_saved(path: &str, settings: &[String]) -> Result<Recipe> {
        Recipe::parse_saved(&read(path)?, settings).with_context(|| format!("in recipe `{path}`"))
    }

    /// A built-in recipe by its name or a recipe file by its path, with `KEY=VALUE` settings on top, validated.
    pub fn load(name: &str, settings: &[String]) -> Result<Recipe> {
        let (text, source) = match BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
            Some((_, text)) => (text.to_string(), format!("built-in recipe `{name}`")),
            None if name.ends_with(".safetensors") => {
                bail!(
                    "`{name}` is a checkpoint, not a recipe\nhint: `ntm info --checkpoint {name}` shows the recipe in it"
                )
            }
            None if Path::new(name).is_dir() => {
                bail!("`{name}` is a directory, not a recipe\nhint: a run's recipe is the recipe.json in it")
            }
            None if Path::new(name).exists() => (read(name)?, format!("recipe `{name}`")),
            None => bail!(
                "no recipe `{name}`: neither built in nor a file{}\nhint: `ntm info` lists the built-in recipes",
                did_you_mean(name, BUILT_IN.iter().map(|(name, _)| *name))
            ),
        };
        Recipe::parse(&text, settings).with_context(|| format!("in {source}"))
    }

    /// Parses the recipe of a run, which may be of a version that had fewer fields: what it did then is filled in.
    pub fn parse_saved(text: &str, settings: &[String]) -> Result<Recipe> {
        Recipe::complete(text, settings, |saved| {
            if let Some(init) = saved.pointer_mut("/model/init").and_then(Value::as_object_mut) {
                init.entry("keys").or_insert("independent".into());
            }
        })
    }

    /// Parses, completes and validates a recipe. Settings are `KEY=VALUE`, the value JSON or a bare word.
    pub fn parse(text: &str, settings: &[String]) -> Result<Recipe> {
        Recipe::complete(text, settings, |_| ())
    }

    /// `parse`, with something `filled_in` that is neither written nor a default.
    fn complete(text: &str, settings: &[String], filled_in: impl FnOnce(&mut Value)) -> Result<Recipe> {
        let text = text.trim_start_matches('\u{feff}'); // which some editors begin with
        let mut user: Value = serde_json::from_str(text).map_err(|error| anyhow!("not valid JSON: {error}"))?;
        serde_json::from_str::<Unique>(text)?;
        if !user.is_object() {
            bail!("a recipe is a JSON object {{...}}, this is {}", described(&user));
        }
        filled_in(&mut user);
        // a task first: what it leaves behind, others may set
        let of_task = |setting: &&String| ["task", "task.kind"].contains(&setting.split('=').next().unwrap_or(""));
        for setting in settings.iter().filter(of_task).chain(settings.iter().filter(|setting| !of_task(setting))) {
            set(&mut user, setting)?;
        }
        let mut resolved = serde_json::to_value(Recipe::default())?;
        choose_kinds(&mut resolved, &user, "")?;
        let paths = paths_of(&resolved);
        if let Some(task) = user.get("task") {
            overlay(&mut resolved["task"], task.clone(), "task", &paths)?;
            let task: tasks::Task = serde_json::from_value(resolved["task"].clone())?;
            task.validate()?; // before others are made from its sizes
            resolved["evaluation"] = serde_json::to_value(Evaluation::of(&task))?; // its axes are those of the task
            resolved["solved"] = serde_json::to_value(Solved::of(&task))?; // and its figures
        }
        overlay(&mut resolved, user, "", &paths)?;
        let recipe: Recipe = serde_json::from_value(resolved)?;
        recipe.validate()?;
        Ok(recipe)
    }
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read recipe `{path}`"))
}

/// The default objects of every kind that the section at a path can have, the usual kind first.
fn kinds_of(path: &str) -> Vec<Value> {
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

/// Replaces the defaults, of the kinds that the user chose, by what the user wrote, whose names and types must be
/// theirs. `paths`: all that the recipe has, to say which was meant.
fn overlay(defaults: &mut Value, user: Value, path: &str, paths: &[String]) -> Result<()> {
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

fn choose_kind(path: &str, kind: &Value) -> Result<Value> {
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

fn described(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list of whole numbers",
        Value::Object(_) => "an object",
    }
}

/// Puts one `KEY=VALUE` into the user's recipe. A new `kind` leaves behind the fields that only the old kind has.
fn set(recipe: &mut Value, setting: &str) -> Result<()> {
    let (key, text) = setting
        .split_once('=')
        .with_context(|| format!("`--set {setting}` has no `=`\nhint: for instance --set training.batch_size=16"))?;
    let value = match serde_json::from_str(text) {
        Ok(value) => {
            serde_json::from_str::<Unique>(text).with_context(|| format!("`--set {key}`"))?;
            value
        }
        Err(_) => Value::String(text.to_string()),
    };
    if key.split('.').any(str::is_empty) {
        bail!("`--set {setting}`: `{key}` is no path\nhint: for instance --set training.batch_size=16");
    }
    let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
    let mut place = &mut *recipe;
    for part in section.split('.').filter(|part| !part.is_empty()) {
        let object = place.as_object_mut().with_context(|| format!("`--set {key}`: no section holds `{part}`"))?;
        place = object.entry(part).or_insert_with(|| Value::Object(Map::new()));
    }
    let object = place.as_object_mut().with_context(|| format!("`--set {key}`: `{section}` is not a section"))?;
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

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_string() } else { format!("{path}.{name}") }
}

/// Gives each section the defaults of the kind that the user chose for it.
fn choose_kinds(defaults: &mut Value, user: &Value, path: &str) -> Result<()> {
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

/// The paths of all fields and sections of a recipe.
fn paths_of(recipe: &Value) -> Vec<String> {
    fn below(path: &str, value: &Value, paths: &mut Vec<String>) {
        for (name, value) in value.as_object().into_iter().flatten() {
            let path = join(path, name);
            below(&path, value, paths);
            paths.push(path);
        }
    }
    let mut paths = vec![];
    below("", recipe, &mut paths);
    paths
}

/// Where a recipe has a field that the user looked for in the wrong section: the paths that end with its path, or that
/// lie deeper in its section, if they are few.
fn elsewhere(path: &str, paths: &[String]) -> Option<String> {
    let ends = |known: &&String, with: &str| known.strip_suffix(with).is_some_and(|section| section.ends_with('.'));
    let (section, name) = path.split_once('.').unwrap_or(("", path));
    let whole: Vec<&String> = paths.iter().filter(|known| ends(known, path)).collect();
    let deeper = paths.iter().filter(|known| *known != path && known.starts_with(section) && ends(known, name));
    let found = if whole.is_empty() { deeper.collect() } else { whole };
    let quoted: Vec<String> = found.into_iter().map(|path| format!("`{path}`")).collect();
    (1..=3).contains(&quoted.len()).then(|| format!("; did you mean {}?", quoted.join(" or ")))
}

/// The known name most like `name`, if any is like it.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    nearest(name, known).map(|known| format!("; did you mean `{known}`?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str, settings: &[&str]) -> String {
        let settings: Vec<String> = settings.iter().map(|setting| setting.to_string()).collect();
        format!("{:#}", Recipe::parse(text, &settings).expect_err("should be refused"))
    }

    #[test]
    fn every_built_in_recipe_is_valid_and_says_what_it_is_about() {
        assert!(!BUILT_IN.is_empty());
        for (name, text) in BUILT_IN {
            let recipe = Recipe::parse(text, &[]).unwrap_or_else(|error| panic!("{name}: {error:#}"));
            assert!(!recipe.about.is_empty(), "{name}");
        }
    }

    #[test]
    fn a_resolved_recipe_parses_to_itself() {
        for (_, text) in BUILT_IN {
            let recipe = Recipe::parse(text, &[]).unwrap();
            let again = Recipe::parse(&serde_json::to_string(&recipe).unwrap(), &[]).unwrap();
            assert_eq!(recipe, again);
        }
    }

    #[test]
    fn flags_win_over_the_recipe_and_the_recipe_over_the_defaults() {
        let text = r#"{"training": {"batch_size": 4, "seed": 9}}"#;
        let recipe = Recipe::parse(text, &["training.batch_size=16".to_string()]).unwrap();
        assert_eq!((recipe.training.batch_size, recipe.training.seed, recipe.training.sequences), (16, 9, 20_000));
    }

    #[test]
    fn a_new_kind_leaves_the_fields_of_the_old_kind_behind() {
        let text = r#"{"training": {"optimizer": {"kind": "rmsprop", "momentum": 0.8, "learning_rate": 0.5}}}"#;
        let recipe = Recipe::parse(text, &["training.optimizer.kind=adam".to_string()]).unwrap();
        let optimizer = serde_json::to_value(&recipe.training.optimizer).unwrap();
        assert_eq!((optimizer["kind"].as_str(), optimizer["learning_rate"].as_f64()), (Some("adam"), Some(0.5)));
    }

    #[test]
    fn another_task_leaves_behind_what_the_recipe_says_of_the_old_one() {
        let recall = BUILT_IN.iter().find(|(name, _)| *name == "associative-recall").unwrap().1;
        let files = ["task.train=a", "task.eval=b", "evaluation.sequences=3"].map(str::to_string);
        let parts = [&files[..], &["task.kind=sequences".to_string()]].concat(); // the kind last
        let whole = [r#"task={"kind": "sequences", "train": "a", "eval": "b"}"#.to_string(), files[2].clone()];
        let [parts, whole] = [&parts[..], &whole].map(|settings| Recipe::parse(recall, settings).unwrap());
        assert_eq!(parts, whole);
        assert_eq!((parts.training.restart, parts.evaluation.sequences), (Restart::Never {}, 3));
        assert_eq!(parts.solved, Solved::of(&parts.task));
        assert_eq!(parts.model, Recipe::parse(recall, &[]).unwrap().model);
        let same = Recipe::parse(recall, &["task.kind=associative-recall".to_string()]).unwrap();
        assert_ne!(same.training.restart, Restart::Never {});
        let unnamed = r#"{"training": {"restart": {"kind": "unless"}}}"#; // copy
        let same = Recipe::parse(unnamed, &["task.kind=copy".to_string()]).unwrap();
        assert_ne!(same.training.restart, Restart::Never {});
    }

    #[test]
    fn another_file_leaves_behind_what_the_recipe_says_of_the_old_one() {
        let text = r#"{"task": {"kind": "sequences", "train": "a", "eval": "b", "train_content": "c", "eval_content": "d",
            "input_width": 2, "output_width": 3, "max_steps": 4}, "training": {"from": "e", "from_content": "f"}}"#;
        let with = |settings: &[&str]| {
            let settings: Vec<String> = settings.iter().map(|setting| setting.to_string()).collect();
            let recipe = serde_json::to_value(Recipe::parse(text, &settings).unwrap()).unwrap();
            ["/task/train_content", "/task/eval_content", "/task/max_steps", "/training/from_content"]
                .map(|path| recipe.pointer(path).unwrap().to_string())
        };
        assert_eq!(with(&[]), [r#""c""#, r#""d""#, "4", r#""f""#]);
        assert_eq!(with(&["task.train=x"]), [r#""""#, r#""d""#, "0", r#""f""#]);
        assert_eq!(with(&["task.eval=x", "training.from=y"]), [r#""c""#, r#""""#, "4", r#""""#]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_path_and_the_nearest_known_name() {
        for (text, settings, expected) in [
            (r#"{"model": {"memroy": {}}}"#, vec![], "unknown field `model.memroy`; did you mean `memory`?"),
            (r#"{"training": {"batch_size": "x"}}"#, vec![], "`training.batch_size` is \"x\", expected a whole number"),
            (r#"{"training": {"batch_size": 0}}"#, vec![], "`training.batch_size` is 0, allowed: 1 to"),
            (r#"{"training": {"batch_size": 1.5}}"#, vec![], "`training.batch_size` is 1.5, expected a whole number"),
            (r#"{"model": {"shift_range": 4}}"#, vec![], "`model.shift_range` is 4, allowed: odd"),
            (r#"{"task": {"kind": "cop"}}"#, vec![], "`task.kind` is \"cop\", allowed: copy, repeat-copy,"),
            (
                r#"{"model": {"init": {"memory": "zeros"}}}"#,
                vec![],
                "`model.init.memory` is \"zeros\", allowed: constant",
            ),
            (
                r#"{"training": {"optimizer": {"learning_rate": -1}}}"#,
                vec![],
                "`training.optimizer.learning_rate` is -1",
            ),
            (r#"{"training": 5}"#, vec![], "`training` is 5, expected an object"),
            ("[]", vec![], "a recipe is a JSON object"),
            ("{", vec![], "not valid JSON"),
            ("{}", vec!["seed"], "has no `=`"),
            ("{}", vec!["training.sede=3"], "unknown field `training.sede`; did you mean `seed`?"),
            ("{}", vec!["seed=3"], "unknown field `seed`; did you mean `training.seed`?"),
            (
                r#"{"model": {"kind": "lstm"}}"#,
                vec!["model.memory.rows=4"],
                "unknown field `model.memory`\nhint: the fields here are kind, hidden, layers",
            ),
            ("{}", vec!["training.learning_rate=3"], "; did you mean `training.optimizer.learning_rate`?"),
            (
                r#"{"memory": {"rows": 3}}"#,
                vec![],
                "unknown field `memory`; did you mean `model.memory` or `model.init.memory`?",
            ),
            ("{}", vec![r#"training={"seed": 1, "seed": 2}"#], "`--set training`: `seed` is there twice"),
            ("{}", vec!["training..seed=3"], "`training..seed` is no path"),
            ("{}", vec!["evaluation.lengths=10,20"], "expected a list of whole numbers\nhint: for instance [10,20]"),
            ("{}", vec!["training.clip=none"], "expected an object\nhint: `training.clip.kind` chooses one"),
            (r#"{"training": {"seed": 2}, "training": {}}"#, vec![], "`training` is there twice at line 1"),
            (r#"{"model": {"memory": {"rows": 1099511627776}}}"#, vec![], "`model.memory.rows`"),
            (r#"{"task": {"min_length": 5, "max_length": 4}}"#, vec![], "`task.max_length` is 4, allowed: 5 to"),
        ] {
            let message = error(text, &settings);
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    /// Asserts that docs/recipes.md names the field at a path, as `path`, `field` or `.field`, and all below it, of
    /// every kind.
    fn assert_documented(path: &str, value: &Value) {
        let page = include_str!("../../docs/recipes.md");
        let named = |name: &str| page.contains(&format!("`{name}`")) || page.contains(&format!("`.{name}`"));
        let field = path.rsplit('.').next().expect("there is a last part");
        match (field, value) {
            ("kind", Value::String(kind)) => {
                assert!(named(kind), "docs/recipes.md lacks the kind `{kind}` of `{path}`")
            }
            (_, Value::Object(fields)) => {
                for (field, value) in fields {
                    let path = [path, field].join(".");
                    let path = path.trim_start_matches('.');
                    let kinds = kinds_of(path);
                    kinds
                        .iter()
                        .chain(kinds.is_empty().then_some(value))
                        .for_each(|kind| assert_documented(path, kind));
                }
            }
            _ => assert!(path == "about" || named(field) || named(path), "docs/recipes.md lacks `{path}`"),
        }
    }

    #[test]
    fn every_field_of_every_kind_is_documented() {
        assert_documented("", &serde_json::to_value(Recipe::default()).unwrap());
    }

    #[test]
    fn a_recipe_saved_before_it_had_a_field_says_what_was_done_then() {
        for task in ["repeat-copy", "associative-recall", "priority-sort"] {
            let recipe = Recipe::parse(&format!(r#"{{"task": {{"kind": "{task}"}}}}"#), &[]).unwrap();
            let mut saved = serde_json::to_value(recipe).unwrap();
            saved["task"].as_object_mut().unwrap().remove("alike").unwrap();
            let init = saved["model"]["init"].as_object_mut().unwrap();
            for field in ["keys", "addressing", "strength"] {
                init.remove(field).unwrap();
            }
            let json = serde_json::to_value(Recipe::parse_saved(&saved.to_string(), &[]).unwrap()).unwrap();
            let init = &json["model"]["init"];
            assert_eq!(json["task"]["alike"], 0.0);
            assert_eq!(
                (&init["keys"], &init["addressing"], &init["strength"]),
                (&"independent".into(), &"free".into(), &0.0.into())
            );
        }
    }
}
