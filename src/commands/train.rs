use super::choice::{Choice, as_begun, cores};
use super::signals::stop_signal;
use super::{machine_file, resize, study, usage};
use crate::checkpoint::{Checkpoint, bytes};
use crate::cli::{self, Train};
use crate::config::{OnNonfinite, Recipe};
use crate::device;
use crate::display::Display;
use crate::distributed::{Group, Lost, Place, launched};
use crate::engine::Engine;
use crate::lock::Lock;
use crate::model::Config;
use crate::optim::Schedule;
use crate::run::Run;
use crate::simd;
use crate::study::Study;
use crate::tasks::{Source, Task, points};
use crate::terminal::{say, shell_path};
use crate::train::{Ended, Jobs, NotFinite, Trainer};
use anyhow::{Context, Error, Result, anyhow, bail};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// How long after a signal the same wish may come again: from `timeout`, which signals its group, too, and where a terminal
/// closes, from the shell and from the system.
const REPEATED: Duration = Duration::from_millis(500);
/// Of a launched process: from the scheduler, from the terminal, and from torchrun, which kills after that time.
const REPEATED_BY_LAUNCHER: Duration = Duration::from_secs(30);

pub fn run(flags: Train) -> Result<ExitCode> {
    let place = Place::from_environment()?;
    let study = flags.seeds.is_some() || flags.resume.as_deref().is_some_and(Study::is_in); // which answers above its bars
    let stop = stop_signal(if launched() { REPEATED_BY_LAUNCHER } else { REPEATED }, !study)?;
    let Some(place) = place else { return train(&flags, Group::alone(), None, stop) };
    let joined = Group::join(&place, Duration::from_secs(flags.peer_timeout.into()));
    let trained = joined.and_then(|group| train(&flags, group, Some(&place), stop));
    trained.map_err(|error| error.context(format!("rank {}", place.rank)))
}

/// Trains as one rank of a group; `place`: where it stands, if it is not alone.
fn train(
    flags: &Train,
    group: Group,
    place: Option<&Place>,
    stop: impl Fn() -> Option<i32> + Sync,
) -> Result<ExitCode> {
    let seeds = flags.seeds.as_ref().map(|seeds| &seeds.0);
    // first, since from here on the ranks must make the same calls
    let asked = json!({ "resume": flags.resume.is_some(), "seeds": seeds, "jobs": flags.jobs });
    group.agree("what to do", Ok(()), |()| asked.clone())?;
    let goes_on = || Ok(flags.resume.as_deref().is_some_and(Study::is_in));
    if flags.seeds.is_some() || flags.resume.is_some() && group.finds(goes_on)? {
        return study::run(flags, &group, place, stop);
    }
    if flags.jobs.is_some() && !group.is_alone() {
        let refused =
            usage("`--jobs` in a job of several processes is for several seeds\nhint: name them with --seeds");
        return group.agree("jobs", refused, |_| Value::Null);
    }
    let leads = group.leads();
    let Some((mut trainer, mut run)) = start(flags, group, place)? else { return Ok(ExitCode::SUCCESS) };
    let total = trainer.progress.expected(&trainer.recipe);
    let mut display = if leads { Display::new(total, trainer.progress.sequences) } else { Display::Silent };
    let ended = trainer.run(run.as_mut(), &mut display, stop);
    display.close();
    let ended =
        ended.map_err(|error| anyhow!("training stopped: {error:#}{}", hints(&error, &trainer, run.as_ref())))?;
    match (ended, run) {
        (Ended::Stopped(signal), None) => Ok(ExitCode::from(128 + signal as u8)),
        (Ended::Finished, None) => Ok(ExitCode::SUCCESS),
        (Ended::Finished, Some(run)) => {
            let (sequences, seconds) = (trainer.progress.sequences, trainer.progress.seconds);
            let directory = shell_path(run.directory());
            say(&format!("trained {sequences} sequences in {seconds:.1} s; the run is in {directory}"));
            let measured = if trainer.progress.best.is_some() { directory.clone() } else { shell_path(&run.latest()) };
            say(&format!("next: ntm eval --checkpoint {measured}"));
            say(&format!("      tensorboard --logdir {directory}"));
            Ok(ExitCode::SUCCESS)
        }
        (Ended::Stopped(signal), Some(run)) => {
            let (sequences, directory) = (trainer.progress.sequences, shell_path(run.directory()));
            say(&format!("stopped and saved after {sequences} sequences; go on with: ntm train --resume {directory}"));
            Ok(ExitCode::from(128 + signal as u8))
        }
    }
}

/// What to do after an error that has ended a run.
fn hints(error: &Error, trainer: &Trainer, run: Option<&Run>) -> String {
    let Some(run) = run else {
        return "\nhint: the messages of the other ranks may say why; rank 0 has the checkpoint".to_string();
    };
    let (latest, directory) = (run.latest(), shell_path(run.directory()));
    let mut hints = String::new();
    if latest.exists() {
        hints += &format!("\nhint: the last good checkpoint is {}", latest.display());
    }
    if error.is::<Lost>() {
        hints += &format!(
            "\nhint: the messages of the other ranks may say why; then the same with `ntm train --resume {directory}`"
        );
    }
    if error.is::<NotFinite>() {
        hints += "\nhint: a new run with a lower rate or clip may help";
        if trainer.recipe.training.on_nonfinite.rollbacks() == 0 {
            hints += &format!(", or `ntm train --resume {directory} --on-nonfinite rollback`, which halves the rate");
        }
    }
    hints
}

/// The recipe that the flags make, and its sequences.
pub fn recipe(flags: &Train) -> Result<(Recipe, Source)> {
    let mut settings = flags.set.clone();
    settings.extend(flags.seed.map(|seed| format!("training.seed={seed}")));
    if let Some(from) = &flags.from {
        let from = from.to_str().with_context(|| format!("`--from {}` is not UTF-8", from.display()))?;
        settings.push(format!("training.from={}", json!(from)));
    }
    let mut recipe = Recipe::load(&flags.recipe, &settings)?;
    change(&mut recipe, flags)?;
    if !recipe.training.from.is_empty() {
        let from = std::path::absolute(&recipe.training.from).context("in `training.from`")?;
        recipe.training.from = from.display().to_string();
    }
    let source = Source::open(&recipe.task)?;
    recipe.task = source.task.clone();
    recipe.validate()?;
    source.check(&points(&recipe.evaluation.grid)).with_context(|| in_recipe(flags))?;
    Ok((recipe, source))
}

/// The weights that a new run of a recipe begins with; none where they are drawn.
pub fn weights(recipe: &Recipe) -> Result<Option<Vec<f32>>> {
    let from = &recipe.training.from;
    if from.is_empty() {
        return Ok(None);
    }
    let mut other = Checkpoint::load(&machine_file(Path::new(from))?)?;
    if let (Config::Ntm(wanted), Config::Ntm(found)) = (&recipe.model, &other.recipe.model) {
        for (field, wanted, found) in
            [("key", wanted.activation.key, found.activation.key), ("add", wanted.activation.add, found.activation.add)]
        {
            if wanted != found {
                let [wanted, found] = [wanted, found].map(|activation| format!("{activation:?}").to_lowercase());
                bail!(
                    "`{from}` is another network: its `model.activation.{field}` is {found}, this recipe's {wanted}\n\
                     hint: `--set model.activation.{field}={found}`"
                );
            }
        }
        resize(&mut other, wanted.memory.rows).with_context(|| format!("the weights of `{from}`"))?;
    }
    let [wanted, found] = [recipe, &other.recipe].map(|recipe| {
        let shapes = recipe.layout().parameters.into_iter().map(|parameter| (parameter.name, parameter.shape));
        shapes.collect::<BTreeMap<String, Vec<usize>>>()
    });
    if let Some(name) = wanted.keys().chain(found.keys()).find(|name| wanted.get(*name) != found.get(*name)) {
        let [wanted, found] = [&wanted, &found]
            .map(|of| of.get(name).map_or("none".to_string(), |shape| format!("one of shape {shape:?}")));
        bail!(
            "`{from}` is another network: of `{name}` it has {found}, this recipe needs {wanted}\n\
             hint: the widths of the task and `model` must be those of the checkpoint, but for `model.memory.rows`"
        );
    }
    Ok(Some(other.theta))
}

/// By which weights are told from others.
pub fn checksum(weights: &[f32]) -> u32 {
    crc32fast::hash(bytes(weights))
}

/// Where something is wrong.
pub fn in_recipe(flags: &Train) -> String {
    match &flags.resume {
        None => format!("in recipe `{}`", flags.recipe),
        Some(directory) => format!("in the recipe of `{}`", directory.display()),
    }
}

/// The changes that a run may also go on with.
pub fn change(recipe: &mut Recipe, flags: &Train) -> Result<()> {
    let training = &mut recipe.training;
    if let Some(choice) = flags.on_nonfinite {
        training.on_nonfinite = match choice {
            cli::OnNonfinite::Stop => OnNonfinite::Stop {},
            cli::OnNonfinite::Rollback if training.on_nonfinite.rollbacks() > 0 => training.on_nonfinite.clone(),
            cli::OnNonfinite::Rollback => OnNonfinite::Rollback { at_most: OnNonfinite::ROLLBACKS },
        };
    }
    if let Some(sequences) = flags.sequences {
        training.sequences = sequences;
        recipe.validate().with_context(|| format!("`--sequences {sequences}`"))?;
    }
    Ok(())
}

/// Where a run goes: as told, or `runs/<recipe>-<suffix>`.
pub fn directory(flags: &Train, suffix: &str) -> PathBuf {
    let name = PathBuf::from(&flags.recipe).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    flags.run_dir.clone().unwrap_or_else(|| PathBuf::from(format!("runs/{name}-{suffix}")))
}

/// What to train and where the rank that leads logs it; none if there is nothing left to do.
fn start(flags: &Train, mut group: Group, place: Option<&Place>) -> Result<Option<(Trainer, Option<Run>)>> {
    let begun = if flags.resume.is_some() { Ok(None) } else { recipe(flags).map(Some) };
    let begun = group.agree("command line", begun, |begun| asked(flags, begun.as_ref().map(|(recipe, _)| recipe)))?;
    let (recipe, source) = begun.unzip();
    let seed = recipe.as_ref().map_or(0, |recipe| recipe.training.seed);
    let directory = flags.resume.clone().unwrap_or_else(|| directory(flags, &seed.to_string()));
    let (lock, checkpoint) = saved(flags, &group, &directory, recipe.as_ref())?.unzip();
    if let Some(checkpoint) = checkpoint.as_ref().filter(|checkpoint| checkpoint.finished()) {
        let solved = checkpoint.progress.stops_solved(&checkpoint.recipe);
        let cure = if solved { "solved, and its recipe stops there" } else { "more with --sequences" };
        let (shown, seen) = (directory.display(), checkpoint.progress.sequences);
        group.say(&format!("{shown} is finished: {seen} sequences seen; {cure}"));
        return Ok(None);
    }
    let recipe = checkpoint.as_ref().map(|checkpoint| checkpoint.recipe.clone()).or(recipe);
    let recipe = recipe.context("a run begins or goes on")?;
    let prepare = || -> Result<_> {
        let batch = recipe.training.batch_size;
        if batch < group.size {
            bail!(
                "a batch of {batch} cannot be shared among {} ranks\n\
                 hint: `--set training.batch_size=N` of at least that, or fewer ranks",
                group.size
            );
        }
        let source = source.map_or_else(|| Source::open(&recipe.task), Ok)?;
        let jobs = flags.jobs.map(usize::from);
        let each = (cores(place) / jobs.unwrap_or(1)).max(1);
        let begun = checkpoint.as_ref().map_or(["", ""], |at| [&at.progress.engine, &at.progress.device]);
        let machine = as_begun(&flags.machine, begun[0], begun[1]);
        // several starts have more of the cores than of a card; a run that has begun stays where it is
        let training = &recipe.training;
        let many = training.restart.until_solved() && training.on_nonfinite.rollbacks() == 0 && jobs != Some(1);
        let choice = match many && cores(place) > 1 && group.is_alone() && checkpoint.is_none() {
            true => Choice::side_by_side(&machine, place, each, "starts go side by side on the cores")?,
            false => Choice::new(&machine, place, each)?,
        };
        let choice = choice.for_recipe(&machine, place, &recipe)?;
        let starts = if group.is_alone() { choice.starts(jobs, cores(place), &recipe)? } else { 1 };
        let choice = if starts > 1 { choice.of_several(&recipe) } else { choice };
        choice.check_memory(&recipe, starts, group.size).with_context(|| in_recipe(flags))?;
        let weights = if checkpoint.is_none() { weights(&recipe)? } else { None };
        Ok((source, choice.engine(&recipe)?, choice, starts, weights))
    };
    let said = |(_, engine, choice, _, weights): &(_, Box<dyn Engine>, Choice, _, Option<Vec<f32>>)| {
        let device = device::kind(choice.device);
        json!({ "recipe": recipe, "engine": engine.name(), "device": device, "fused multiply-add": simd::has_fma(),
            "weights": weights.as_deref().map(checksum) })
    };
    let (source, engine, choice, starts, weights) = group.agree("run", prepare(), said)?;
    if choice.device.is_cuda() {
        group.use_cards(choice.device)?;
    }
    let saved = checkpoint.as_ref().zip(lock.flatten());
    let run = group.lead(|| log(flags, &directory, &recipe, saved, &choice, group.size, starts))?;
    let jobs = Jobs::of(starts);
    jobs.take(); // the run's own
    let mut trainer = choice.trainer(&recipe, checkpoint.as_ref(), source, engine, &jobs)?;
    if let Some(weights) = &weights {
        trainer.begin_with(weights);
    }
    Ok(Some((trainer.in_group(group), run)))
}

/// The checkpoint to go on from, and the lock on its directory, which the rank that leads holds; none where a run begins.
fn saved(
    flags: &Train,
    group: &Group,
    directory: &Path,
    begun: Option<&Recipe>,
) -> Result<Option<(Option<Lock>, Checkpoint)>> {
    // torchrun starts a job that failed again by the same command line, which goes on then
    let again = || Ok(Run::is_in(directory) && group.goes_on_with(directory)?);
    if flags.resume.is_none() && !group.finds(again)? {
        group.lead(|| {
            Study::free(directory)?;
            group.claim(directory)
        })?;
        return Ok(None);
    }
    let mut lock = None;
    let saved = group.share(|| {
        let (held, saved) = Run::hold(directory)?;
        lock = Some(held);
        Ok(saved)
    })?;
    let change = |recipe: &mut Recipe| match begun {
        None => change(recipe, flags),
        Some(begun) if recipe == begun => Ok(()),
        Some(_) => {
            let shown = directory.display();
            bail!("`{shown}` holds a run of another recipe\nhint: name another directory with --run-dir")
        }
    };
    Ok(Some((lock, checkpoint(directory, &saved, change)?)))
}

/// Where a run is logged, with words on what trains it.
fn log(
    flags: &Train,
    directory: &Path,
    recipe: &Recipe,
    saved: Option<(&Checkpoint, Lock)>,
    choice: &Choice,
    ranks: usize,
    starts: usize,
) -> Result<Run> {
    let mut words = choice.words();
    for (what, count) in [("ranks", ranks), ("starts at a time", starts)] {
        if count > 1 {
            words += &format!(", {what}: {count}");
        }
    }
    say(&words);
    let shown = directory.display();
    let Some((checkpoint, lock)) = saved else {
        let run = Run::create(directory, recipe, &words)?;
        let from = match &recipe.task {
            Task::Sequences(task) => &task.train,
            task => task.name(),
        };
        let starts = match recipe.training.restart.times() {
            0 => String::new(),
            times => format!(", from up to {} starts,", times + 1),
        };
        say(&format!("training {} sequences of {from}{starts} into {shown}", recipe.training.sequences));
        return Ok(run);
    };
    let run = Run::resume(directory, lock, checkpoint, &words)?;
    say(&format!("going on with {shown} at {} sequences", checkpoint.progress.sequences));
    let longer = flags.sequences.filter(|_| flags.resume.is_some());
    if let (Some(sequences), false) = (longer, recipe.training.schedule == Schedule::Constant {}) {
        let rate = checkpoint.progress.learning_rate(recipe, checkpoint.progress.of_start() + 1);
        say(&format!("the learning rate falls over all of the {sequences} sequences: it goes on at {rate:.2e}"));
    }
    Ok(run)
}

/// What the ranks of a group must have been asked alike.
pub fn asked(flags: &Train, recipe: Option<&Recipe>) -> Value {
    let rollback = flags.on_nonfinite.map(|choice| choice == cli::OnNonfinite::Rollback);
    json!({ "sequences": flags.sequences, "rollback": rollback, "recipe": recipe })
}

/// The checkpoint of the run in a directory, to be gone on with as changed.
fn checkpoint(directory: &Path, saved: &[u8], change: impl FnOnce(&mut Recipe) -> Result<()>) -> Result<Checkpoint> {
    let mut checkpoint = Run::read(directory, saved)?;
    change(&mut checkpoint.recipe)?;
    let seen = checkpoint.progress.of_start();
    if checkpoint.recipe.updates() < seen {
        bail!(
            "`--sequences {}` is less than the {} that this run has seen{}\nhint: name a larger total, or leave it out",
            checkpoint.recipe.training.sequences,
            seen * checkpoint.recipe.training.batch_size as u64,
            if checkpoint.progress.restarts > 0 { " since it last began anew" } else { "" }
        );
    }
    Ok(checkpoint)
}
