//! Whether this machine has the memory for a recipe.

use super::Recipe;
use anyhow::{Result, bail};

impl Recipe {
    /// Refuses by arithmetic what this machine cannot train: the weights and what is kept beside each of them, and
    /// `activations` values, of each of `runs` runs in each of `processes` processes.
    pub fn check_memory(&self, runs: usize, processes: usize, activations: u128) -> Result<()> {
        let weights = self.network().size();
        let bytes = 4 * (weights * 8 + activations) * (runs * processes) as u128;
        let available = available_memory();
        if bytes <= available {
            return Ok(());
        }
        let mut what = format!("up to {weights} weights, {} sequences", self.training.batch_size);
        what += &format!(" of up to {} steps", self.task.max_steps());
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
}

fn gigabytes(bytes: u128) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

/// The bytes this machine can still give, where it tells; else a terabyte.
fn available_memory() -> u128 {
    let told = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.trim().strip_suffix(" kB")?.parse::<u128>().ok()
    });
    told.map_or(1 << 40, |kilobytes| kilobytes * 1024)
}
