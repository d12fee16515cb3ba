//! `ntm plot`: learning curves of runs and studies.

use crate::cli::Plot;
use crate::files::can_be_written;
use crate::plot::{LearningCurves, read_runs, save};
use crate::terminal::say;
use anyhow::Result;

pub fn run(flags: Plot) -> Result<()> {
    can_be_written(&flags.output, "--output")?;
    let (groups, unread) = read_runs(&flags.runs)?;
    let (curves, undrawn) = LearningCurves::new(&groups, flags.metric.as_deref(), flags.log, flags.log_sequences)?;
    for words in unread.iter().chain(&undrawn) {
        say(&format!("{words}: left out"));
    }
    save(&curves, &flags.output)?;
    say(&format!("wrote `{}`", flags.output.display()));
    Ok(())
}
