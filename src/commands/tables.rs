//! Tables of what was measured: a row a point, or a row a seed.

use crate::config::Metric;
use crate::metrics::{self, Figure, Score, Spread};
use crate::tasks::Point;
use crate::terminal::table;

/// A row a point.
pub fn points_table(scores: &[Score]) -> String {
    let mut rows: Vec<Vec<String>> = vec![];
    for score in scores {
        let mut row = point_cells(score);
        for (metric, figure) in &score.figures.0 {
            let value = match figure {
                Figure::Mean(value) => metrics::shown(metric, *value),
                Figure::Count(count) => format!("{count}/{}", score.sequences),
                Figure::List(_) => continue,
            };
            row.push((metrics::column(metric), value));
        }
        add_row(&mut rows, row);
    }
    table(&rows, 1)
}

/// The first cells of a point's row, with their headings.
fn point_cells(score: &Score) -> Vec<(String, String)> {
    let axes = score.point.values().map(|(axis, value)| (axis.name().to_string(), value.to_string()));
    axes.chain([("sequences".to_string(), score.sequences.to_string())]).collect()
}

/// Adds a row of cells, below their headings.
fn add_row(rows: &mut Vec<Vec<String>>, row: Vec<(String, String)>) {
    let (headings, values) = row.into_iter().unzip();
    if rows.is_empty() {
        rows.push(headings);
    }
    rows.push(values);
}

/// Below the table, for tasks that have it: wrong bits by position of the answer, a column a point.
pub fn positions(scores: &[Score]) -> String {
    let lists = || {
        let figures = scores.iter().flat_map(|score| score.figures.0.iter().map(move |figure| (&score.point, figure)));
        figures.filter_map(|(point, (metric, figure))| match figure {
            Figure::List(values) => Some((point, metric, values)),
            _ => None,
        })
    };
    let Some((_, metric, _)) = lists().next() else { return String::new() };
    let longest = lists().map(|(.., values)| values.len()).max().unwrap_or(0);
    let names = lists().map(|(point, ..)| point.to_string());
    let mut rows: Vec<Vec<String>> = vec![std::iter::once("position".to_string()).chain(names).collect()];
    for position in 0..longest {
        let values = lists().map(|(.., values)| values.get(position).map_or(String::new(), |x| format!("{x:.4}")));
        rows.push(std::iter::once((position + 1).to_string()).chain(values).collect());
    }
    format!("\n{}\n{}", metrics::name(metric), table(&rows, 1))
}

/// A row a point: of each number the median over the seeds, the least and the most.
pub fn spreads(runs: &[&[Score]]) -> String {
    let points = runs.iter().max_by_key(|scores| scores.len());
    let mut rows: Vec<Vec<String>> = vec![];
    for (index, score) in points.into_iter().copied().flatten().enumerate() {
        let mut row = point_cells(score);
        for (metric, figure) in &score.figures.0 {
            let values = runs.iter().filter_map(|run| run.get(index)?.figures.number(metric));
            let Some(Spread { median, least, most }) = Spread::of(values) else { continue };
            let [median, least, most] = [median, least, most].map(|value| match figure {
                Figure::Count(_) => value.to_string(),
                _ => metrics::shown(metric, value),
            });
            row.push((metrics::column(metric), format!("{median} ({least} to {most})")));
        }
        add_row(&mut rows, row);
    }
    let title = format!("median (least to most) of {} seeds", runs.len());
    format!("{title}\n{}", table(&rows, 1))
}

/// A table with a row a seed, cells of its own first, below `headings`, then a metric at each point of an evaluation.
pub fn by_seed(headings: &[&str], seeds: &[(Vec<String>, &[Score])], metric: Metric) -> String {
    let name = metric.to_string();
    let longest = seeds.iter().map(|(_, scores)| *scores).max_by_key(|scores| scores.len());
    let points: Vec<&Point> = longest.into_iter().flatten().map(|score| &score.point).collect();
    // a point has an axis a line: a grid of two axes would make the columns too wide
    let axes = points.first().map_or(0, |point| point.values().count()).max(1);
    let above = (0..axes).map(|line| {
        let own = headings.iter().map(|heading| if line + 1 == axes { heading.to_string() } else { String::new() });
        let axis = |point: &&Point| match point.values().nth(line) {
            Some((axis, value)) => format!("{} {value}", axis.name()),
            None => "all".to_string(),
        };
        own.chain(points.iter().map(axis)).collect()
    });
    let row = |(own, scores): &(Vec<String>, &[Score])| {
        own.iter().cloned().chain(scores.iter().map(|score| metrics::shown(&name, metric.of(score)))).collect()
    };
    table(&above.chain(seeds.iter().map(row)).collect::<Vec<_>>(), axes)
}

/// Seeds in their order, several in a row by the first and the last: 1, 3 to 5.
pub fn ranges(seeds: &[u64]) -> String {
    let runs = seeds.chunk_by(|a, b| a + 1 == *b);
    let said = |run: &[u64]| match run {
        [first, .., last] => format!("{first} to {last}"),
        run => run.iter().map(u64::to_string).collect(),
    };
    runs.map(said).collect::<Vec<_>>().join(", ")
}
