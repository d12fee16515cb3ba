//! The rows of the memory that a picture shows: those in use, with what lies between them.

/// A row is in use if some head's weighting on it ever exceeds this.
const USED: f32 = 0.05;
/// Rows shown on either side of those in use.
const BESIDE: usize = 2;

/// Rows `first..first + count`, modulo all rows: after the last one comes row 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    pub first: usize,
    pub count: usize,
}

impl Window {
    /// For weightings (.., rows): all but the longest gap, or all rows if that saves less than a quarter.
    pub fn of(weightings: &[f32], rows: usize) -> Window {
        let mut used = vec![false; rows];
        for weighting in weightings.chunks(rows) {
            used.iter_mut().zip(weighting).for_each(|(used, weight)| *used |= *weight > USED);
        }
        let all = Window { first: 0, count: rows };
        let Some(some) = used.iter().position(|used| *used) else { return all };
        // once around from a used row: (length, end) of the longest gap
        let (mut gap, mut longest) = (0, (0, some));
        for row in some + 1..=some + rows {
            if used[row % rows] {
                longest = longest.max((gap, row % rows));
                gap = 0;
            } else {
                gap += 1;
            }
        }
        let count = rows - longest.0 + 2 * BESIDE;
        if 4 * count > 3 * rows {
            return all;
        }
        // the start of the memory is a natural place to begin at
        let first = (longest.1 + rows - BESIDE) % rows;
        if first + BESIDE >= rows {
            Window { first: 0, count: count - (rows - first) }
        } else {
            Window { first, count }
        }
    }

    /// The rows of the window, in order, of weightings (.., rows).
    pub fn cut(self, weightings: &[f32], rows: usize) -> Vec<f32> {
        let cut = |weighting: &[f32]| (0..self.count).map(|i| weighting[(self.first + i) % rows]).collect::<Vec<_>>();
        weightings.chunks(rows).flat_map(cut).collect()
    }

    /// In words, for the title of a panel.
    pub fn said(self, rows: usize) -> String {
        if self.count == rows {
            return format!("all {rows} rows");
        }
        format!("rows {} to {} of {rows}", self.first, (self.first + self.count - 1) % rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(used: impl IntoIterator<Item = usize>) -> Window {
        let mut weighting = vec![0.0; 40];
        used.into_iter().for_each(|row| weighting[row] = 1.0);
        Window::of(&weighting, 40)
    }

    #[test]
    fn the_rows_in_use_are_shown_with_two_on_either_side() {
        assert_eq!(window(10..20), Window { first: 8, count: 14 });
        assert_eq!(window([10, 19]), Window { first: 8, count: 14 });
        assert_eq!(window([10]), Window { first: 8, count: 5 });
    }

    #[test]
    fn rows_in_use_around_the_end_stay_together() {
        let around = window((36..40).chain(0..4));
        assert_eq!((around, around.said(40).as_str()), (Window { first: 34, count: 12 }, "rows 34 to 5 of 40"));
        let weighting: Vec<f32> = (0..40).map(|row| row as f32).collect();
        assert_eq!(around.cut(&weighting, 40)[4..8], [38.0, 39.0, 0.0, 1.0]);
    }

    #[test]
    fn a_window_that_begins_near_row_0_begins_there() {
        assert_eq!(window(0..10), Window { first: 0, count: 12 });
        assert_eq!(window(1..10), Window { first: 0, count: 12 });
    }

    #[test]
    fn all_rows_are_shown_where_cutting_saves_little_or_nothing_is_in_use() {
        let all = Window { first: 0, count: 40 };
        assert_eq!((window(0..30), window([])), (all, all));
        assert_eq!(all.said(40), "all 40 rows");
    }
}
