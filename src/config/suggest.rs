//! What the user may have meant.

use super::overlay::join;
use serde_json::Value;

/// The paths of all fields and sections of a recipe.
pub fn paths_of(recipe: &Value) -> Vec<String> {
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
pub fn elsewhere(path: &str, paths: &[String]) -> Option<String> {
    let ends = |known: &&String, with: &str| known.strip_suffix(with).is_some_and(|section| section.ends_with('.'));
    let (section, name) = path.split_once('.').unwrap_or(("", path));
    let whole: Vec<&String> = paths.iter().filter(|known| ends(known, path)).collect();
    let deeper = paths.iter().filter(|known| *known != path && known.starts_with(section) && ends(known, name));
    let found = if whole.is_empty() { deeper.collect() } else { whole };
    let quoted: Vec<String> = found.into_iter().map(|path| format!("`{path}`")).collect();
    (1..=3).contains(&quoted.len()).then(|| format!("; did you mean {}?", quoted.join(" or ")))
}

/// Asks whether the known name most like `name` was meant; empty if none is like it.
pub fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    known
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| format!("; did you mean `{known}`?"))
        .unwrap_or_default()
}
