//! `ntm info`: the recipes, one of them, a sequence of its task, or what is in a checkpoint.

use super::{grid, machine_at, usage};
use crate::cli::Info;
use crate::config::{BUILT_IN, Recipe};
use crate::progress::Progress;
use crate::tasks::{Source, picture, points};
use crate::terminal::{heading, print, terminal_columns};
use anyhow::Result;
use serde_json::{Value, json};
use std::fmt::Write;

pub fn run(flags: Info) -> Result<()> {
    let mut text = String::new();
    if let (true, Some(name)) = (flags.sample, &flags.recipe) {
        return print(&sample(name, &flags)?);
    }
    if flags.axes.given().next().is_some() {
        return usage("axes only shape a sample\nhint: add --sample");
    }
    match (&flags.recipe, &flags.checkpoint) {
        (None, None) => list(flags.json, &mut text),
        (Some(name), _) => describe(&resolved(name, &flags.set)?, None, flags.json, &mut text),
        (None, Some(path)) => {
            let (_, checkpoint) = machine_at(path, flags.latest)?;
            describe(&checkpoint.recipe, Some(&checkpoint.progress), flags.json, &mut text)
        }
    }?;
    print(&text)
}

/// A recipe, with what the files of its task hold.
fn resolved(name: &str, settings: &[String]) -> Result<Recipe> {
    let mut recipe = Recipe::load(name, settings)?;
    recipe.task = Source::open(&recipe.task)?.task;
    Ok(recipe)
}

/// A sequence for each point that the flags name, drawn as rows of text.
fn sample(name: &str, flags: &Info) -> Result<String> {
    let mut source = Source::open(&Recipe::load(name, &flags.set)?.task)?;
    let task = source.task.clone();
    let small = task.axes().iter().map(|axis| (axis.axis, vec![axis.sample])).collect();
    let mut text = String::new();
    let points = points(&grid(&flags.axes, &task, small)?);
    source.check(&points)?;
    for point in points {
        let batch = source.evaluation_batch(flags.seed, &point, 0, 1)?;
        let point = if point.to_string().is_empty() { "first sequence".to_string() } else { point.to_string() };
        writeln!(text, "{}, {point}, {} steps\n\n{}", task.name(), batch.steps, picture(&task, &batch))?;
    }
    Ok(text)
}

fn list(as_json: bool, out: &mut String) -> Result<()> {
    let mut recipes = vec![];
    for (name, text) in BUILT_IN {
        let recipe = Recipe::parse(text, &[])?;
        recipes.push((name, recipe.layout().size(), recipe.about));
    }
    if as_json {
        let object = |(name, weights, about)| json!({ "name": name, "parameters": weights, "about": about });
        let recipes: Vec<Value> = recipes.into_iter().map(object).collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&recipes)?)?;
        return Ok(());
    }
    out.push_str(&heading(&format!("{:<30}  {:>8}  about (more: ntm info NAME)", "recipe", "weights")));
    for (name, weights, about) in recipes {
        let mut left = format!("{name:<30}  {weights:>8}  ");
        let room = terminal_columns(std::io::stdout())
            .map_or(usize::MAX, |columns| columns.saturating_sub(left.len()).max(24));
        let first_sentence = about.split_inclusive(". ").next().unwrap_or_default();
        for line in wrapped(first_sentence, room) {
            writeln!(out, "{left}{line}")?;
            left = " ".repeat(left.len());
        }
    }
    Ok(())
}

/// Lines of at most so many characters, unless a word is longer.
fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= room => *line += &format!(" {word}"),
            _ => lines.push(word.to_string()),
        }
    }
    lines
}

fn describe(recipe: &Recipe, progress: Option<&Progress>, as_json: bool, out: &mut String) -> Result<()> {
    let layout = recipe.layout();
    if as_json {
        let tensors: Vec<Value> = layout
            .parameters
            .iter()
            .map(|parameter| json!({ "name": parameter.name, "shape": parameter.shape, "learned": parameter.learned }))
            .collect();
        let description =
            json!({ "recipe": recipe, "progress": progress, "parameters": layout.size(), "tensors": tensors });
        writeln!(out, "{}", serde_json::to_string_pretty(&description)?)?;
        return Ok(());
    }
    writeln!(out, "{}\n", serde_json::to_string_pretty(recipe)?)?;
    if let Some(progress) = progress {
        writeln!(
            out,
            "trained: {} sequences in {} updates, {:.1} s",
            progress.sequences, progress.step, progress.seconds
        )?;
        if progress.restarts > 0 {
            writeln!(out, "begun anew: {} times, {} updates since", progress.restarts, progress.step_of_start())?;
        }
        if let Some(best) = &progress.best {
            writeln!(out, "best evaluation: at update {}", best.step)?;
        }
    }
    writeln!(out, "input width {}, output width {}\n", recipe.task.input_width(), recipe.task.output_width())?;
    out.push_str(&heading(&format!("{:<28} {:<14} {:>9}", "tensor", "shape", "values")));
    for parameter in &layout.parameters {
        writeln!(out, "{:<28} {:<14} {:>9}", parameter.name, format!("{:?}", parameter.shape), parameter.len())?;
    }
    writeln!(out, "{:<28} {:<14} {:>9}", "all", "", layout.size())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn text_is_wrapped_between_words_and_a_long_word_has_a_line_to_itself() {
        assert_eq!(wrapped("a bc  def ghijklmnop q", 6), ["a bc", "def", "ghijklmnop", "q"]);
        assert_eq!(wrapped("a bc def", usize::MAX), ["a bc def"]);
        assert_eq!(wrapped("", 6), [""]);
    }
}
