//! Where the heads write against the priority of what they write, each with the straight line that fits best. A machine
//! that sorts by writing to the place of a priority shows it here, as in figure 17 of the paper.

use super::canvas::{Area, Drawn, NORMAL, SMALL, text, upwards};
use super::colour::{FAINT, series};
use super::heat::{Rect, frame, round_step};
use super::legend::legend;
use super::numbers::short;
use super::window::Window;
use plotters::backend::DrawingBackend;
use plotters::element::{Circle, PathElement};
use plotters::style::Color;
use plotters::style::text_anchor::{HPos, VPos};

pub struct Scatter {
    priorities: Vec<f32>,
    /// Of each head, the row of its largest weight at each vector, counted from the first of the window.
    places: Vec<Vec<f32>>,
    window: Window,
    rows: usize,
}

impl Scatter {
    /// For the weightings (T, N) of each write head; vector i is seen at step i.
    pub fn new(priorities: Vec<f32>, heads: &[Vec<f32>], window: Window, rows: usize) -> Scatter {
        let place = |weighting: &[f32]| {
            let peak = (0..rows).max_by(|&a, &b| weighting[a].total_cmp(&weighting[b])).unwrap_or(0);
            ((peak + rows - window.first) % rows) as f32
        };
        let places = heads.iter().map(|head| head.chunks(rows).take(priorities.len()).map(place).collect());
        Scatter { places: places.collect(), priorities, window, rows }
    }

    pub fn draw<DB: DrawingBackend>(&self, area: &Area<DB>, at: Rect) -> Drawn<DB> {
        let Rect { x, y, width, height } = at;
        let title = "rows written to against priority, and the best straight lines";
        area.draw_text(title, &text(NORMAL, HPos::Left, VPos::Bottom), (x, y - 4))?;
        let across = |priority: f32| x + ((priority + 1.0) / 2.0 * (width - 1) as f32).round() as i32;
        let down = |place: f32| y + ((2.0 * place + 1.0) * height as f32 / (2 * self.window.count) as f32) as i32;
        for priority in [-1.0, -0.5, 0.0, 0.5, 1.0] {
            let place = across(priority);
            area.draw(&PathElement::new([(place, y), (place, y + height - 1)], FAINT))?;
            area.draw_text(&short(priority), &text(SMALL, HPos::Center, VPos::Top), (place, y + height + 8))?;
        }
        area.draw_text("priority", &text(SMALL, HPos::Center, VPos::Top), (x + width / 2, y + height + 28))?;
        let step = round_step(self.window.count, (height / 24) as usize);
        for place in 0..self.window.count {
            let row = (self.window.first + place) % self.rows;
            if row.is_multiple_of(step) {
                let style = text(SMALL, HPos::Right, VPos::Center);
                area.draw_text(&row.to_string(), &style, (x - 8, down(place as f32)))?;
            }
        }
        area.draw_text("memory row", &upwards(SMALL), (x - 44, y + height / 2))?;
        let fits: Vec<Fit> = self.places.iter().map(|places| Fit::of(&self.priorities, places)).collect();
        let most = self.window.count as f32 - 0.5; // of what the panel shows
        for (index, (places, fit)) in self.places.iter().zip(&fits).enumerate() {
            // a part of the line, as it may leave the panel
            let inside = (0..=100).map(|i| i as f32 / 50.0 - 1.0).filter(|x| (-0.5..=most).contains(&fit.at(*x)));
            let line: Vec<(i32, i32)> = inside.map(|x| (across(x), down(fit.at(x)))).collect();
            area.draw(&PathElement::new(line, series(index).stroke_width(2)))?;
            for (priority, place) in self.priorities.iter().zip(places).filter(|(_, place)| **place <= most) {
                area.draw(&Circle::new((across(*priority), down(*place)), 4, series(index).filled()))?;
            }
        }
        frame(area, at)?;
        let name = |(index, (places, fit)): (usize, (&Vec<f32>, &Fit))| {
            let explained = format!("the line explains {:.0} % of the variance", 100.0 * fit.explained);
            match self.places.len() {
                1 => explained,
                _ if places.iter().all(|place| *place > most) => {
                    format!("head {}: in rows that are not shown", index + 1)
                }
                _ => format!("head {}: {explained}", index + 1),
            }
        };
        let names: Vec<String> = self.places.iter().zip(&fits).enumerate().map(name).collect();
        legend(area, names.iter().map(String::as_str), (x + width + 16, y))
    }
}

/// A straight line by least squares.
struct Fit {
    slope: f32,
    at_0: f32,
    /// The share of the variance that it explains.
    explained: f32,
}

impl Fit {
    fn of(x: &[f32], y: &[f32]) -> Fit {
        let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len().max(1) as f32;
        let (mean_x, mean_y) = (mean(x), mean(y));
        let products = |a: &[f32], mean_a: f32, b: &[f32], mean_b: f32| -> f32 {
            a.iter().zip(b).map(|(a, b)| (a - mean_a) * (b - mean_b)).sum()
        };
        let (xx, xy, yy) =
            (products(x, mean_x, x, mean_x), products(x, mean_x, y, mean_y), products(y, mean_y, y, mean_y));
        let slope = if xx > 0.0 { xy / xx } else { 0.0 };
        let explained = if xx > 0.0 && yy > 0.0 { xy * xy / (xx * yy) } else { 0.0 };
        Fit { slope, at_0: mean_y - slope * mean_x, explained }
    }

    fn at(&self, x: f32) -> f32 {
        self.at_0 + self.slope * x
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_from_the_first_row_of_the_window_around_the_end_of_the_memory() {
        let window = Window { first: 3, count: 3 };
        let head = [[0.0, 0.0, 0.0, 0.9], [0.8, 0.1, 0.0, 0.1], [0.0, 0.6, 0.4, 0.0]].concat();
        let scatter = Scatter::new(vec![-0.5, 0.0, 0.5], &[head], window, 4);
        assert_eq!(scatter.places, [[0.0, 1.0, 2.0]]);
        let fit = Fit::of(&scatter.priorities, &scatter.places[0]);
        assert_eq!((fit.slope, fit.at_0, fit.explained), (2.0, 1.0, 1.0));
    }

    #[test]
    fn a_line_explains_what_a_straight_line_can_and_nothing_of_points_on_one_place() {
        // x: -1 0 1, y: 0 3 0: the best line is flat; y: 0 0 3: slope 1.5, 2.25 * 2 / 6 = 3/4
        assert_eq!(Fit::of(&[-1.0, 0.0, 1.0], &[0.0, 3.0, 0.0]).explained, 0.0);
        assert_eq!(Fit::of(&[-1.0, 0.0, 1.0], &[0.0, 0.0, 3.0]).explained, 0.75);
        assert_eq!(Fit::of(&[0.2], &[4.0]).at(0.9), 4.0);
        assert_eq!(Fit::of(&[-1.0, 1.0], &[2.0, 2.0]).explained, 0.0);
    }
}
