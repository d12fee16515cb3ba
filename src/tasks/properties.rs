//! What the tests of every generated task share, and the properties that all of them have.

use super::batch::chosen;
use super::generator::{Generator, evaluation_batch, training_batch};
use super::{Batch, Channels, Origin, Point, Task};
use crate::random::{Purpose, stream};
use rand::RngCore;
use std::ops::RangeInclusive;

/// One sequence as its steps.
pub struct Drawn {
    pub input: Vec<Vec<f32>>,
    pub target: Vec<Vec<f32>>,
    pub mask: Vec<f32>,
}

impl Drawn {
    /// Sequence b of a batch.
    pub fn of(batch: &Batch, b: usize) -> Drawn {
        let (rows, size) = (batch.mask.len(), batch.size());
        let column = |values: &[f32]| -> Vec<Vec<f32>> {
            let rows = values.chunks(values.len() / rows).skip(b).step_by(size).take(batch.lengths[b]);
            rows.map(<[f32]>::to_vec).collect()
        };
        let mask = column(&batch.mask).concat();
        Drawn { input: column(&batch.inputs), target: column(&batch.targets), mask }
    }

    /// Sequences of training, two a batch.
    pub fn training(task: &Task, count: u64) -> impl Iterator<Item = Drawn> {
        let batches = (0..count / 2).map(|step| training_batch(generator(task), 7, step, 2, 1.0, 0..2));
        batches.flat_map(|batch| [Drawn::of(&batch, 0), Drawn::of(&batch, 1)])
    }

    /// Sequences of evaluation at a point.
    pub fn evaluation(task: &Task, point: &Point, count: u64) -> impl Iterator<Item = Drawn> {
        (0..count).map(move |index| Drawn::of(&evaluation_batch(generator(task), 7, point, index, 1), 0))
    }

    /// The targets of the steps that count.
    pub fn answers(&self) -> Vec<Vec<f32>> {
        let counted = self.target.iter().zip(&self.mask).filter(|(_, mask)| **mask == 1.0);
        counted.map(|(target, _)| target.clone()).collect()
    }
}

/// Two tasks have the same evaluation sequences at a point, 20 of them.
pub fn assert_evaluated_alike(tasks: [Task; 2], point: &Point) {
    let [one, other] =
        tasks.map(|task| Drawn::evaluation(&task, point, 20).map(|drawn| drawn.input).collect::<Vec<_>>());
    assert_eq!(one, other);
}

fn generator(task: &Task) -> &dyn Generator {
    match task.origin() {
        Origin::Generated(generator) => generator,
        Origin::Files(_) => panic!("{} is not generated", task.name()),
    }
}

fn generated() -> Vec<Task> {
    Task::kinds().into_iter().filter(|task| matches!(task.origin(), Origin::Generated(_))).collect()
}

/// Over 2,000 draws: the answers are what a rule makes of the input, they stand in the last steps, only they count, and
/// there is no target anywhere else.
pub fn assert_answers_follow(task: &Task, rule: impl Fn(&Drawn) -> Vec<Vec<f32>>) {
    for drawn in Drawn::training(task, 2000) {
        let expected = rule(&drawn);
        let silent = drawn.input.len() - expected.len();
        assert_eq!(drawn.answers(), expected);
        assert!(drawn.mask[..silent].iter().all(|&mask| mask == 0.0), "{:?}", drawn.mask);
        assert!(drawn.mask[silent..].iter().all(|&mask| mask == 1.0), "{:?}", drawn.mask);
        assert!(drawn.target[..silent].iter().flatten().all(|&value| value == 0.0));
    }
}

/// Over 4,000 draws: what `read` finds in a sequence is uniform over a range, both ends included, and never outside.
pub fn assert_uniform(task: &Task, range: RangeInclusive<usize>, read: impl Fn(&Drawn) -> usize) {
    let mut counts = vec![0.0; range.end() + 1];
    for drawn in Drawn::training(task, 4000) {
        let found = read(&drawn);
        assert!(range.contains(&found), "{found} is not in {range:?}");
        counts[found] += 1.0;
    }
    let expected = 4000.0 / range.clone().count() as f64;
    let allowed = 5.0 * expected.sqrt(); // five standard deviations
    assert!(counts[*range.start()..].iter().all(|count: &f64| (count - expected).abs() < allowed), "{counts:?}");
}

#[test]
fn a_batch_depends_on_seed_and_step_alone() {
    for task in generated() {
        let draw = |seed, step| training_batch(generator(&task), seed, step, 4, 1.0, 0..4);
        let batch = draw(3, 17);
        draw(3, 16);
        assert_eq!(batch, draw(3, 17), "{}", task.name());
        let mut others: Vec<Batch> =
            (0..1000).map(|step| draw(3, step)).chain((4..8).map(|seed| draw(seed, 17))).collect();
        assert_eq!(others.remove(17), batch, "{}", task.name());
        assert!(!others.contains(&batch), "{}: another step or seed gives the same", task.name());
    }
}

#[test]
fn evaluation_sequences_are_none_of_training_and_do_not_depend_on_batches() {
    for task in generated() {
        let point = task.sample();
        let together = evaluation_batch(generator(&task), 1, &point, 0, 3);
        let third = evaluation_batch(generator(&task), 1, &point, 2, 1);
        assert_eq!(Drawn::of(&together, 2).input, Drawn::of(&third, 0).input, "{}", task.name());
        let inputs = |first| evaluation_batch(generator(&task), 1, &point, first, 1).inputs;
        assert_ne!(inputs(0), inputs(1), "{}", task.name());

        // number by number, which one stream would make the same; of the longest, which chance does not
        let longest = task.longest();
        let pairs = (0..500).map(|number| {
            let evaluated = evaluation_batch(generator(&task), 1, &longest, number, 1);
            (training_batch(generator(&task), 1, number, 1, 1.0, 0..1), evaluated)
        });
        let pairs: Vec<_> = pairs.filter(|(trained, evaluated)| trained.steps == evaluated.steps).collect();
        assert!(!pairs.is_empty(), "{}", task.name());
        assert!(pairs.iter().all(|(trained, evaluated)| trained != evaluated), "{}", task.name());
    }
}

#[test]
fn sequences_have_the_steps_and_the_channels_their_task_announces() {
    for task in generated() {
        let generator = generator(&task);
        assert_eq!(task.input_width(), Channels::width(&generator.inputs()), "{}", task.name());
        let longest = (0..500).map(|step| training_batch(generator, 1, step, 4, 1.0, 0..4).steps).max();
        assert_eq!(longest, Some(task.max_steps()), "{}", task.name());
        let batch = evaluation_batch(generator, 1, &task.sample(), 0, 2);
        assert_eq!(batch.lengths, [generator.steps(&task.sample()); 2], "{}", task.name());
        assert_eq!(batch.inputs.len(), 2 * batch.steps * task.input_width(), "{}", task.name());
        assert_eq!(batch.targets.len(), 2 * batch.steps * task.output_width(), "{}", task.name());
    }
}

#[test]
fn by_default_training_draws_what_evaluation_would_from_the_same_stream() {
    for task in generated() {
        let (generator, point) = (generator(&task), task.sample());
        let drawn = |training| {
            let mut batch = Batch::zeros(vec![generator.steps(&point)], task.input_width(), task.output_width());
            let mut rng = stream(1, Purpose::TrainingSequence, 0);
            generator.draw(&point, training, &mut rng, &mut batch.column(0));
            (batch, rng.next_u64())
        };
        assert_eq!(drawn(true), drawn(false), "{}", task.name());
    }
    let (mut asked, mut untouched) = (stream(1, Purpose::TrainingSequence, 0), stream(1, Purpose::TrainingSequence, 0));
    assert!(!chosen(0.0, &mut asked));
    assert_eq!(asked.next_u64(), untouched.next_u64(), "nor does the choice take anything from it");
}

/// Sets `mixed_lengths`; false if the task has none.
fn set_mixed(task: &mut Task, mixed: bool) -> bool {
    match task {
        Task::Copy(task) => task.mixed_lengths = mixed,
        Task::RepeatCopy(task) => task.mixed_lengths = mixed,
        Task::AssociativeRecall(task) => task.mixed_lengths = mixed,
        Task::Ngrams(_) | Task::PrioritySort(_) | Task::Sequences(_) => return false,
    }
    true
}

#[test]
fn a_batch_mixes_shapes_by_default_or_not_and_a_batch_of_one_is_the_same_either_way() {
    let mixes = |task: &Task| {
        let mut batches = (0..20).map(|step| training_batch(generator(task), 1, step, 8, 1.0, 0..8));
        batches.any(|batch| batch.lengths.iter().any(|&length| length != batch.steps))
    };
    let single = |task: &Task| training_batch(generator(task), 1, 5, 1, 1.0, 0..1);
    for mut task in generated() {
        let (varies, before) = (mixes(&task), single(&task));
        assert_eq!(set_mixed(&mut task, false), varies, "{}: mixed by default if its shape varies", task.name());
        assert!(!mixes(&task), "{}", task.name());
        assert_eq!(single(&task), before, "{}", task.name());
    }
}
