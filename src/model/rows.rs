//! The same machine with another number of memory rows: N is not a weight, but a learned first weighting has N logits.

use super::Spec;
use super::config::{Config, MemoryStart};
use super::parameters::Layout;
use anyhow::{Result, bail};

/// The config and theta of a machine with `rows` memory rows that was trained with another number. A learned first
/// weighting gets, for each new row, the smallest logit of its head; of fewer rows it keeps the first.
pub fn with_rows(spec: Spec, theta: &[f32], rows: usize) -> Result<(Config, Vec<f32>)> {
    let mut changed = spec.config.clone();
    match &mut changed {
        Config::Lstm(_) => bail!("an LSTM without memory has no memory rows"),
        Config::Ntm(ntm) if ntm.init.memory != MemoryStart::Constant && ntm.memory.rows != rows => bail!(
            "`model.init.memory` is not constant: the {} initial rows do not define {rows}\n\
             hint: train with `model.init.memory` constant to change the number of rows",
            ntm.memory.rows
        ),
        Config::Ntm(ntm) => ntm.memory.rows = rows,
    }
    changed.validate()?;
    let (before, after) = (Layout::new(spec), Layout::new(Spec { config: &changed, ..spec }));
    let mut resized = Vec::with_capacity(after.size());
    for parameter in &before.parameters {
        let values = &theta[parameter.range()];
        if parameter.name == "init.weighting" {
            for logits in values.chunks_exact(parameter.shape[1]) {
                let smallest = logits.iter().copied().fold(f32::INFINITY, f32::min);
                resized.extend((0..rows).map(|row| logits.get(row).copied().unwrap_or(smallest)));
            }
        } else {
            resized.extend(values);
        }
    }
    assert_eq!(resized.len(), after.size());
    Ok((changed, resized))
}

#[cfg(test)]
mod tests {
    use super::super::config::{Layers, NtmConfig, WeightingStart};
    use super::*;

    fn config(rows: usize, memory: MemoryStart, weighting: WeightingStart) -> Config {
        let mut ntm = NtmConfig::default();
        ntm.memory.rows = rows;
        (ntm.init.memory, ntm.init.weighting) = (memory, weighting);
        Config::Ntm(ntm)
    }

    /// The first weightings, two heads, of a machine of 3 rows with every value its own, resized.
    fn weightings(rows: usize) -> Vec<f32> {
        let before = config(3, MemoryStart::Constant, WeightingStart::Learned);
        let layout = Layout::new(Spec::new(&before, 9, 8));
        let mut theta: Vec<f32> = (0..layout.size()).map(|i| i as f32).collect();
        theta[layout.get("init.weighting").range()].copy_from_slice(&[9.0, -1.0, 0.5, 8.0, 2.0, 3.0]);
        let (after, resized) = with_rows(Spec::new(&before, 9, 8), &theta, rows).unwrap();
        assert_eq!(after, config(rows, MemoryStart::Constant, WeightingStart::Learned));
        let range = Layout::new(Spec::new(&after, 9, 8)).get("init.weighting").range();
        assert_eq!(resized[..range.start], theta[..range.start], "every other weight stays");
        resized[range].to_vec()
    }

    #[test]
    fn new_rows_get_the_smallest_logit_of_their_head_and_fewer_rows_are_the_first() {
        assert_eq!(weightings(5), [9.0, -1.0, 0.5, -1.0, -1.0, 8.0, 2.0, 3.0, 2.0, 2.0]);
        assert_eq!(weightings(3), [9.0, -1.0, 0.5, 8.0, 2.0, 3.0]);
        assert_eq!(weightings(2), [9.0, -1.0, 8.0, 2.0]);
    }

    #[test]
    fn a_start_that_is_no_weight_needs_nothing() {
        let before = config(3, MemoryStart::Constant, WeightingStart::OneHot);
        let theta = Layout::new(Spec::new(&before, 9, 8)).initial_theta(1);
        assert_eq!(with_rows(Spec::new(&before, 9, 8), &theta, 64).unwrap().1, theta);
    }

    #[test]
    fn a_memory_that_starts_from_weights_and_a_network_without_memory_are_refused() {
        let before = config(3, MemoryStart::Learned, WeightingStart::Learned);
        let theta = Layout::new(Spec::new(&before, 9, 8)).initial_theta(1);
        let message = with_rows(Spec::new(&before, 9, 8), &theta, 4).expect_err("3 rows are known").to_string();
        assert!(message.contains("the 3 initial rows do not define 4\nhint: "), "{message}");
        with_rows(Spec::new(&before, 9, 8), &theta, 3).expect("3 rows are what it has");
        let lstm = Config::Lstm(Layers { hidden: 3, layers: 1 });
        let message = with_rows(Spec::new(&lstm, 9, 8), &[], 4).expect_err("no memory").to_string();
        assert!(message.contains("no memory rows"), "{message}");
    }
}
