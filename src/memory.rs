//! Whether this machine has the memory for a recipe.

use crate::config::Recipe;
use anyhow::{Result, bail};
use std::fs;
use std::path::Path;

/// Refuses by arithmetic what this machine cannot train: the weights and what is kept beside each of them (gradient,
/// optimizer, averages, a checkpoint that is written), and `activations` values, of each of `runs` runs in each of
/// `processes` processes.
pub fn check(recipe: &Recipe, runs: usize, processes: usize, activations: u128) -> Result<()> {
    let weights = recipe.network().size();
    let bytes = 4 * (weights * 8 + activations) * (runs * processes) as u128;
    let available = available();
    if bytes <= available {
        return Ok(());
    }
    let mut what = format!("up to {weights} weights, {} sequences", recipe.training.batch_size);
    what += &format!(" of up to {} steps", recipe.task.max_steps());
    let mut cures = "make `model.memory`, `training.batch_size` or the task's lengths smaller".to_string();
    if runs > 1 {
        what += &format!(", {runs} runs at a time");
        cures += ", or `--jobs`";
    }
    if processes > 1 {
        what += &format!(", {processes} processes");
    }
    bail!(
        "an update of this recipe would need about {} of memory, {} are available ({what})\n\
         hint: {cures}",
        gigabytes(bytes),
        gigabytes(available)
    )
}

fn gigabytes(bytes: u128) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

/// The bytes that this process can still get: what the machine has, or less where a container or a job is limited. A
/// terabyte where neither is told.
fn available() -> u128 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| kilobytes(&text)).unwrap_or(1 << 40);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    machine.min(left_in_groups(Path::new("/sys/fs/cgroup"), &groups).unwrap_or(u128::MAX))
}

/// `MemAvailable` of /proc/meminfo, in bytes.
fn kilobytes(text: &str) -> Option<u128> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u128>().ok()? * 1024)
}

/// The least that the control group of a process (version 2) and those around it have left, by /proc/self/cgroup. What
/// their file cache holds can be had.
fn left_in_groups(root: &Path, text: &str) -> Option<u128> {
    let group = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let left = |folder: &Path| -> Option<u128> {
        let number = |file: &str| fs::read_to_string(folder.join(file)).ok()?.trim().parse::<u128>().ok();
        let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let cache = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.parse::<u128>().ok());
        Some(number("memory.max")?.saturating_sub(number("memory.current")?) + cache.unwrap_or(0))
    };
    root.join(group).ancestors().take_while(|folder| folder.starts_with(root)).filter_map(left).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_control_group_around_a_process_counts() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("job/step");
        fs::create_dir_all(&inner).unwrap();
        let limit = |folder: &Path, most: &str, current: &str, stat: &str| {
            for (file, text) in [("memory.max", most), ("memory.current", current), ("memory.stat", stat)] {
                fs::write(folder.join(file), text).unwrap();
            }
        };
        let left = |text| left_in_groups(root.path(), text);
        assert_eq!(left("0::/job/step\n"), None, "no limits at all");
        limit(&inner, "max\n", "600\n", "");
        limit(&root.path().join("job"), "1000\n", "700\n", "anon 500\ninactive_file 150\n");
        assert_eq!(left("1:name=x:/\n0::/job/step\n"), Some(450));
        limit(&inner, "500\n", "600\n", "inactive_file 20\n");
        assert_eq!(left("0::/job/step\n"), Some(20), "more in use than allowed");
        assert_eq!(left("0::/\n"), None);
        assert_eq!(left("4:memory:/job\n"), None, "version 1");
    }

    #[test]
    fn the_machine_tells_what_it_has() {
        assert_eq!(kilobytes("MemTotal:  9 kB\nMemAvailable:   21000 kB\n"), Some(21_504_000));
        assert_eq!(kilobytes("MemTotal:  9 kB\n"), None);
    }
}
