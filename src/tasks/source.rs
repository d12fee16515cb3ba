//! Where a run's batches come from: drawn, or read from files that are opened once.

use super::files::File;
use super::generator::{evaluation_batch, training_batch};
use super::{Batch, Origin, Point, Sequences, Task};
use crate::random::{Purpose, stream};
use anyhow::{Result, bail};
use rand::seq::SliceRandom;
use std::ops::Range;

/// A sequence that is evaluated or shown and has more steps is a slip of the fingers.
const MOST_STEPS: usize = 20_000_000;

/// The sequences of a task, ready to be drawn. A clone shares the files, which are not read through again.
#[derive(Clone)]
pub struct Source {
    /// The task, with what its files turned out to hold.
    pub task: Task,
    files: Option<Files>,
}

#[derive(Clone)]
struct Files {
    /// None for evaluation alone.
    train: Option<File>,
    eval: File,
    order: Order,
}

/// The order of the training sequences in one epoch.
#[derive(Clone, Default)]
struct Order {
    drawn_for: Option<(u64, u64)>,
    indices: Vec<usize>,
}

impl Order {
    /// The sequence at a place of the order of (seed, epoch), a shuffle of them all.
    fn at(&mut self, seed: u64, epoch: u64, place: usize, count: usize) -> usize {
        if self.drawn_for != Some((seed, epoch)) {
            self.indices = (0..count).collect();
            self.indices.shuffle(&mut stream(seed, Purpose::DataOrder, epoch));
            self.drawn_for = Some((seed, epoch));
        }
        self.indices[place]
    }
}

impl Source {
    /// For training: reads its files through once, if it has any, and refuses what is wrong in them, and other files
    /// than the task names.
    pub fn open(task: &Task) -> Result<Source> {
        let Origin::Files(wanted) = task.origin() else { return Ok(Source { task: task.clone(), files: None }) };
        wanted.validate()?;
        let train = File::open(&wanted.train, wanted.loss, wanted.widths())?;
        let eval = if wanted.eval == wanted.train {
            train.clone()
        } else {
            File::open(&wanted.eval, wanted.loss, Some(train.widths))?
        };
        for (file, content) in [(&train, &wanted.train_content), (&eval, &wanted.eval_content)] {
            if !content.is_empty() && *content != file.content {
                bail!(
                    "`{}` is not what it was when this run began: {}, it was {content}\n\
                     hint: put the file back, or begin a new run from a recipe without `train_content` and `eval_content`",
                    file.path,
                    file.content
                );
            }
        }
        let task = Task::Sequences(Sequences {
            train: train.path.clone(),
            eval: eval.path.clone(),
            loss: wanted.loss,
            input_width: train.widths.0,
            output_width: train.widths.1,
            max_steps: train.max_steps,
            train_content: train.content.clone(),
            eval_content: eval.content.clone(),
        });
        Ok(Source { task, files: Some(Files { train: Some(train), eval, order: Order::default() }) })
    }

    /// For evaluation alone: reads what is in the evaluation file now.
    pub fn open_for_evaluation(task: &Task) -> Result<Source> {
        let files = match task.origin() {
            Origin::Generated(_) => None,
            Origin::Files(wanted) => {
                let eval = File::open(&wanted.eval, wanted.loss, wanted.widths())?;
                Some(Files { train: None, eval, order: Order::default() })
            }
        };
        Ok(Source { task: task.clone(), files })
    }

    /// The batch of training step `step`, a function of (seed, step, reach) alone. `reach`: how far drawn shapes go, 1
    /// for all of the task's (see `Curriculum`); the sequences of files are what they are.
    pub fn training_batch(&mut self, seed: u64, step: u64, size: usize, reach: f64) -> Result<Batch> {
        self.training_slice(seed, step, size, reach, 0..size)
    }

    /// Some sequences of that batch, padded among themselves.
    pub fn training_slice(
        &mut self,
        seed: u64,
        step: u64,
        size: usize,
        reach: f64,
        slice: Range<usize>,
    ) -> Result<Batch> {
        match (self.task.origin(), &mut self.files) {
            (Origin::Generated(task), _) => Ok(training_batch(task, seed, step, size, reach, slice)),
            (Origin::Files(_), Some(Files { train: Some(file), order, .. })) => {
                // each start (see `Progress::batch`) begins with an epoch of its own
                let (start, step, count) = (step >> 32, step & u32::MAX as u64, file.count() as u64);
                let first = step * size as u64;
                let numbers = first + slice.start as u64..first + slice.end as u64;
                let epoch = |number: u64| (start << 32) | (number / count);
                let indices: Vec<usize> = numbers
                    .map(|number| order.at(seed, epoch(number), (number % count) as usize, file.count()))
                    .collect();
                file.batch(&indices)
            }
            (Origin::Files(_), _) => bail!("the training file has not been opened"),
        }
    }

    /// How many sequences an evaluation that wants `wanted` of them has: no more than the file, and all for 0.
    pub fn evaluation_count(&self, wanted: usize) -> usize {
        match &self.files {
            None => wanted,
            Some(files) if wanted == 0 => files.eval.count(),
            Some(files) => files.eval.count().min(wanted),
        }
    }

    /// Bytes and checksum, in words, of the evaluation file, if there is one.
    pub fn evaluation_content(&self) -> Option<&str> {
        self.files.as_ref().map(|files| files.eval.content.as_str())
    }

    /// The steps of the longest evaluation sequence at a point.
    pub fn evaluation_steps(&self, point: &Point) -> usize {
        match (self.task.origin(), &self.files) {
            (Origin::Generated(task), _) => task.steps(point),
            (Origin::Files(_), files) => files.as_ref().map_or(0, |files| files.eval.max_steps),
        }
    }

    /// The point with the longest evaluation sequences.
    pub fn largest<'a>(&self, points: &'a [Point]) -> Option<&'a Point> {
        points.iter().max_by_key(|point| self.evaluation_steps(point))
    }

    /// Refuses points whose sequences would be too long, before anything of their size is made.
    pub fn check(&self, points: &[Point]) -> Result<()> {
        match points.iter().find(|point| self.evaluation_steps(point) > MOST_STEPS) {
            None => Ok(()),
            Some(point) => {
                bail!("{point} makes {} steps, allowed: up to {MOST_STEPS}", self.evaluation_steps(point))
            }
        }
    }

    /// The evaluation sequences `first..first + size` at a point, or of the file.
    pub fn evaluation_batch(&mut self, seed: u64, point: &Point, first: u64, size: usize) -> Result<Batch> {
        match (self.task.origin(), &mut self.files) {
            (Origin::Generated(task), _) => Ok(evaluation_batch(task, seed, point, first, size)),
            (Origin::Files(_), Some(files)) => {
                files.eval.batch(&(first as usize..first as usize + size).collect::<Vec<_>>())
            }
            (Origin::Files(_), None) => bail!("the evaluation file has not been opened"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    /// Ten sequences; the input of sequence i is [i].
    fn data(directory: &Path) -> Task {
        let path = directory.join("data.jsonl").display().to_string();
        let lines: Vec<String> = (0..10).map(|i| format!(r#"{{"input": [[{i}]], "target": [[1]]}}"#)).collect();
        fs::write(&path, lines.join("\n")).unwrap();
        Task::Sequences(Sequences { train: path.clone(), eval: path, ..Sequences::default() })
    }

    fn seen(source: &mut Source, seed: u64, steps: std::ops::Range<u64>, size: usize) -> Vec<f32> {
        steps.flat_map(|step| source.training_batch(seed, step, size, 1.0).unwrap().inputs).collect()
    }

    #[test]
    fn an_epoch_has_every_sequence_once_and_the_next_another_order() {
        let directory = tempfile::tempdir().unwrap();
        let mut source = Source::open(&data(directory.path())).unwrap();
        let epochs = seen(&mut source, 1, 0..20, 1);
        for epoch in epochs.chunks(10) {
            let mut sorted = epoch.to_vec();
            sorted.sort_by(f32::total_cmp);
            assert_eq!(sorted, (0..10).map(|i| i as f32).collect::<Vec<_>>());
        }
        assert_ne!(epochs[..10], epochs[10..]);
        assert_ne!(epochs, seen(&mut source, 2, 0..20, 1));
    }

    #[test]
    fn every_start_of_a_run_begins_with_an_epoch_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let mut source = Source::open(&data(directory.path())).unwrap();
        let epochs = [0, 1, 2].map(|start: u64| seen(&mut source, 1, start << 32..(start << 32) + 10, 1));
        for epoch in &epochs {
            let mut sorted = epoch.clone();
            sorted.sort_by(f32::total_cmp);
            assert_eq!(sorted, (0..10).map(|i| i as f32).collect::<Vec<_>>());
        }
        assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2]);
    }

    #[test]
    fn a_batch_depends_on_seed_and_step_alone_even_across_epochs() {
        let directory = tempfile::tempdir().unwrap();
        let mut source = Source::open(&data(directory.path())).unwrap();
        let all = seen(&mut source, 1, 0..30, 1);
        for step in [9, 2, 0, 7] {
            let batch = seen(&mut source, 1, step..step + 1, 3); // 3 do not divide 10
            assert_eq!(batch, all[3 * step as usize..][..3], "step {step}");
        }
    }

    #[test]
    fn a_file_that_changed_since_the_task_was_resolved_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let task = Source::open(&data(directory.path())).unwrap().task;
        assert_eq!((task.input_width(), task.output_width(), task.max_steps()), (1, 1, 1));
        assert_eq!(Source::open(&task).unwrap().task, task);
        let path = directory.path().join("data.jsonl");
        fs::write(&path, fs::read_to_string(&path).unwrap().replace('9', "8")).unwrap();
        let message = Source::open(&task).err().expect("another file").to_string();
        assert!(message.contains("data.jsonl` is not what it was when this run began"), "{message}");
        Source::open_for_evaluation(&task).expect("it may be evaluated on what is there now");
    }
}
