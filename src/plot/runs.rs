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
    /// The directory of the first of them.
    first: PathBuf,
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
/// out, in words. A run that is named itself must be readable.
pub fn read_runs(directories: &[PathBuf]) -> Result<(Vec<Group>, Vec<String>)> {
    let (mut groups, mut left_out, mut seen) = (Vec::<Group>::new(), vec![], HashSet::new());
    let mut waits = false;
    for directory in directories {
        for run in runs_in(directory)? {
            if !seen.insert(run.canonicalize().unwrap_or(run.clone())) {
                continue;
            }
            let shown = run.display();
            let read = read_recipe(&run.join(RECIPE)).and_then(|(recipe, seed)| Ok((read_log(&run)?, recipe, seed)));
            let (logged, recipe, seed) = match read {
                Err(error) if run != *directory => {
                    let error = format!("{error:#}");
                    left_out.push(error.split("\nhint:").next().unwrap_or(&error).to_string());
                    continue;
                }
                read => read?,
            };
            if logged.reports.is_empty() {
                left_out.push(format!("`{shown}` has no report yet"));
                waits = true;
                continue;
            }
            match groups.iter_mut().find(|group| group.recipe == recipe) {
                Some(group) if group.seeds.contains(&seed) => {
                    left_out.push(format!(
                        "`{shown}` has the recipe of `{}`, and seed {seed} again",
                        group.first.display()
                    ));
                }
                Some(group) => {
                    group.runs.push(logged);
                    group.seeds.push(seed);
                }
                None => {
                    let (name, runs, first) = (String::new(), vec![logged], run);
                    groups.push(Group { name, runs, first, recipe, seeds: vec![seed] });
                }
            }
        }
    }
    if groups.is_empty() {
        let hint = if waits { "\nhint: a run reports every `training.report_every` updates" } else { "" };
        bail!("{}{hint}", left_out.join(", "));
    }
    let first = |group: &Group| (group.first.clone(), group.seeds[0].clone(), group.runs.len());
    let names = names(&groups.iter().map(first).collect::<Vec<_>>());
    for (group, name) in groups.iter_mut().zip(names) {
        group.name = name;
    }
    Ok((groups, left_out))
}

/// A directory that holds a run, or those in it and in its studies that do, in the order of their names.
fn runs_in(directory: &Path) -> Result<Vec<PathBuf>> {
    if directory.is_file() {
        bail!("`{}` is a file\nhint: name the directory of a run, or one with runs in it", directory.display());
    }
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
    let entries = read.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>();
    let mut entries = entries.with_context(|| format!("cannot read directory `{}`", directory.display()))?;
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

/// What the run in a directory has logged.
fn read_log(run: &Path) -> Result<Logged> {
    let mut reports: Vec<Map<String, Value>> = read_lines(&run.join(METRICS))?;
    for report in &mut reports {
        report.entry("restarts").or_insert(0.into()); // which a report leaves out
    }
    if reports.is_empty() {
        return Ok(Logged { reports, ended: false });
    }
    reports.extend(read_lines(&run.join(EVALUATIONS))?.iter().map(as_report));
    let ended = Run::latest_of(run).is_ok_and(|latest| latest.ended()); // its logs can be drawn without a checkpoint
    Ok(Logged { reports, ended })
}

/// A recipe without its seed, and the seed.
fn read_recipe(path: &Path) -> Result<(Value, String)> {
    let text = read(path)?;
    let recipe = Recipe::parse(&text, &[]).with_context(|| format!("in `{}`", path.display()))?;
    let mut recipe = serde_json::to_value(recipe)?;
    let seed = recipe.get_mut("training").and_then(|training| training.as_object_mut()?.remove("seed"));
    Ok((recipe, seed.map_or(String::new(), |seed| seed.to_string())))
}

/// Names for groups by the directory and seed of the first of so many runs: the directory's name without the seed, or
/// that of the study it is in. Where two would be alike, more of the path.
fn names(groups: &[(PathBuf, String, usize)]) -> Vec<String> {
    let wholes = || groups.iter().map(|(run, ..)| run.canonicalize().unwrap_or(run.clone()));
    let study = |run: PathBuf| run.parent().filter(|parent| Study::is_in(parent)).map(Path::to_path_buf);
    let studies: Vec<Option<PathBuf>> = wholes().map(study).collect();
    let alone = |study: &Option<PathBuf>| studies.iter().filter(|other| *other == study).count() == 1;
    let of_study = |(run, study): (PathBuf, &Option<PathBuf>)| study.clone().filter(|_| alone(study)).unwrap_or(run);
    let paths: Vec<PathBuf> = wholes().zip(&studies).map(of_study).collect();
    let named = |path: &Path| path.file_name().map_or(String::new(), |name| name.to_string_lossy().to_string());
    let whole: Vec<String> = paths.iter().map(|path| named(path)).collect();
    // without its seed, unless the seed is the number of one of several, as in rate-1 and rate-2
    let short = |(name, (_, seed, runs)): (&String, &(PathBuf, String, usize))| {
        let stem = name.strip_suffix(seed.as_str()).and_then(|name| name.strip_suffix('-'));
        let number = |other: &String, stem: &str| {
            let number = other.strip_prefix(stem).and_then(|rest| rest.strip_prefix('-'));
            other != name && number.is_some_and(|number| number.parse::<u64>().is_ok())
        };
        let of_several = |stem: &str| *runs == 1 && whole.iter().any(|other| number(other, stem));
        let plain = |stem: &&str| !stem.is_empty() && !seed.is_empty() && !of_several(stem);
        stem.filter(plain).unwrap_or(name).to_string()
    };
    let shorts: Vec<String> = whole.iter().zip(groups).map(short).collect();
    let mut names: Vec<Option<String>> = vec![None; paths.len()];
    let longest = paths.iter().map(|path| path.components().count()).max().unwrap_or(1);
    for parents in 0..longest {
        let tail = |(path, short): (&PathBuf, &String)| {
            let above: Vec<String> = path.ancestors().skip(1).take(parents).map(named).collect();
            above.into_iter().rev().chain([short.clone()]).collect::<Vec<_>>().join("/")
        };
        let tails: Vec<String> = paths.iter().zip(&shorts).map(tail).collect();
        for (name, tail) in names.iter_mut().zip(&tails).filter(|(name, _)| name.is_none()) {
            *name = Some(tail.clone()).filter(|tail| tails.iter().filter(|other| *other == tail).count() == 1);
        }
    }
    names.into_iter().zip(whole).map(|(name, whole)| name.unwrap_or(whole)).collect()
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

fn as_report(evaluation: &Evaluation) -> Map<String, Value> {
    let named = |(group, means): (String, Vec<(&str, f64)>)| {
        means.into_iter().map(move |(name, mean)| (format!("{group}/{name}"), Value::from(mean))).collect::<Vec<_>>()
    };
    evaluation.scalars().flat_map(named).chain([("sequences".to_string(), evaluation.sequences.into())]).collect()
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
    fn a_group_is_named_as_its_runs_without_their_seeds_and_no_two_alike() {
        for (firsts, expected) in [
            (&[("runs/copy-12", "12")][..], &["copy"][..]),
            (&[("runs/copy-12", "2")], &["copy-12"]),
            (&[("try", "1")], &["try"]),
            (&[("-1", "1")], &["-1"]),
            (&[("rate-1", "1"), ("rate-2", "1"), ("rate-3", "1")], &["rate-1", "rate-2", "rate-3"]),
            (&[("runs/copy-1", "1"), ("runs/ngrams-1", "1")], &["copy", "ngrams"]),
            (&[("a/copy-1", "1"), ("b/copy-1", "1")], &["a/copy", "b/copy"]),
            (&[("a/x/copy-1", "1"), ("b/x/copy-1", "1"), ("ngrams-1", "1")], &["a/x/copy", "b/x/copy", "ngrams"]),
        ] {
            let group = |(run, seed): &(&str, &str)| (PathBuf::from(run), seed.to_string(), 1);
            assert_eq!(names(&firsts.iter().map(group).collect::<Vec<_>>()), expected);
        }
        let several = |run: &str, seed: &str| (PathBuf::from(run), seed.to_string(), 2);
        assert_eq!(names(&[several("runs/copy-1", "1"), several("runs/copy-3", "3")]), ["copy-1", "copy-3"]);
    }
}
