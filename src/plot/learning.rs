//! Learning curves: a metric of training against the sequences seen, of one or many runs.

use super::canvas::{Area, Drawn, LARGE, NORMAL, Picture, SMALL, line_of, text};
use super::colour::{FAINT, INK, series};
use super::legend::{self, legend};
use super::numbers::tidy;
use super::runs::{Group, Logged};
use crate::metrics::{self, Spread};
use anyhow::{Result, bail};
use plotters::backend::DrawingBackend;
use plotters::chart::ChartBuilder;
use plotters::coord::combinators::IntoLogRange;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::element::{Circle, Polygon};
use plotters::style::text_anchor::{HPos, VPos};
use plotters::style::{Color, WHITE};
use std::collections::{BTreeMap, BTreeSet};

/// Points of a curve: reports that are closer on the axis than its length over that are drawn as their mean.
const MAX_POINTS: usize = 400;

/// The losses.
const BITS: &str = "loss_bits";
const SQUARES: &str = "squared_error";

pub struct LearningCurves {
    metric: String,
    log: bool,
    log_sequences: bool,
    curves: Vec<Curve>,
}

/// Median and range over the runs of a group.
struct Curve {
    name: String,
    /// Sequences seen, least, median, most.
    points: Vec<(f64, [f64; 3])>,
    several: bool,
}

impl LearningCurves {
    /// The curves of a metric, and which groups have none, in words. Without a name it is the loss: bits, or squared
    /// errors where no run counts bits.
    pub fn new(
        groups: &[Group],
        metric: Option<&str>,
        log: bool,
        log_sequences: bool,
    ) -> Result<(LearningCurves, Vec<String>)> {
        let reports = || groups.iter().flat_map(|group| &group.runs).flat_map(|run| &run.reports);
        let known: BTreeSet<&str> = reports()
            .flat_map(|report| report.iter().filter(|(_, value)| value.is_number()).map(|(name, _)| name.as_str()))
            .collect();
        let metric = metric.unwrap_or(if known.contains(BITS) { BITS } else { SQUARES });
        let metric = metric.strip_prefix("train/").unwrap_or(metric); // as TensorBoard has it
        if !known.contains(metric) {
            let mut known: Vec<&str> = known.into_iter().filter(|name| !["step", "sequences"].contains(name)).collect();
            known.sort_by_key(|name| name.contains('/')); // those of evaluations last
            bail!("no run has a metric `{metric}`\nhint: there are {}", known.join(", "));
        }
        let (mut curves, mut left_out) = (vec![], vec![]);
        for group in groups {
            match Curve::of(&group.name, &group.runs, metric, log_sequences) {
                Some(curve) => curves.push(curve),
                None => left_out.push(format!("`{}` has no `{metric}`", group.name)),
            }
        }
        if log && !curves.iter().any(|curve| curve.points.iter().any(|(_, values)| values[2] > 0.0)) {
            bail!("`--log`: no value of `{metric}` is more than 0\nhint: leave --log out");
        }
        Ok((LearningCurves { metric: metric.to_string(), log, log_sequences, curves }, left_out))
    }

    fn values(&self) -> impl Iterator<Item = f64> {
        self.curves.iter().flat_map(|curve| &curve.points).flat_map(|(_, values)| *values)
    }
}

impl Curve {
    /// None if no run has the metric.
    fn of(name: &str, runs: &[Logged], metric: &str, log_sequences: bool) -> Option<Curve> {
        let value = |report: &serde_json::Map<String, serde_json::Value>| {
            let value = report.get(metric)?.as_f64().filter(|value| value.abs() < 1e100)?; // beyond it axes overflow
            Some((report.get("sequences")?.as_u64()?, value))
        };
        let of = |run: &Logged| (run.reports.iter().filter_map(value).collect::<BTreeMap<u64, f64>>(), run.ended);
        let runs: Vec<(BTreeMap<u64, f64>, bool)> =
            runs.iter().map(of).filter(|(values, _)| !values.is_empty()).collect();
        if runs.is_empty() {
            return None;
        }
        // each run's last report by then, for runs that begin anew do not report at the same places; a median over
        // other runs at every point would jump, so only where all have reported, and go on or have come to their end
        let at = |(values, ended): &(BTreeMap<u64, f64>, bool), at: u64| {
            let goes_on = values.last_key_value().is_some_and(|(last, _)| at <= *last);
            values.range(..=at).next_back().filter(|_| goes_on || *ended).map(|(_, value)| *value)
        };
        let all: BTreeSet<u64> = runs.iter().flat_map(|(values, _)| values.keys().copied()).collect();
        let shared: Vec<u64> =
            all.into_iter().filter(|&place| runs.iter().all(|run| at(run, place).is_some())).collect();
        let on_axis = |place: u64| if log_sequences { (place as f64).ln() } else { place as f64 };
        let [first, last] = [shared.first(), shared.last()].map(|end| end.map_or(0.0, |&place| on_axis(place)));
        let point_of = |place: u64| ((on_axis(place) - first) / (last - first) * MAX_POINTS as f64) as usize;
        let point = |places: &[u64]| {
            let mean = |run| places.iter().filter_map(|&place| at(run, place)).sum::<f64>() / places.len() as f64;
            let Spread { median, least, most } = Spread::of(runs.iter().map(mean)).expect("there is a run");
            (places[places.len() - 1] as f64, [least, median, most])
        };
        let several = runs.len() > 1;
        let mut name = name.to_string();
        if several {
            name += &format!(" (median and range of {} seeds)", runs.len());
        }
        Some(Curve { name, points: shared.chunk_by(|a, b| point_of(*a) == point_of(*b)).map(point).collect(), several })
    }
}

impl Picture for LearningCurves {
    fn size(&self) -> (u32, u32) {
        (1000, 576 + legend::height(self.curves.len()) as u32)
    }

    fn draw<DB: DrawingBackend>(&self, area: &Area<DB>) -> Drawn<DB> {
        let places = || self.curves.iter().flat_map(|curve| &curve.points).map(|(place, _)| *place);
        let last = places().fold(1.0, f64::max);
        let unit = if last < 5e6 { (1e3, "sequences (thousands)") } else { (1e6, "sequences (millions)") };
        if !self.log_sequences {
            return self.along(area, 0.0..last / unit.0, unit);
        }
        let first = places().fold(last * 0.5, f64::min);
        self.along(area, (numbered(first / unit.0, last / unit.0)..last / unit.0).log_scale(), unit)
    }
}

/// What an axis of plotters can be made from.
trait Axis: AsRangedCoord<Value = f64, CoordDescType: ValueFormatter<f64>> {}

impl<Range: AsRangedCoord<Value = f64, CoordDescType: ValueFormatter<f64>>> Axis for Range {}

impl LearningCurves {
    /// `unit`: how many sequences, and the name of the axis.
    fn along<DB: DrawingBackend>(&self, area: &Area<DB>, sequences: impl Axis, unit: (f64, &str)) -> Drawn<DB> {
        let most = self.values().fold(0.0, f64::max);
        if !self.log {
            let least = self.values().fold(0.0, f64::min);
            let room = if most > least { (most - least) * 0.05 } else { 1.0 };
            return self.chart(area, sequences, unit, least..most + room, (least, None));
        }
        let least = self.values().filter(|value| *value > 0.0).fold(most, f64::min);
        let (least, most) = (least.max(most * 1e-12) * 0.8, most * 1.25);
        // zeros are drawn at a power of ten that is below all others, and called 0 there
        let foot = match self.values().fold(most, f64::min) {
            below if below < 0.0 => Some("≤ 0"),
            0.0 => Some("0"),
            _ => None,
        };
        let floor =
            if foot.is_some() { 10f64.powf((least / 2.0).log10().floor()) * 0.999 } else { numbered(least, most) };
        self.chart(area, sequences, unit, (floor..most).log_scale(), (floor, foot))
    }

    /// `floor` is the least value that the axis shows, `foot` what it is called there where others lie below.
    fn chart<DB: DrawingBackend>(
        &self,
        area: &Area<DB>,
        sequences: impl Axis,
        (unit, axis_name): (f64, &str),
        axis: impl Axis,
        (floor, foot): (f64, Option<&str>),
    ) -> Drawn<DB> {
        // of an evaluation by its name in TensorBoard: eval/length_20/bit_errors
        let (place, metric) = self.metric.rsplit_once('/').unwrap_or(("", &self.metric));
        let place = match place.trim_start_matches("eval/") {
            "" => "during training".to_string(),
            "all" => "in evaluation".to_string(),
            point => format!("in evaluation, {}", point.replace('_', " ")),
        };
        let title = format!("{} {place}", metrics::name(metric));
        area.draw_text(&title, &text(LARGE, HPos::Left, VPos::Top), (20, 14))?;
        legend(area, self.curves.iter().map(|curve| curve.name.as_str()), (20, 46))?;
        let (_, below) = area.split_vertically(46 + legend::height(self.curves.len()));
        let mut chart = ChartBuilder::on(&below);
        chart.margin(16).margin_right(28).x_label_area_size(58).y_label_area_size(92);
        let mut chart = chart.build_cartesian_2d(sequences, axis)?;
        chart
            .configure_mesh()
            .bold_line_style(FAINT)
            .light_line_style(WHITE)
            .axis_style(INK)
            .label_style(text(SMALL, HPos::Left, VPos::Top))
            .axis_desc_style(text(NORMAL, HPos::Left, VPos::Top))
            .x_desc(axis_name)
            .y_desc(metrics::axis(metric))
            .x_label_formatter(&|x| tidy(*x))
            .y_label_formatter(&|y| foot.filter(|_| *y < floor * 1.5).map_or_else(|| tidy(*y), str::to_string))
            .draw()?;
        for (index, curve) in self.curves.iter().enumerate() {
            let line =
                |which: usize| curve.points.iter().map(move |(at, values)| (at / unit, values[which].max(floor)));
            if curve.several {
                let around: Vec<(f64, f64)> = line(0).chain(line(2).collect::<Vec<_>>().into_iter().rev()).collect();
                chart.draw_series([Polygon::new(around, series(index).mix(0.2))])?;
            }
            let median: Vec<(f64, f64)> = line(1).collect();
            chart.draw_series(line_of(&median, series(index)))?;
            if let [alone] = median[..] {
                chart.draw_series([Circle::new(alone, 4, series(index).filled())])?;
            }
        }
        Ok(())
    }
}

/// Where a logarithmic axis begins that is to show `least` to `most` and has a number on it, which only powers of ten
/// have.
fn numbered(least: f64, most: f64) -> f64 {
    let below = 10f64.powf(least.log10().floor());
    if below * 10.0 <= most { least } else { below }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_goes_over_each_runs_last_report_as_far_as_all_go() {
        let run = |reports: &[(u64, f64)], ended| {
            let report = |(at, value): &(u64, f64)| {
                serde_json::json!({ "sequences": at, "loss_bits": value }).as_object().unwrap().clone()
            };
            Logged { reports: reports.iter().map(report).collect(), ended }
        };
        let curve = |ended| {
            let runs =
                vec![run(&[(10, 4.0), (20, 2.0), (30, 1.0)], false), run(&[(10, 8.0), (15, 6.0), (25, 5.0)], ended)];
            let points = Curve::of("runs", &runs, "loss_bits", false).unwrap().points;
            points.into_iter().map(|(at, [least, _, most])| (at, least, most)).collect::<Vec<_>>()
        };
        let shared = [(10.0, 4.0, 8.0), (15.0, 4.0, 6.0), (20.0, 2.0, 6.0), (25.0, 2.0, 5.0)];
        assert_eq!(curve(false), shared);
        assert_eq!(curve(true), [&shared[..], &[(30.0, 1.0, 5.0)]].concat());
    }

    #[test]
    fn a_logarithmic_axis_has_a_number() {
        for (least, most, begins) in [(2.0, 9.0, 1.0), (0.35, 0.7, 0.1), (2.0, 11.0, 2.0), (0.05, 1000.0, 0.05)] {
            let found = numbered(least, most);
            assert!((found / begins - 1.0).abs() < 1e-12, "{least} to {most}: {found}");
        }
    }
}
