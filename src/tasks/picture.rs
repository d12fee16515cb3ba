//! A sequence as text: a row a step, `#` for 1 and `.` for 0, numbers where a group of channels holds others.

use super::{Batch, Channels, Task};

/// The first sequence of a batch of a task.
pub fn picture(task: &Task, batch: &Batch) -> String {
    let (inputs, outputs) = task.channels();
    let rows = |values: &[f32]| -> Vec<Vec<f32>> {
        let rows = values.chunks(values.len() / batch.mask.len()).step_by(batch.size()).take(batch.lengths[0]);
        rows.map(<[f32]>::to_vec).collect()
    };
    let mask = rows(&batch.mask);
    let numbers: Vec<String> = (0..mask.len()).map(|t| t.to_string()).collect();
    let mut columns = vec![aligned("step", numbers)];
    columns.extend(groups("", &inputs, &rows(&batch.inputs)));
    columns.push(aligned("mask", mask.iter().map(|mask| if mask[0] > 0.0 { "#" } else { "." }.to_string()).collect()));
    let answers = groups("-> ", &outputs, &rows(&batch.targets));
    // a target that does not count is no 0
    let counted =
        |(t, line): (usize, String)| if t > 0 && mask[t - 1][0] == 0.0 { " ".repeat(line.len()) } else { line };
    columns.extend(answers.into_iter().map(|column| column.into_iter().enumerate().map(counted).collect()));
    let line = |t: usize| columns.iter().map(|column| column[t].as_str()).collect::<Vec<_>>().join("  ");
    (0..=mask.len()).map(|t| line(t).trim_end().to_string() + "\n").collect()
}

/// A column of text for each group of channels.
fn groups(arrow: &str, groups: &[Channels], rows: &[Vec<f32>]) -> Vec<Vec<String>> {
    let mut first = 0;
    let column = |group: &Channels| {
        let channels = first..first + group.width;
        first += group.width;
        let bits = rows.iter().all(|row| row[channels.clone()].iter().all(|&value| value == 0.0 || value == 1.0));
        let cell = |row: &Vec<f32>| -> String {
            let values = row[channels.clone()].iter();
            if bits {
                values.map(|&value| if value > 0.0 { '#' } else { '.' }).collect()
            } else {
                values.map(|&value| number(value)).collect::<Vec<_>>().join(" ")
            }
        };
        aligned(&format!("{arrow}{}", group.name), rows.iter().map(cell).collect())
    };
    groups.iter().map(column).collect()
}

fn number(value: f32) -> String {
    if value == 0.0 { "    .".to_string() } else { format!("{value:+5.2}") }
}

/// A heading and cells, padded to one width.
fn aligned(heading: &str, cells: Vec<String>) -> Vec<String> {
    let width = cells.iter().map(String::len).max().unwrap_or(0).max(heading.len());
    std::iter::once(heading.to_string()).chain(cells).map(|cell| format!("{cell:width$}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::{Copy, PrioritySort, Source};

    fn lines(task: Task) -> Vec<String> {
        let mut source = Source::open(&task).unwrap();
        let batch = source.evaluation_batch(1, &task.sample(), 0, 1).unwrap();
        picture(&task, &batch).lines().map(str::to_string).collect()
    }

    #[test]
    fn a_picture_shows_what_goes_in_what_counts_and_what_should_come_out() {
        let lines = lines(Task::Copy(Copy { width: 3, ..Copy::default() }));
        assert_eq!(lines[0], "step  data  end  mask  -> data");
        assert_eq!(lines[6], "5     ...   #    .", "{lines:?}");
        for (seen, answer) in lines[1..6].iter().zip(&lines[7..12]) {
            assert_eq!(seen[6..9], answer[23..26], "{lines:?}");
        }
    }

    #[test]
    fn real_values_are_numbers_and_everything_fits_in_80_columns() {
        let lines = lines(Task::PrioritySort(PrioritySort::default()));
        assert!(lines[1][16..].trim_start().starts_with(['+', '-']), "{lines:?}");
        for task in Task::kinds().into_iter().filter(|task| !matches!(task, Task::Sequences(_))) {
            assert!(super::tests::lines(task).iter().all(|line| line.len() <= 80));
        }
    }
}
