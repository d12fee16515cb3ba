//! From a name, a file and flags to a resolved recipe: what the user wrote is laid over the defaults of the kinds
//! they chose, field by field, so that every error can name the field, the source and the nearest known name.

use super::overlay::{choose_kinds, described, overlay};
use super::settings::set;
use super::suggest::{did_you_mean, paths_of};
use super::{Evaluation, Recipe, Solved};
use crate::json::Unique;
use crate::tasks;
use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use std::path::Path;

include!(concat!(env!("OUT_DIR"), "/recipes.rs")); // pub const BUILT_IN: &[(name, JSON)], all of tasks/

impl Recipe {
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
        let mut user = user_recipe(&text).with_context(|| format!("in {source}"))?;
        for setting in task_first(settings) {
            set(&mut user, setting).with_context(|| format!("in {source} with `--set {setting}`"))?;
        }
        complete(user).map_err(|error| {
            let said = format!("{error:#}");
            let says = |count: usize| Recipe::parse(&text, &settings[..count]).is_err_and(|e| format!("{e:#}") == said);
            let place = match (0..=settings.len()).find(|&count| says(count)) {
                Some(count @ 1..) => format!("in {source} with `--set {}`", settings[count - 1]),
                _ => format!("in {source}"),
            };
            error.context(place)
        })
    }

    /// Parses, completes and validates a recipe. Settings are `KEY=VALUE`, the value JSON or a bare word.
    pub fn parse(text: &str, settings: &[String]) -> Result<Recipe> {
        let mut user = user_recipe(text)?;
        for setting in task_first(settings) {
            set(&mut user, setting)?;
        }
        complete(user)
    }
}

/// What the user wrote in a file.
fn user_recipe(text: &str) -> Result<Value> {
    let text = text.trim_start_matches('\u{feff}'); // which some editors begin with
    let user: Value = serde_json::from_str(text).map_err(|error| anyhow!("not valid JSON: {error}"))?;
    serde_json::from_str::<Unique>(text)?;
    if !user.is_object() {
        bail!("a recipe is a JSON object {{...}}, this is {}", described(&user));
    }
    Ok(user)
}

/// Settings in the order in which they count: a task first, as what it leaves behind others may set.
fn task_first(settings: &[String]) -> impl Iterator<Item = &String> {
    let of_task = |setting: &&String| ["task", "task.kind"].contains(&setting.split('=').next().unwrap_or(""));
    settings.iter().filter(of_task).chain(settings.iter().filter(move |setting| !of_task(setting)))
}

/// What the user wrote, laid over the defaults and validated.
fn complete(user: Value) -> Result<Recipe> {
    let mut resolved = serde_json::to_value(Recipe::default())?;
    choose_kinds(&mut resolved, &user, "")?;
    let paths = paths_of(&resolved);
    if let Some(task) = user.get("task") {
        overlay(&mut resolved["task"], task.clone(), "task", &paths)?;
        let task: tasks::Task = serde_json::from_value(resolved["task"].clone())?;
        task.validate()?; // before others are made from its sizes
        resolved["evaluation"] = serde_json::to_value(Evaluation::of(&task))?; // its axes are those of the task
        let solved = Solved::of(&task); // and its figures
        let restart = resolved.pointer_mut("/training/restart").filter(|section| section["kind"] == "unless");
        if let (Some(restart), None) = (restart, user.pointer("/training/restart/metric")) {
            restart["metric"] = serde_json::to_value(solved.threshold.metric)?;
            restart["at_most"] = solved.threshold.at_most.into();
        }
        resolved["solved"] = serde_json::to_value(solved)?;
    }
    overlay(&mut resolved, user, "", &paths)?;
    let recipe: Recipe = serde_json::from_value(resolved)?;
    recipe.validate()?;
    Ok(recipe)
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read recipe `{path}`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Restart;
    use crate::config::overlay::{join, kinds_of};

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
        assert_eq!((parts.training.restart, parts.evaluation.sequences), (Restart::Never, 3));
        assert_eq!(parts.solved, Solved::of(&parts.task));
        assert_eq!(parts.model, Recipe::parse(recall, &[]).unwrap().model);
        let same = Recipe::parse(recall, &["task.kind=associative-recall".to_string()]).unwrap();
        assert_ne!(same.training.restart, Restart::Never);
        let unnamed = r#"{"training": {"restart": {"kind": "unless"}}}"#; // copy
        let same = Recipe::parse(unnamed, &["task.kind=copy".to_string()]).unwrap();
        assert_ne!(same.training.restart, Restart::Never);
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
            ("{}", vec![r#"training={"seed": 1, "seed": 2}"#], "`training`: `seed` appears twice"),
            ("{}", vec!["training..seed=3"], "`training..seed` is no path"),
            ("{}", vec!["evaluation.lengths=10,20"], "expected a list of whole numbers\nhint: for instance [10,20]"),
            ("{}", vec!["training.clip=none"], "expected an object\nhint: `training.clip.kind` chooses one"),
            (r#"{"training": {"seed": 2}, "training": {}}"#, vec![], "`training` appears twice at line 1"),
            (r#"{"model": {"memory": {"rows": 1099511627776}}}"#, vec![], "`model.memory.rows`"),
            (r#"{"task": {"min_length": 5, "max_length": 4}}"#, vec![], "`task.max_length` is 4, allowed: 5 to"),
        ] {
            let message = error(text, &settings);
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    /// The fields and kinds, of the value at a path and all below it, of every kind, that docs/recipes.md does not name
    /// as `path`, `field` or `.field`.
    fn undocumented(path: &str, value: &Value) -> Vec<String> {
        let page = include_str!("../../docs/recipes.md");
        let named = |name: &str| page.contains(&format!("`{name}`")) || page.contains(&format!("`.{name}`"));
        let field = path.rsplit('.').next().expect("there is a last part");
        match (field, value) {
            ("kind", Value::String(kind)) if !named(kind) => vec![format!("{path} = {kind}")],
            ("kind", Value::String(_)) => vec![],
            (_, Value::Object(fields)) => {
                let below = |(field, value): (&String, &Value)| {
                    let path = join(path, field);
                    let kinds = kinds_of(&path);
                    let values = if kinds.is_empty() { vec![value.clone()] } else { kinds };
                    values.iter().flat_map(|value| undocumented(&path, value)).collect::<Vec<_>>()
                };
                fields.iter().flat_map(below).collect()
            }
            _ if path == "about" || named(field) || named(path) => vec![],
            _ => vec![path.to_string()],
        }
    }

    #[test]
    fn a_restart_is_judged_by_what_solves_the_task_unless_it_says_otherwise() {
        let restart = |task: &str, settings: &[&str]| {
            let settings: Vec<String> = settings.iter().map(|setting| setting.to_string()).collect();
            let text = format!(r#"{{"task": {task}, "training": {{"restart": {{"kind": "unless"}}}}}}"#);
            match Recipe::parse(&text, &settings).unwrap().training.restart {
                Restart::Unless { threshold, .. } => (threshold.metric.to_string(), threshold.at_most),
                Restart::Never => unreachable!("it is set"),
            }
        };
        let own = r#"{"kind": "sequences", "train": "a", "eval": "b", "loss": "squared"}"#;
        assert_eq!(restart(own, &[]), ("squared_error".to_string(), 0.01));
        assert_eq!(restart(r#"{"kind": "ngrams"}"#, &[]), ("excess_bits".to_string(), 1.0));
        assert_eq!(restart(r#"{"kind": "copy"}"#, &[]), ("bit_errors".to_string(), 0.0));
        let metric = "training.restart.metric=loss_bits";
        assert_eq!(restart(r#"{"kind": "ngrams"}"#, &[metric]), ("loss_bits".to_string(), 0.0));
        let told = [metric, "training.restart.at_most=3"];
        assert_eq!(restart(r#"{"kind": "ngrams"}"#, &told), ("loss_bits".to_string(), 3.0));
    }

    #[test]
    fn every_field_of_every_kind_is_documented() {
        let left = undocumented("", &serde_json::to_value(Recipe::default()).unwrap());
        assert!(left.is_empty(), "docs/recipes.md lacks {left:?}");
    }

    #[test]
    fn a_recipe_saved_before_it_had_a_field_has_its_default() {
        for task in ["repeat-copy", "associative-recall", "priority-sort"] {
            let recipe = Recipe::parse(&format!(r#"{{"task": {{"kind": "{task}"}}}}"#), &[]).unwrap();
            let mut saved = serde_json::to_value(&recipe).unwrap();
            saved["task"].as_object_mut().unwrap().remove("alike").unwrap();
            saved["model"]["init"].as_object_mut().unwrap().remove("addressing").unwrap();
            assert_eq!(Recipe::parse(&saved.to_string(), &[]).unwrap(), recipe);
        }
    }
}
