//! Axes: the ways in which the sequences of a task vary, at random in training and over a grid in evaluation.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

/// One way to vary. Recipes and flags name it in the plural.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Axis {
    #[serde(rename = "lengths")]
    Length,
    #[serde(rename = "repeats")]
    Repeats,
    #[serde(rename = "items")]
    Items,
    #[serde(rename = "vectors")]
    Vectors,
}

impl Axis {
    pub const ALL: [Axis; 4] = [Axis::Length, Axis::Repeats, Axis::Items, Axis::Vectors];

    /// As a field of `evaluation` and as a flag.
    pub fn plural(self) -> &'static str {
        match self {
            Axis::Length => "lengths",
            Axis::Repeats => "repeats",
            Axis::Items => "items",
            Axis::Vectors => "vectors",
        }
    }

    /// As the name of one value.
    pub fn name(self) -> &'static str {
        match self {
            Axis::Length => "length",
            other => other.plural(),
        }
    }
}

/// The values of one axis that a task takes.
#[derive(Clone, Debug)]
pub struct Varying {
    pub axis: Axis,
    /// The least value that makes a sequence.
    pub least: usize,
    /// Training draws uniformly from these, both ends included.
    pub training: RangeInclusive<usize>,
    /// Where a recipe that says nothing is evaluated.
    pub evaluation: Vec<usize>,
    /// For a sequence to look at.
    pub sample: usize,
}

/// The most that any axis can have.
pub const MOST: usize = 1_000_000;

/// One point of the space a task varies in: a value for each of its axes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Point(Vec<(Axis, usize)>);

impl Point {
    pub fn new(values: impl IntoIterator<Item = (Axis, usize)>) -> Point {
        Point(values.into_iter().collect())
    }

    /// The value of an axis. Panics if there is none: a task asks for its own.
    pub fn at(&self, axis: Axis) -> usize {
        self.0.iter().find(|(found, _)| *found == axis).unwrap_or_else(|| panic!("no value for {axis:?}")).1
    }

    pub fn values(&self) -> impl Iterator<Item = (Axis, usize)> {
        self.0.iter().copied()
    }

    /// In a sentence: ` at length 10, repeats 20`; nothing where there is no axis.
    pub fn place(&self) -> String {
        if self.0.is_empty() { String::new() } else { format!(" at {self}") }
    }

    /// For TensorBoard: `length_20`, `length_10_repeats_20`; nothing where there is no axis.
    pub fn tag(&self) -> String {
        self.0.iter().map(|(axis, value)| format!("{}_{value}", axis.name())).collect::<Vec<_>>().join("_")
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let values: Vec<String> = self.0.iter().map(|(axis, value)| format!("{} {value}", axis.name())).collect();
        f.write_str(&values.join(", "))
    }
}

impl Serialize for Point {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(axis, value)| (axis.name(), value)))
    }
}

/// The axes among the fields of an object.
impl<'de> Deserialize<'de> for Point {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Point, D::Error> {
        let fields = serde_json::Map::deserialize(deserializer)?;
        let value = |axis: Axis| Some((axis, fields.get(axis.name())?.as_u64()? as usize));
        Ok(Point::new(Axis::ALL.into_iter().filter_map(value)))
    }
}

/// Several values for each axis.
pub type Grid = BTreeMap<Axis, Vec<usize>>;

/// Every combination of a grid's values, the last axis varying fastest.
pub fn points(grid: &Grid) -> Vec<Point> {
    grid.iter().fold(vec![Point::default()], |points, (axis, values)| {
        let extended = |point: &Point, value: usize| Point::new(point.values().chain([(*axis, value)]));
        points.iter().flat_map(|point| values.iter().map(move |value| extended(point, *value))).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::words_of;

    #[test]
    fn a_point_of_every_axis_is_read_as_it_was_written() {
        let point = Point::new(words_of::<Axis>().iter().map(|name| {
            let axis: Axis = serde_json::from_value((*name).into()).unwrap();
            assert_eq!(axis.plural(), *name);
            (axis, name.len())
        }));
        assert_eq!(serde_json::from_value::<Point>(serde_json::to_value(&point).unwrap()).unwrap(), point);
    }

    #[test]
    fn a_grid_has_a_point_for_every_combination_and_one_without_axes() {
        let grid = Grid::from([(Axis::Length, vec![10, 20]), (Axis::Repeats, vec![3, 4])]);
        let shown: Vec<String> = points(&grid).iter().map(Point::to_string).collect();
        assert_eq!(shown[..2], ["length 10, repeats 3", "length 10, repeats 4"]);
        assert_eq!(shown[2..], ["length 20, repeats 3", "length 20, repeats 4"]);
        assert_eq!(points(&Grid::new()), [Point::default()]);
    }
}
