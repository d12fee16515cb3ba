//! What training shows: a bar on a terminal, a line per report elsewhere.

use crate::metrics::{Report, Score};
use crate::terminal::say;
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;

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
            ProgressStyle::with_template("{bar:16} {human_pos}/{human_len}, {eta} left  {wide_msg}")
                .expect("a fixed template"),
        );
        bar.reset_eta();
        bar.enable_steady_tick(Duration::from_millis(200));
        Display::Bar(bar)
    }

    /// Another number of sequences in all: the run has begun anew.
    pub fn expect(&mut self, sequences: u64) {
        match self {
            Display::Bar(bar) => bar.set_length(sequences),
            Display::Lines { total } => *total = sequences,
            Display::Silent => {}
        }
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
            self.line(&format!("  evaluation{}: {}", score.point.place(), score.figures.said()));
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
