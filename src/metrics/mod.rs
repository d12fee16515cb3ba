//! What is measured: cost in bits and wrong bits per sequence, as the paper plots them, and what each task adds.

mod figures;
mod totals;
mod words;

pub use figures::{Figure, Figures};
pub use totals::Totals;
pub use words::{axis, column, name, shown};

use crate::tasks::Point;
use serde::{Deserialize, Serialize};

/// One line of metrics.jsonl: means over the updates since the last report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub step: u64,
    pub sequences: u64,
    pub seconds: f64,
    #[serde(flatten)]
    pub figures: Figures,
    pub grad_norm: f64,
    /// After the clip, for TensorBoard alone.
    #[serde(skip)]
    pub clipped_norm: Option<f64>,
    pub learning_rate: f64,
    pub sequences_per_second: f64,
    /// How far the ranges of a curriculum reach, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reach: Option<f64>,
    /// How often the run has begun anew.
    #[serde(skip_serializing_if = "none")]
    pub restarts: u32,
}

fn none(restarts: &u32) -> bool {
    *restarts == 0
}

impl Report {
    pub fn scalars(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let norm = [("grad_norm", self.grad_norm)].into_iter();
        let norms = norm.chain(self.clipped_norm.map(|norm| ("grad_norm_clipped", norm)));
        let rates = [("learning_rate", self.learning_rate), ("sequences_per_second", self.sequences_per_second)];
        self.figures.means().chain(norms).chain(rates).chain(self.reach.map(|reach| ("reach", reach)))
    }
}

/// The result of an evaluation at one point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    #[serde(flatten)]
    pub point: Point,
    pub sequences: u64,
    #[serde(flatten)]
    pub figures: Figures,
}

/// The mean over several points of every figure that is one number.
pub fn means(scores: &[Score]) -> Vec<(&'static str, f64)> {
    let names = scores.iter().take(1).flat_map(|score| score.figures.means()).map(|(name, _)| name);
    let all = |name| scores.iter().flat_map(|score| score.figures.means()).filter(move |(found, _)| *found == name);
    names.map(|name| (name, all(name).map(|(_, value)| value).sum::<f64>() / scores.len() as f64)).collect()
}

/// The middle and the ends of some values.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    /// None where there are no values.
    pub fn of(values: impl Iterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let median = (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0;
        Some(Spread { median, least, most })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::Axis;

    #[test]
    fn a_score_is_read_as_it_was_written() {
        let figures = vec![
            ("loss_bits", Figure::Mean(2.0)),
            ("exact", Figure::Count(3)),
            ("position_errors", Figure::List(vec![0.0, 1.5])),
        ];
        let point = Point::new([(Axis::Length, 10), (Axis::Repeats, 20)]);
        let score = Score { point, sequences: 4, figures: Figures(figures) };
        let text = serde_json::to_string(&score).unwrap();
        assert_eq!(serde_json::from_str::<Score>(&text).unwrap(), score, "{text}");
    }

    #[test]
    fn a_spread_is_the_median_and_the_ends() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, least: 1.0, most: 3.0 }));
        assert_eq!(spread(&[4.0, 1.0]), Some(Spread { median: 2.5, least: 1.0, most: 4.0 }));
        assert_eq!(spread(&[]), None);
    }
}
