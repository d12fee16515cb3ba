//! What training shows on stderr: a bar on a terminal, a line per report elsewhere.

use crate::metrics::{Report, Score};
use anyhow::{Context, Result};
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use std::io::{ErrorKind, IsTerminal, Write};
use std::time::Duration;

/// A line to stderr. A closed stderr is no reason to end a run, and `eprintln!` would panic.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Data to stdout. Fails, rather than panics, where stdout cannot be written. A reader that has left wants no more of it.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to stdout"),
    }
}

/// What shows the progress of a run.
pub enum Display {
    Bar(ProgressBar),
    /// A line a report; `total` sequences in all.
    Lines {
        total: u64,
    },
    /// For a run that is one of many.
    Silent,
}

impl Display {
    /// For a run of `total` sequences, `done` of them behind it.
    pub fn new(total: u64, done: u64) -> Display {
        if !std::io::stderr().is_terminal() {
            return Display::Lines { total };
        }
        let bar = ProgressBar::new(total).with_position(done);
        bar.set_style(
            ProgressStyle::with_template("{bar:30} {human_pos}/{human_len} sequences, {eta} left  {msg}")
                .expect("a fixed template"),
        );
        bar.reset_eta();
        bar.enable_steady_tick(Duration::from_millis(200));
        Display::Bar(bar)
    }

    pub fn tick(&self, sequences: u64) {
        if let Display::Bar(bar) = self {
            bar.set_position(sequences);
        }
    }

    pub fn report(&self, report: &Report) {
        let Report { sequences, figures, sequences_per_second: rate, .. } = report;
        let figures = format!("{}, {rate:.0} sequences/s", figures.said());
        match self {
            Display::Bar(bar) => bar.set_message(figures),
            Display::Lines { total } => {
                let left = Duration::from_secs_f64((total.saturating_sub(*sequences)) as f64 / rate.max(1e-9));
                say(&format!("{sequences} sequences: {figures}, {} left", HumanDuration(left)));
            }
            Display::Silent => {}
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
        match self {
            Display::Bar(bar) => bar.println(text),
            Display::Lines { .. } => say(text),
            Display::Silent => {}
        }
    }

    /// Ends the bar and leaves its last state on the screen.
    pub fn close(&self) {
        if let Display::Bar(bar) = self {
            bar.abandon();
        }
    }
}
