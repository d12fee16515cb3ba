//! The paper's figure of one sequence: what goes in and comes out, and below it what the heads write and read, all over
//! the same time axis. Writing is in the left column, reading in the right one.
//!
//!     inputs                    targets
//!     erase vectors             outputs
//!                               error
//!     add vectors               read vectors
//!     write weightings, head 1  read weightings, head 1
//!     ...                       ...
//!     written rows by priority  (of priority sort)

use super::canvas::{Area, Drawn, LARGE, NORMAL, Picture, text};
use super::colour::Scale;
use super::heat::{Heat, LEFT, RIGHT, Rect, TIME_AXIS, TITLE};
use super::lines::Lines;
use super::scatter::Scatter;
use super::window::Window;
use crate::engine::Trace;
use crate::replay::MemoryShape;
use crate::tasks::{Batch, Loss};
use plotters::backend::DrawingBackend;
use plotters::style::text_anchor::{HPos, VPos};

/// Pixels between a panel and the title of the next one, around the figure, and of its title.
const GAP: i32 = 16;
const MARGIN: i32 = 12;
const HEADING: i32 = 68;

/// Pixels of the panel below the time axis.
const SCATTER: i32 = 260;

/// What some tasks have to show beside what all have.
pub enum Beside {
    Nothing,
    /// The best prediction at each step, NaN where there is none, for tasks of one output.
    Optimum(Vec<f32>),
    /// Of the vector that is seen at each of the first steps.
    Priorities(Vec<f32>),
}

/// Something to draw, and how high.
enum Panel {
    Heat(Heat, i32),
    Lines(Lines, i32),
    Scatter(Scatter),
}

impl Panel {
    fn heat(heat: Heat, about: usize, most: usize) -> Panel {
        let height = panel_height(heat.rows(), about, most);
        Panel::Heat(heat, height)
    }

    fn channels(heat: Heat) -> Panel {
        Panel::heat(heat, 72, 200)
    }

    fn height(&self) -> i32 {
        match self {
            Panel::Heat(_, height) | Panel::Lines(_, height) => *height,
            Panel::Scatter(_) => SCATTER,
        }
    }
}

pub struct SequenceFigure {
    title: String,
    subtitle: String,
    size: (u32, u32),
    /// Each with whether it is the last of its column, which carries the numbers of the time axis.
    panels: Vec<(Rect, Panel, bool)>,
}

impl SequenceFigure {
    /// For a batch of one sequence with its logits (T, 1, Y), and what the heads did if the network has heads.
    pub fn new(
        title: String,
        batch: &Batch,
        logits: &[f32],
        heads: Option<(MemoryShape, &Trace)>,
        beside: Beside,
    ) -> SequenceFigure {
        let answers = Answers::new(batch, logits);
        let subtitle = answers.said(batch);
        let mut columns = Columns { width: panel_width(batch.steps), columns: 2, panels: vec![] };
        let inputs = Panel::channels(Heat::inputs("inputs", batch.steps, &batch.inputs));
        let (optimum, priorities) = match beside {
            Beside::Nothing => (None, None),
            Beside::Optimum(values) => (Some(values), None),
            Beside::Priorities(values) => (None, Some(values)),
        };
        let outside = answers.panels(batch, optimum);
        let Some((shape, trace)) = heads else {
            columns.columns = 1;
            columns.side_by_side(std::iter::once(inputs).chain(outside).collect(), vec![]);
            return columns.finish(title, subtitle);
        };
        let vectors = |what: &str, values: &[f32], heads: usize| {
            let several = if heads == 1 { String::new() } else { format!(", {heads} heads one below the other") };
            let heat = Heat::new(format!("{what} vectors{several}"), "value", batch.steps, values.to_vec());
            Panel::heat(Heat { all_rows: shape.width, ..heat }, 100, 220)
        };
        columns.side_by_side(vec![inputs, vectors("erase", &trace.erases, shape.write_heads)], outside);
        let adds = vectors("add", &trace.adds, shape.write_heads);
        columns.side_by_side(vec![adds], vec![vectors("read", &trace.reads, shape.read_heads)]);
        let window = Window::of(&trace.weightings, shape.rows);
        let weightings = |what: &str, head: usize, index: usize, of: usize| {
            let number = if of == 1 { String::new() } else { format!(", head {}", index + 1) };
            let values = window.cut(&shape.weightings(trace, head), shape.rows);
            let title = format!("{what} weightings{number} ({})", window.said(shape.rows));
            let heat = Heat::new(title, "memory row", batch.steps, values);
            let about = if shape.heads() > 4 { 130 } else { 220 };
            Panel::heat(Heat { first_row: window.first, all_rows: shape.rows, ..heat }, about, 512)
        };
        let (reads, writes) = (shape.read_heads, shape.write_heads);
        for index in 0..reads.max(writes) {
            let write = (index < writes).then(|| weightings("write", reads + index, index, writes));
            let read = (index < reads).then(|| weightings("read", index, index, reads));
            columns.side_by_side(write.into_iter().collect(), read.into_iter().collect());
        }
        let figure = columns.finish(title, subtitle);
        let Some(priorities) = priorities else { return figure };
        let writers: Vec<Vec<f32>> = (reads..reads + writes).map(|head| shape.weightings(trace, head)).collect();
        figure.with_scatter(Scatter::new(priorities, &writers, window, shape.rows))
    }

    /// Below the time axis, with an axis of its own.
    fn with_scatter(mut self, scatter: Scatter) -> SequenceFigure {
        let at = Rect { x: MARGIN + LEFT, y: self.size.1 as i32 + TITLE, width: 400, height: SCATTER };
        self.size.1 = (at.y + at.height + TIME_AXIS + MARGIN) as u32;
        self.panels.push((at, Panel::Scatter(scatter), true));
        self
    }
}

impl Picture for SequenceFigure {
    fn size(&self) -> (u32, u32) {
        self.size
    }

    fn draw<DB: DrawingBackend>(&self, area: &Area<DB>) -> Drawn<DB> {
        area.draw_text(&self.title, &text(LARGE, HPos::Left, VPos::Top), (MARGIN, MARGIN))?;
        area.draw_text(&self.subtitle, &text(NORMAL, HPos::Left, VPos::Top), (MARGIN, MARGIN + 30))?;
        for (at, panel, last) in &self.panels {
            match panel {
                Panel::Heat(heat, _) => heat.draw(area, *at, *last)?,
                Panel::Lines(lines, _) => lines.draw(area, *at)?,
                Panel::Scatter(scatter) => scatter.draw(area, *at)?,
            }
        }
        Ok(())
    }
}

/// A whole number of pixels a step where the steps are not too many.
pub fn panel_width(steps: usize) -> i32 {
    match 400usize.div_ceil(steps) * steps {
        width if width <= 800 => width as i32,
        _ => 800,
    }
}

/// A whole number of pixels a row where the rows are not too many.
pub fn panel_height(rows: usize, about: usize, most: usize) -> i32 {
    ((about as f64 / rows as f64).round().max(1.0) as usize * rows).min(most) as i32
}

/// Panels laid out from top to bottom.
struct Columns {
    width: i32,
    columns: usize,
    panels: Vec<Placed>,
}

struct Placed {
    column: usize,
    at: Rect,
    panel: Panel,
}

impl Columns {
    /// Below all panels so far: these in the left column, those in the right one. The last of each reaches down to the
    /// same line.
    fn side_by_side(&mut self, left: Vec<Panel>, right: Vec<Panel>) {
        let (top, first) = (self.bottom(), self.panels.len());
        for (column, panels) in [left, right].into_iter().enumerate() {
            let mut y = top;
            for panel in panels {
                let x = MARGIN + LEFT + column as i32 * (LEFT + self.width + RIGHT);
                let at = Rect { x, y: y + TITLE, width: self.width, height: panel.height() };
                y = at.y + at.height + GAP;
                self.panels.push(Placed { column, at, panel });
            }
        }
        let bottom = self.bottom() - GAP;
        for column in 0..2 {
            if let Some(last) = self.panels[first..].iter_mut().rfind(|placed| placed.column == column) {
                last.at.height = bottom - last.at.y;
            }
        }
    }

    /// The y below the lowest panel, where the next one may begin.
    fn bottom(&self) -> i32 {
        let bottoms = self.panels.iter().map(|placed| placed.at.y + placed.at.height + GAP);
        bottoms.max().unwrap_or(HEADING)
    }

    fn finish(self, title: String, subtitle: String) -> SequenceFigure {
        let width = 2 * MARGIN + self.columns as i32 * (LEFT + self.width + RIGHT);
        let height = self.bottom() - GAP + TIME_AXIS + MARGIN;
        let last = |column| self.panels.iter().rposition(|placed| placed.column == column);
        let last = [last(0), last(1)];
        let panels = self.panels.into_iter().enumerate();
        let panels = panels.map(|(index, placed)| (placed.at, placed.panel, last.contains(&Some(index)))).collect();
        SequenceFigure { title, subtitle, size: (width as u32, height as u32), panels }
    }
}

/// The network's answers (T, Y), NaN at the steps that do not count.
pub fn outputs(batch: &Batch, logits: &[f32]) -> Vec<f32> {
    Answers::new(batch, logits).outputs
}

/// What the network answered at the steps that count, NaN at the others.
struct Answers {
    targets: Vec<f32>, // (T, Y)
    outputs: Vec<f32>, // (T, Y)
    errors: Vec<f32>,  // (T, Y)
    width: usize,
    squared: bool,
}

impl Answers {
    fn new(batch: &Batch, logits: &[f32]) -> Answers {
        let width = batch.targets.len() / batch.mask.len();
        let squared = batch.loss == Loss::Squared;
        let counted = |values: &[f32]| -> Vec<f32> {
            let value = |(i, value): (usize, &f32)| if batch.mask[i / width] > 0.0 { *value } else { f32::NAN };
            values.iter().enumerate().map(value).collect()
        };
        let outputs: Vec<f32> = logits.iter().map(|&logit| batch.loss.output(logit)).collect();
        let (targets, outputs) = (counted(&batch.targets), counted(&outputs));
        let errors = targets.iter().zip(&outputs).map(|(target, output)| (target - output).abs()).collect();
        Answers { targets, outputs, errors, width, squared }
    }

    /// How good the answer is, in a line.
    fn said(&self, batch: &Batch) -> String {
        let counted: Vec<f32> = self.errors.iter().copied().filter(|error| !error.is_nan()).collect();
        let steps = batch.steps;
        if self.squared {
            let mean = counted.iter().map(|error| (error * error) as f64).sum::<f64>() / counted.len().max(1) as f64;
            return format!("one sequence of {steps} steps, mean squared error {mean:.4}");
        }
        // an output of exactly 0.5 is an answer of 0, as in the metrics
        let wrong = |(output, target): (&f32, &f32)| (*output > 0.5) != (*target > 0.5);
        let answers = self.outputs.iter().zip(&self.targets).filter(|(output, _)| !output.is_nan());
        let wrong = answers.filter(|pair| wrong(*pair)).count();
        format!("one sequence of {steps} steps, {wrong} of {} bits wrong", counted.len())
    }

    fn panels(self, batch: &Batch, optimum: Option<Vec<f32>>) -> Vec<Panel> {
        if self.width == 1 && !self.squared {
            let predictions = [("network", Some(self.outputs)), ("Bayes optimum", optimum)];
            let predictions = predictions.into_iter().filter_map(|(name, values)| Some((name, values?))).collect();
            return vec![Panel::Lines(Lines { targets: self.targets, predictions }, 220)];
        }
        let scale = Scale::of(&[&self.targets[..], &self.outputs[..]].concat());
        let heat = |title: &str, values, scale| {
            Panel::channels(Heat { scale, ..Heat::new(title, "channel", batch.steps, values) })
        };
        let outputs = if self.squared { "outputs" } else { "outputs, as probabilities of a 1" };
        let error_scale = Scale::of(&self.errors);
        vec![
            heat("targets (grey: steps that do not count)", self.targets, scale),
            heat(outputs, self.outputs, scale),
            heat("error |output − target|", self.errors, error_scale),
        ]
    }
}
