//! Runs to compare: their metrics, and which of them differ in nothing but the seed.

use crate::config::Recipe;
use crate::run::{EVALUATIONS, Evaluation, METRICS, RECIPE, Run};
use crate::study::Study;
use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Runs of one recipe, of a seed each.
pub struct Group {
    pub name: String,
    pub runs: Vec<Logged>,
    recipe: Value,
    seeds: Vec<String>,
}

/// What a run has logged.
pub struct Logged {
    /// Objects with `sequences` and some metrics: reports, and evaluations, whose metrics have TensorBoard's names.
    pub reports: Vec<Map<String, Value>>,
    /// Whether it has come to its end, which may be where it was solved.
    pub ended: bool,
}

/// The runs in these directories, or in the directories and studies in them, each once, in groups; and what was left
/// out, in words.
pub fn read_runs(directories: &[PathBuf]) -> Result<(Vec<Group>, Vec<String>)> {
    let (mut groups, mut left_out, mut seen) = (Vec::<Group>::new(), vec![], HashSet::new());
    for directory in directories {
        for run in runs_in(directory)? {
            if !seen.insert(run.canonicalize().unwrap_or(run.clone())) {
                continue;
            }
            let shown = run.display();
            let (recipe, seed) = read_recipe(&run.join(RECIPE))?;
            let mut reports: Vec<Map<String, Value>> = read_lines(&run.join(METRICS))?;
            if reports.is_empty() {
                left_out.push(format!("`{shown}` has no report yet"));
                continue;
            }
            let batch = recipe["training"]["batch_size"].as_u64().unwrap_or(1);
            for report in &mut reports {
                report.entry("restarts").or_insert(0.into()); // which a report leaves out
            }
            reports.extend(read_lines(&run.join(EVALUATIONS))?.iter().map(|evaluation| as_report(evaluation, batch)));
            let ended = Run::latest_of(&run).is_ok_and(|checkpoint| checkpoint.ended());
            let logged = Logged { reports, ended };
            match groups.iter_mut().find(|group| group.recipe == recipe) {
                Some(group) if group.seeds.contains(&seed) => {
                    left_out.push(format!("`{shown}` is seed {seed} of `{}` again", group.name));
                }
                Some(group) => {
                    group.runs.push(logged);
                    group.seeds.push(seed);
                }
                None => {
                    let short = name(&run, &seed);
                    let taken = groups.iter().any(|group| group.name == short);
                    let name = if taken { name(&run, "") } else { short };
                    groups.push(Group { name, runs: vec![logged], recipe, seeds: vec![seed] });
                }
            }
        }
    }
    if groups.is_empty() {
        bail!("{}\nhint: a run reports every `training.report_every` updates", left_out.join(", "));
    }
    Ok((groups, left_out))
}

/// A directory that holds a run, or those in it and in its studies that do, in the order of their names.
fn runs_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let is_run = |path: &Path| path.join(RECIPE).exists();
    if is_run(directory) {
        return Ok(vec![directory.to_path_buf()]);
    }
    let mut runs = vec![];
    for entry in entries(directory)? {
        if is_run(&entry) {
            runs.push(entry);
        } else if Study::is_in(&entry) {
            runs.extend(entries(&entry)?.into_iter().filter(|path| is_run(path)));
        }
    }
    if runs.is_empty() {
        bail!(
            "`{}` holds no run\nhint: name a run directory of `ntm train`, or a directory with some in it",
            directory.display()
        );
    }
    Ok(runs)
}

/// What is in a directory, in the order of their names, in which 4 comes before 10.
fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let read = fs::read_dir(directory).with_context(|| format!("cannot read directory `{}`", directory.display()))?;
    let mut entries: Vec<PathBuf> = read.filter_map(|entry| Some(entry.ok()?.path())).collect();
    entries.sort_by_cached_key(|path| counted(&path.to_string_lossy()));
    Ok(entries)
}

/// A name to be sorted by: the length of each number in it stands before the number.
fn counted(name: &str) -> String {
    let digit = |a: char, b: char| a.is_ascii_digit() == b.is_ascii_digit();
    let parts = name.as_bytes().chunk_by(|a, b| digit(*a as char, *b as char)).map(String::from_utf8_lossy);
    let number = |part: &str| part.starts_with(|first: char| first.is_ascii_digit());
    parts.map(|part| if number(&part) { format!("{:03}{part}", part.len()) } else { part.to_string() }).collect()
}

/// A recipe without its seed, and the seed. One of an earlier version has the fields that it did not know.
fn read_recipe(path: &Path) -> Result<(Value, String)> {
    let text = read(path)?;
    let recipe = Recipe::parse_saved(&text, &[]).with_context(|| format!("in `{}`", path.display()))?;
    let mut recipe = serde_json::to_value(recipe)?;
    let seed = recipe.get_mut("training").and_then(|training| training.as_object_mut()?.remove("seed"));
    Ok((recipe, seed.map_or(String::new(), |seed| seed.to_string())))
}

/// The name of a run's directory without its seed: that of the recipe, unless the user named it otherwise. Of a run of
/// a seed study, the name of the study.
fn name(run: &Path, seed: &str) -> String {
    let run = run.canonicalize().unwrap_or(run.to_path_buf());
    let named = run.parent().filter(|parent| Study::is_in(parent)).unwrap_or(&run);
    let name = named.file_name().map_or(String::new(), |name| name.to_string_lossy().to_string());
    match name.strip_suffix(seed).and_then(|name| name.strip_suffix('-')) {
        Some(recipe) if !recipe.is_empty() && !seed.is_empty() => recipe.to_string(),
        _ => name,
    }
}

/// The objects of a log; of a run that goes on, the last line may be half written.
fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    if !path.exists() {
        return Ok(vec![]);
    }
    let text = read(path)?;
    let mut reports = vec![];
    for (index, line) in text.split_inclusive('\n').enumerate() {
        match serde_json::from_str(line) {
            Ok(report) => reports.push(report),
            Err(_) if !line.ends_with('\n') => {}
            Err(error) => bail!("`{}`, line {}: {error}", path.display(), index + 1),
        }
    }
    Ok(reports)
}

/// An evaluation of a run with this batch size.
fn as_report(evaluation: &Evaluation, batch: u64) -> Map<String, Value> {
    let sequences = evaluation.sequences.unwrap_or(evaluation.step * batch);
    let named = |(group, means): (String, Vec<(&str, f64)>)| {
        means.into_iter().map(move |(name, mean)| (format!("{group}/{name}"), Value::from(mean))).collect::<Vec<_>>()
    };
    evaluation.scalars().flat_map(named).chain([("sequences".to_string(), sequences.into())]).collect()
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_order_of_their_numbers() {
        let mut names = ["width-10", "width-4", "a", "width-4b", "10", "9"];
        names.sort_by_cached_key(|name| counted(name));
        assert_eq!(names, ["9", "10", "a", "width-4", "width-4b", "width-10"]);
    }

    #[test]
    fn a_group_is_named_as_its_runs_without_their_seeds() {
        for (directory, seed, expected) in [
            ("runs/copy-12", "12", "copy"),
            ("runs/copy-12", "2", "copy-12"),
            ("runs/copy-12", "", "copy-12"),
            ("try", "1", "try"),
            ("-1", "1", "-1"),
        ] {
            assert_eq!(name(Path::new(directory), seed), expected, "{directory} {seed}");
        }
    }
}
