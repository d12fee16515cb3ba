//! What training shows: a bar on a terminal, elsewhere a line per report; of many runs side by side a bar each,
//! elsewhere only what happens between the reports.

use crate::metrics::{Report, Score};
use crate::progress::SolvedAt;
use crate::terminal::{say, terminal_columns};
use indicatif::{HumanCount, HumanDuration, MultiProgress, ProgressBar, ProgressStyle};
use std::time::Duration;

/// What shows the progress of a run.
pub enum Display {
    Bar(ProgressBar),
    /// A line a report; `total` sequences in all.
    Lines {
        total: u64,
    },
    /// For a run that is one of many: what it says begins with its label, and on a terminal it has a bar below those of
    /// the others.
    Labelled {
        label: String,
        bar: Option<ProgressBar>,
    },
    Silent,
}

/// What shows the progress of runs side by side.
pub struct SideBySide {
    /// On a terminal.
    bars: Option<MultiProgress>,
    /// The characters of the longest label.
    width: usize,
}

impl SideBySide {
    /// Several processes on one terminal cannot have bars there.
    pub fn new(alone: bool, width: usize) -> SideBySide {
        SideBySide { bars: Some(MultiProgress::new()).filter(|bars| alone && !bars.is_hidden()), width }
    }

    /// For one of them, of `total` sequences, `done` of them behind it.
    pub fn display(&self, label: String, total: u64, done: u64) -> Display {
        let before = format!("{label:width$}  ", width = self.width);
        let bar = self.bars.as_ref().map(|bars| drawn(bars.add(ProgressBar::new(total)), before, done));
        Display::Labelled { label, bar }
    }

    /// A line, above the bars where there are any.
    pub fn line(&self, text: &str) {
        match &self.bars {
            Some(bars) => drop(bars.println(text)), // a terminal that is gone is no reason to end a run
            None => say(text),
        }
    }
}

/// A bar for an evaluation, on a terminal; gone when it is dropped.
pub struct Measuring(ProgressBar);

impl Measuring {
    pub fn new(sequences: usize) -> Measuring {
        Measuring(drawn(ProgressBar::new(sequences as u64), String::new(), 0))
    }

    pub fn advance(&self, sequences: usize) {
        self.0.inc(sequences as u64);
    }
}

impl Drop for Measuring {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// How a bar is drawn; `left`: what follows the counts.
fn style(left: &str) -> ProgressStyle {
    let template = format!("{{prefix}}{{bar:12}} {{human_pos}}/{{human_len}}{left}  {{wide_msg}}");
    ProgressStyle::with_template(&template).expect("our own template")
}

/// A bar with words before it.
fn drawn(bar: ProgressBar, before: String, done: u64) -> ProgressBar {
    let bar = bar.with_position(done).with_prefix(before).with_style(style(", {eta} left"));
    bar.reset_eta();
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

impl Display {
    /// For a run of `total` sequences, `done` of them behind it.
    pub fn new(total: u64, done: u64) -> Display {
        let bar = ProgressBar::new(total);
        if bar.is_hidden() {
            return Display::Lines { total }; // no terminal, or one that cannot move its cursor
        }
        Display::Bar(drawn(bar, String::new(), done))
    }

    fn bar(&self) -> Option<&ProgressBar> {
        match self {
            Display::Bar(bar) => Some(bar),
            Display::Labelled { bar, .. } => bar.as_ref(),
            Display::Lines { .. } | Display::Silent => None,
        }
    }

    /// Another number of sequences in all: the run has begun anew.
    pub fn expect(&mut self, sequences: u64) {
        if let Display::Lines { total } = self {
            *total = sequences;
        } else if let Some(bar) = self.bar() {
            bar.set_length(sequences);
        }
    }

    pub fn tick(&self, sequences: u64) {
        if let Some(bar) = self.bar() {
            bar.set_position(sequences);
        }
    }

    pub fn report(&self, report: &Report) {
        let Report { sequences, figures, sequences_per_second: rate, .. } = report;
        let figures = figures.said();
        if let Some(bar) = self.bar() {
            let total = HumanCount(bar.length().unwrap_or(0)).to_string();
            let before = format!("{}{:12} {total}/{total}, 59m left  ", bar.prefix(), ""); // at most, as the template has it
            let room = terminal_columns(std::io::stderr()).unwrap_or(80).saturating_sub(before.len());
            bar.set_message(fitting(&format!("{figures}, {rate:.0}/s"), room));
        } else if let Display::Lines { total } = self {
            let seconds = total.saturating_sub(*sequences) as f64 / rate.max(1e-9);
            let left = Some(seconds).filter(|&seconds| seconds >= 1.0);
            let left = left.map(|seconds| format!(", {} left", HumanDuration(Duration::from_secs_f64(seconds))));
            let left = left.unwrap_or_default();
            let rate = if *rate > 0.0 { format!(", {rate:.0} sequences/s") } else { String::new() };
            say(&format!("{sequences} sequences: {figures}{rate}{left}"));
        }
    }

    /// What an evaluation has found, and whether the run is solved by it; one of many runs has them in its logs.
    pub fn evaluation(&self, scores: &[Score], solved: Option<&SolvedAt>) {
        if let Display::Labelled { .. } = self {
            return;
        }
        for score in scores {
            self.line(&format!("evaluation{}: {}", score.point.place(), score.figures.said()));
        }
        if let Some(SolvedAt { sequences, seconds, .. }) = solved {
            self.line(&format!("solved after {sequences} sequences, {seconds:.1} s"));
        }
    }

    /// A line between the reports.
    pub fn line(&self, text: &str) {
        match self {
            Display::Bar(bar) => bar.println(format!("  {text}")),
            Display::Lines { .. } => say(&format!("  {text}")),
            Display::Labelled { label, bar: Some(bar) } => bar.println(format!("{label}: {text}")),
            Display::Labelled { label, bar: None } => say(&format!("{label}: {text}")),
            Display::Silent => {}
        }
    }

    /// Ends the bar; that of a single run leaves its last state on the screen.
    pub fn close(&self) {
        match self {
            Display::Bar(bar) => {
                bar.set_style(style("")); // no time is left where it is stopped
                bar.abandon();
                say(""); // it leaves the cursor at its end
            }
            Display::Labelled { bar: Some(bar), .. } => bar.finish_and_clear(),
            Display::Lines { .. } | Display::Labelled { bar: None, .. } | Display::Silent => {}
        }
    }
}

/// The first of the figures, separated by commas, that have room in so many columns.
fn fitting(figures: &str, room: usize) -> String {
    let ends = figures.match_indices(", ").map(|(at, _)| at).chain([figures.len()]);
    figures[..ends.take_while(|&end| end <= room).last().unwrap_or(0)].to_string()
}

#[cfg(test)]
mod tests {
    use super::fitting;

    #[test]
    fn figures_that_have_no_room_are_left_out_whole() {
        let figures = "loss 53.420 bits, 32.61 wrong bits, 1159/s";
        assert_eq!(fitting(figures, 42), figures);
        assert_eq!(fitting(figures, 41), "loss 53.420 bits, 32.61 wrong bits");
        assert_eq!(fitting(figures, 33), "loss 53.420 bits");
        assert_eq!(fitting(figures, 5), "");
    }
}
