//! What the flags of `ntm train` mean: a recipe, its sequences, weights to begin with, a directory.

use super::{checkpoint_file, resize, too_few_rows};
use crate::checkpoint::{Checkpoint, bytes};
use crate::cli::{self, Train};
use crate::config::{OnNonfinite, Recipe};
use crate::model::{Config, Init, NtmConfig, WeightingStart};
use crate::tasks::{Source, Task, points};
use crate::terminal::{say, shell_path};
use anyhow::{Context, Error, Result, anyhow, bail};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// A recipe, and what it names.
pub struct Resolved {
    pub recipe: Recipe,
    pub source: Source,
    /// To begin with; none where they are drawn.
    pub weights: Option<Vec<f32>>,
}

/// The recipe that the flags make.
pub fn resolve_recipe(flags: &Train) -> Result<Resolved> {
    let mut settings = flags.set.clone();
    settings.extend(flags.seed.map(|seed| format!("training.seed={seed}")));
    if let Some(from) = &flags.from {
        let from = from.to_str().with_context(|| format!("`--from {}` is not UTF-8", from.display()))?;
        settings.push(format!("training.from={}", json!(from)));
    }
    let mut recipe = Recipe::load(&flags.recipe, &settings)?;
    apply_flags_of_resume(&mut recipe, flags)?;
    if !recipe.training.from.is_empty() {
        let from = std::path::absolute(&recipe.training.from).context("in `training.from`")?;
        recipe.training.from = from.display().to_string();
    }
    let source = Source::open(&recipe.task)?;
    recipe.task = source.task.clone();
    recipe.validate()?;
    source.check(&points(&recipe.evaluation.grid)).with_context(|| in_recipe(flags))?;
    let weights = initial_weights(&recipe)?;
    recipe.training.from_content = weights.as_deref().map(content).unwrap_or_default();
    Ok(Resolved { recipe, source, weights })
}

/// The weights that a new run of a recipe begins with; none where they are drawn. Refuses others than the recipe was
/// resolved with.
pub fn initial_weights(recipe: &Recipe) -> Result<Option<Vec<f32>>> {
    let from = &recipe.training.from;
    if from.is_empty() {
        return Ok(None);
    }
    let loaded = checkpoint_file(Path::new(from), false).and_then(|file| Checkpoint::load(&file));
    let mut other = loaded.context("in `training.from`")?;
    if let (Config::Ntm(wanted), Config::Ntm(found)) = (&recipe.model, &other.recipe.model) {
        for ((field, wanted), (_, found)) in fixed(wanted).into_iter().zip(fixed(found)) {
            if let (Some(wanted), Some(found)) = (wanted, found)
                && wanted != found
            {
                bail!(
                    "`{from}` is another network: its `model.{field}` is {found}, this recipe's {wanted}\n\
                     hint: `--set model.{field}={found}`"
                );
            }
        }
        resize(&mut other, wanted.memory.rows).with_context(|| format!("the weights of `{from}`"))?;
    }
    let [wanted, found] = [recipe, &other.recipe].map(|recipe| {
        let shapes = recipe.layout().parameters.into_iter().map(|parameter| (parameter.name, parameter.shape));
        shapes.collect::<BTreeMap<String, Vec<usize>>>()
    });
    if let Some(name) = wanted.keys().chain(found.keys()).find(|name| wanted.get(*name) != found.get(*name)) {
        let found = found.get(name).map_or(format!("it has no `{name}`"), |shape| format!("its `{name}` is {shape:?}"));
        let wanted = wanted.get(name).map_or("has none".to_string(), |shape| format!("asks for {shape:?}"));
        bail!(
            "`{from}` is another network: {found}, this recipe {wanted}\n\
             hint: the task's widths and `model` must match the checkpoint's, except `model.memory.rows`"
        );
    }
    let (now, then) = (content(&other.theta), &recipe.training.from_content);
    if !then.is_empty() && now != *then {
        bail!(
            "`{from}` has other weights than when this recipe was written: {now}, it was {then}\n\
             hint: put the file back; or begin a new run or study with what it holds now: `--from {}`",
            shell_path(Path::new(from))
        );
    }
    Ok(Some(other.theta))
}

/// Fields that make another function of the same weights, and the words they have; none where what they choose is a
/// weight, too.
fn fixed(ntm: &NtmConfig) -> [(&'static str, Option<String>); 3] {
    // no `..`: a new field may have to be here; a weight shows its sizes by itself, and the first draws of it are gone
    let NtmConfig { activation, init, controller: _, memory: _, read_heads: _, write_heads: _, shift_range: _ } = ntm;
    let Init { weighting, memory: _, keys: _, addressing: _, strength: _ } = init;
    let word = |choice: Value| choice.as_str().map(str::to_string);
    let weighting = match weighting {
        WeightingStart::Learned | WeightingStart::LearnedRandom => None,
        start => word(json!(start)),
    };
    let [key, add] = [activation.key, activation.add].map(|activation| word(json!(activation)));
    [("activation.key", key), ("activation.add", add), ("init.weighting", weighting)]
}

/// A checksum of weights, in words: by it a recipe knows them again.
fn content(weights: &[f32]) -> String {
    format!("checksum {:08x}", checksum(weights))
}

pub fn checksum(weights: &[f32]) -> u32 {
    crc32fast::hash(bytes(weights))
}

/// Where something is wrong.
pub fn in_recipe(flags: &Train) -> String {
    match &flags.resume {
        None => format!("in recipe `{}`", flags.recipe),
        Some(directory) => format!("in the recipe of `{}`", directory.display()),
    }
}

/// Applies the flags that `--resume` allows, too.
pub fn apply_flags_of_resume(recipe: &mut Recipe, flags: &Train) -> Result<()> {
    let training = &mut recipe.training;
    if let Some(choice) = flags.on_nonfinite {
        training.on_nonfinite = match choice {
            cli::OnNonfinite::Stop => OnNonfinite::Stop,
            cli::OnNonfinite::Rollback if training.on_nonfinite.rollbacks() > 0 => training.on_nonfinite.clone(),
            cli::OnNonfinite::Rollback => OnNonfinite::Rollback { at_most: OnNonfinite::ROLLBACKS },
        };
    }
    if let Some(sequences) = flags.sequences {
        training.sequences = sequences;
        recipe.validate().with_context(|| format!("`--sequences {sequences}`"))?;
    }
    Ok(())
}

/// Where a run goes: as told, or `runs/<recipe>-<suffix>`.
pub fn run_directory(flags: &Train, suffix: &str) -> PathBuf {
    let name = PathBuf::from(&flags.recipe).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    flags.run_dir.clone().unwrap_or_else(|| PathBuf::from(format!("runs/{name}-{suffix}")))
}

/// What the ranks of a group must have been asked alike.
pub fn asked_alike(flags: &Train, asked: &Option<Resolved>) -> Value {
    let recipe = asked.as_ref().map(|asked| &asked.recipe);
    let rollback = flags.on_nonfinite.map(|choice| choice == cli::OnNonfinite::Rollback);
    json!({ "sequences": flags.sequences, "rollback": rollback, "recipe": recipe })
}

/// Tells where the longest training sequences of a run, or else its evaluations, ask for more than its memory holds.
pub fn say_of_rows(recipe: &Recipe, source: &mut Source) -> Result<()> {
    let (axes, seed) = (recipe.task.axes(), recipe.training.seed);
    let longest = recipe.task.longest();
    if let Some(words) = too_few_rows(recipe, &[longest], source, seed)? {
        say(&format!("training draws up to {words}; see `model.memory.rows`"));
    } else if let Some(words) = too_few_rows(recipe, &points(&recipe.evaluation.grid), source, seed)? {
        let fields: Vec<String> = axes.iter().map(|axis| format!("`evaluation.{}`", axis.axis.plural())).collect();
        say(&format!("{words}; see {}", fields.join(", ")));
    }
    Ok(())
}

/// The sequences of a recipe: those that have been `read`, or opened now. `run`: the one that is to go on, if there is.
pub fn sequences(recipe: &Recipe, read: Option<Source>, run: Option<&Path>) -> Result<Source> {
    let source = read.map_or_else(|| Source::open(&recipe.task), Ok);
    source.map_err(|error| with_moved_file_hint(error, recipe, run))
}

/// Adds what to do where a data file of a run that is to go on cannot be read.
fn with_moved_file_hint(error: Error, recipe: &Recipe, run: Option<&Path>) -> Error {
    let (Some(run), Task::Sequences(task)) = (run, &recipe.task) else { return error };
    if [&task.train, &task.eval].iter().all(|path| File::open(path).is_ok()) {
        return error;
    }
    let run = shell_path(run);
    anyhow!(
        "{error:#}\nhint: put it back; or begin a new run with the weights of this one: `ntm train {run}/recipe.json --from {run} \
         --set task.train=FILE --set task.eval=FILE --run-dir DIR`"
    )
}
