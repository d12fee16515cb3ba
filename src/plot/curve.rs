//! Loss and errors of an evaluation against the axis that the task varies in.

use super::canvas::{Area, Drawn, LARGE, NORMAL, Picture, SMALL, line_of, text};
use super::colour::{FAINT, INK, series};
use super::legend::{self, legend};
use super::numbers::tidy;
use crate::metrics::{self, Score};
use crate::tasks::{Axis, Point};
use plotters::backend::DrawingBackend;
use plotters::chart::ChartBuilder;
use plotters::element::{Circle, Rectangle};
use plotters::style::text_anchor::{HPos, VPos};
use plotters::style::{Color, WHITE};
use std::ops::RangeInclusive;

pub struct Curve {
    pub title: String,
    pub axis: Axis,
    /// What training draws on that axis.
    pub training: RangeInclusive<usize>,
    pub scores: Vec<Score>,
}

impl Curve {
    /// The values of one metric: a line for each combination of the other axes, in the order of the axis.
    fn lines(&self, metric: &str) -> Vec<(String, Vec<(f64, f64)>)> {
        let mut lines: Vec<(String, Vec<(f64, f64)>)> = vec![];
        for score in &self.scores {
            let others = Point::new(score.point.values().filter(|(axis, _)| *axis != self.axis)).to_string();
            let Some(value) = score.figures.number(metric) else { continue };
            let point = (score.point.at(self.axis) as f64, value);
            match lines.iter_mut().find(|(name, _)| *name == others) {
                Some((_, points)) => points.push(point),
                None => lines.push((others, vec![point])),
            }
        }
        lines.iter_mut().for_each(|(_, points)| points.sort_by(|a, b| a.0.total_cmp(&b.0)));
        lines
    }

    /// Of the lines, the same for every metric; none where there is one line alone.
    fn names(&self) -> Vec<String> {
        let metric = self.scores.first().and_then(|score| score.figures.means().next());
        let lines = metric.map_or(vec![], |(metric, _)| self.lines(metric));
        lines.into_iter().map(|(name, _)| name).filter(|name| !name.is_empty()).collect()
    }

    fn chart<DB: DrawingBackend>(&self, area: &Area<DB>, metric: &str) -> Drawn<DB> {
        let lines = self.lines(metric);
        let points = || lines.iter().flat_map(|(_, points)| points);
        let (last, most) = points().fold((0.0f64, 0.0f64), |(x, y), point| (x.max(point.0), y.max(point.1)));
        let (last, most) = (last * 1.04, if most > 0.0 { most * 1.1 } else { 1.0 });
        let mut chart = ChartBuilder::on(area);
        chart.margin(10).margin_right(24).x_label_area_size(56).y_label_area_size(88);
        let mut chart = chart.build_cartesian_2d(0.0..last, 0.0..most)?;
        let (first, end) = (*self.training.start() as f64 - 0.5, (*self.training.end() as f64 + 0.5).min(last));
        if first < end {
            chart.draw_series([Rectangle::new([(first, 0.0), (end, most)], FAINT.mix(0.6).filled())])?;
        }
        chart
            .configure_mesh()
            .bold_line_style(FAINT)
            .light_line_style(WHITE.mix(0.0))
            .axis_style(INK)
            .label_style(text(SMALL, HPos::Left, VPos::Top))
            .axis_desc_style(text(NORMAL, HPos::Left, VPos::Top))
            .x_desc(self.axis.name())
            .y_desc(metrics::axis(metric))
            .x_label_formatter(&|x| tidy(*x))
            .y_label_formatter(&|y| tidy(*y))
            .draw()?;
        for (index, (_, points)) in lines.iter().enumerate() {
            let colour = series(index);
            chart.draw_series(line_of(points, colour))?;
            chart.draw_series(points.iter().map(|point| Circle::new(*point, 4, colour.filled())))?;
        }
        Ok(())
    }
}

impl Picture for Curve {
    fn size(&self) -> (u32, u32) {
        (1200, 500 + legend::height(self.names().len()) as u32)
    }

    fn draw<DB: DrawingBackend>(&self, area: &Area<DB>) -> Drawn<DB> {
        let sequences = self.scores.first().map_or(0, |score| score.sequences);
        area.draw_text(&self.title, &text(LARGE, HPos::Left, VPos::Top), (20, 14))?;
        let means = format!("means of {sequences} sequences a point; grey: the values that training draws");
        area.draw_text(&means, &text(NORMAL, HPos::Left, VPos::Top), (20, 44))?;
        let names = self.names();
        legend(area, names.iter().map(String::as_str), (20, 70))?;
        let (_, below) = area.split_vertically(70 + legend::height(names.len()));
        let metrics: Vec<&str> =
            self.scores.iter().take(1).flat_map(|score| score.figures.means()).map(|m| m.0).collect();
        let shown: Vec<&str> = ["bit_errors", "loss_bits"].into_iter().filter(|name| metrics.contains(name)).collect();
        for (part, metric) in below.split_evenly((1, shown.len().max(1))).iter().zip(shown) {
            self.chart(part, metric)?;
        }
        Ok(())
    }
}
