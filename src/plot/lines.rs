//! A panel of probabilities over time, for tasks that predict one bit a step.

use super::canvas::{Area, Drawn, NORMAL, SMALL, coloured, text, upwards};
use super::colour::{FAINT, INK, series};
use super::heat::{Rect, frame, time_ticks};
use super::numbers::short;
use plotters::backend::DrawingBackend;
use plotters::element::{Circle, PathElement};
use plotters::style::Color;
use plotters::style::text_anchor::{HPos, VPos};

/// The target bits and the predictions of each step; NaN where there is none.
pub struct Lines {
    pub targets: Vec<f32>,
    pub predictions: Vec<(&'static str, Vec<f32>)>,
}

impl Lines {
    pub fn draw<DB: DrawingBackend>(&self, area: &Area<DB>, at: Rect) -> Drawn<DB> {
        let Rect { x, y, width, height } = at;
        let steps = self.targets.len();
        let place = |step: usize, value: f32| {
            let across = (2 * step + 1) as f32 * width as f32 / (2 * steps) as f32;
            (x + across as i32, y + 8 + ((height - 16) as f32 * (1.0 - value)).round() as i32)
        };
        for value in [0.0, 0.5, 1.0] {
            let level = place(0, value).1;
            area.draw(&PathElement::new([(x, level), (x + width, level)], FAINT))?;
            area.draw_text(&short(value), &text(SMALL, HPos::Right, VPos::Center), (x - 8, level))?;
        }
        for (index, (_, values)) in self.predictions.iter().enumerate().rev() {
            // the first one, the network's, on top
            for part in parts(values) {
                let points: Vec<(i32, i32)> = part.map(|step| place(step, values[step])).collect();
                area.draw(&PathElement::new(points, series(index).stroke_width(2)))?;
            }
        }
        for (step, &target) in self.targets.iter().enumerate().filter(|(_, target)| !target.is_nan()) {
            area.draw(&Circle::new(place(step, target), 2, INK.filled()))?;
        }
        frame(area, at)?;
        time_ticks(area, at, steps, false)?;
        area.draw_text("probability of a 1", &upwards(SMALL), (x - 44, y + height / 2))?;

        let mut right = x;
        let targets = ("target bits (dots)", INK);
        let lines = self.predictions.iter().enumerate().map(|(index, (name, _))| (*name, series(index)));
        for (name, colour) in std::iter::once(targets).chain(lines) {
            area.draw_text(name, &coloured(NORMAL, HPos::Left, VPos::Bottom, colour), (right, y - 4))?;
            right += area.estimate_text_size(name, &text(NORMAL, HPos::Left, VPos::Bottom))?.0 as i32 + 24;
        }
        Ok(())
    }
}

/// The stretches of steps that have a value.
fn parts(values: &[f32]) -> impl Iterator<Item = std::ops::Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let first = at + values[at..].iter().position(|value| !value.is_nan())?;
        at = values[first..].iter().position(|value| value.is_nan()).map_or(values.len(), |end| first + end);
        Some(first..at)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_line_is_interrupted_where_nothing_is_predicted() {
        let found: Vec<_> = super::parts(&[f32::NAN, 0.1, 0.2, f32::NAN, 0.3]).collect();
        assert_eq!(found, [1..3, 4..5]);
    }
}
