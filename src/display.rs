//! What training shows on stderr: a bar on a terminal, a line per report elsewhere.

use crate::metrics::{Report, Score};
use anyhow::{Context, Result};
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// A line to stderr. A closed stderr is no reason to end a run, and `eprintln!` would panic.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Data to stdout. Fails, rather than panics, where stdout cannot be written.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to stdout")
}

pub struct Display {
    bar: Option<ProgressBar>,
    total: u64,
}

impl Display {
    /// For a run of `total` sequences, `done` of them behind it.
    pub fn new(total: u64, done: u64) -> Display {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total).with_position(done);
            bar.set_style(
                ProgressStyle::with_template("{bar:30} {human_pos}/{human_len} sequences, {eta} left  {msg}")
                    .expect("a fixed template"),
            );
            bar.reset_eta();
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Display { bar, total }
    }

    pub fn tick(&self, sequences: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(sequences);
        }
    }

    pub fn report(&self, report: &Report) {
        let Report { sequences, figures, sequences_per_second: rate, .. } = report;
        let figures = format!("{}, {rate:.0} sequences/s", figures.said());
        match &self.bar {
            Some(bar) => bar.set_message(figures),
            None => {
                let left = Duration::from_secs_f64((self.total.saturating_sub(*sequences)) as f64 / rate.max(1e-9));
                say(&format!("{sequences} sequences: {figures}, {} left", HumanDuration(left)));
            }
        }
    }

    pub fn evaluation(&self, scores: &[Score]) {
        for score in scores {
            let point = score.point.to_string();
            let at = if point.is_empty() { String::new() } else { format!(" at {point}") };
            self.line(&format!("  evaluation{at}: {}", score.figures.said()));
        }
    }

    /// A line above the bar.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => say(text),
        }
    }

    /// Ends the bar and leaves its last state on the screen.
    pub fn close(&self) {
        if let Some(bar) = &self.bar {
            bar.abandon();
        }
    }
}
