use crate::cli::Plot;
use crate::plot::{LearningCurves, can_be_written, read_runs, save};
use crate::terminal::say;
use anyhow::Result;

pub fn run(flags: Plot) -> Result<()> {
    can_be_written(&flags.output, "--output")?;
    let (groups, left_out) = read_runs(&flags.runs)?;
    for words in left_out {
        say(&format!("{words}: left out"));
    }
    let curves = LearningCurves::new(&groups, &flags.metric, flags.log, flags.log_sequences)?;
    save(&curves, &flags.output)?;
    say(&format!("wrote `{}`", flags.output.display()));
    Ok(())
}
