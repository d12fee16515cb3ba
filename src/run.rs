//! A run directory: the resolved recipe, metrics.jsonl, TensorBoard events and checkpoints.

use crate::checkpoint::Checkpoint;
use crate::config::Recipe;
use crate::files::{clear_unfinished, write_atomically};
use crate::json::{Difference, first_difference};
use crate::lock::{Lock, occupied};
use crate::metrics::{Report, Score, means};
use crate::model::Layout;
use crate::tensorboard::{Events, Look};
use crate::terminal::{say, shell_path, shell_words};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

pub const RECIPE: &str = "recipe.json";
pub const METRICS: &str = "metrics.jsonl";
pub const EVALUATIONS: &str = "evaluations.jsonl";
const LATEST: &str = "latest.safetensors";
const BEST: &str = "best.safetensors";
const ROLLBACK: &str = "rollback.safetensors";
/// The files that are written beside their name first.
const WRITTEN: &[&str] = &[RECIPE, METRICS, EVALUATIONS, LATEST, BEST, ROLLBACK];

/// Where a run has its checkpoints.
fn checkpoints(directory: &Path) -> PathBuf {
    directory.join("checkpoints")
}

/// A line of evaluations.jsonl.
#[derive(Serialize, Deserialize)]
pub struct Evaluation {
    pub step: u64,
    /// That training had seen by then.
    pub sequences: u64,
    pub results: Vec<Score>,
}

impl Evaluation {
    /// Its means by TensorBoard's names: those of each point, and those over all points, to compare runs of all tasks
    /// by.
    pub fn scalars(&self) -> impl Iterator<Item = (String, Vec<(&'static str, f64)>)> {
        let points = self.results.iter().filter(|score| !score.point.tag().is_empty());
        let points = points.map(|score| (format!("eval/{}", score.point.tag()), score.figures.means().collect()));
        points.chain([("eval/all".to_string(), means(&self.results))])
    }
}

pub struct Run {
    directory: PathBuf,
    logs: Logs,
    _lock: Lock,
}

struct Logs {
    metrics: File,
    evaluations: File,
    events: Events,
}

impl Logs {
    fn open(directory: &Path, from: Option<u64>) -> Result<Logs> {
        if let Some(from) = from {
            drop_from(&directory.join(METRICS), from)?;
            drop_from(&directory.join(EVALUATIONS), from)?;
        }
        let append = |name: &str| {
            let path = directory.join(name);
            let file = OpenOptions::new().create(true).append(true).open(&path);
            file.with_context(|| format!("cannot write `{}`", path.display()))
        };
        let events = Events::new(directory, from)?;
        Ok(Logs { metrics: append(METRICS)?, evaluations: append(EVALUATIONS)?, events })
    }
}

impl Run {
    /// A new run in a directory that is made if need be and must not hold a run already. `trained_by`: engine and
    /// device, in words.
    pub fn create(directory: &Path, recipe: &Recipe, trained_by: &str) -> Result<Run> {
        Run::ensure_unoccupied(directory)?;
        let shown = directory.display();
        fs::create_dir_all(checkpoints(directory)).with_context(|| format!("cannot make run directory `{shown}`"))?;
        let lock = Lock::take(directory)?;
        Run::ensure_unoccupied(directory)?; // again: another process may have begun and ended in between
        let mut run = Run::open(directory, lock, None)?;
        run.write_recipe(recipe)?;
        run.describe(recipe, 0, trained_by)?;
        Ok(run)
    }

    /// An error if a directory holds a run, or the logs of one, which another's must not be mixed with.
    pub fn ensure_unoccupied(directory: &Path) -> Result<()> {
        if Run::is_in(directory) {
            return Err(occupied(directory, "a run"));
        }
        if directory.exists() && !directory.is_dir() {
            bail!("`{}` is a file\nhint: --run-dir names a directory, which is made if need be", directory.display());
        }
        Run::check_latest(directory)?;
        if [METRICS, EVALUATIONS].iter().any(|log| fs::metadata(directory.join(log)).is_ok_and(|log| log.len() > 0)) {
            bail!(
                "`{}` holds the logs of a run whose checkpoints are gone\n\
                 hint: move it away, or name another directory with --run-dir",
                directory.display()
            );
        }
        Ok(())
    }

    /// Refuses a run that has a best machine and no latest checkpoint.
    fn check_latest(directory: &Path) -> Result<()> {
        if Run::is_in(directory) || !checkpoints(directory).join(BEST).exists() {
            return Ok(());
        }
        bail!(
            "the run in `{}` has lost its latest checkpoint and cannot go on\n\
             hint: move it away; another run can begin with its best machine: `--from {}`",
            directory.display(),
            shell_path(directory)
        )
    }

    /// Writes the resolved recipe: that of the start, or what a resumed run has become.
    pub fn write_recipe(&self, recipe: &Recipe) -> Result<()> {
        let text = serde_json::to_string_pretty(recipe)? + "\n";
        write_atomically(&self.directory.join(RECIPE), text.as_bytes())
    }

    /// Whether a directory holds a run that can go on. One that was ended before its first checkpoint can only begin
    /// again.
    pub fn is_in(directory: &Path) -> bool {
        Run::latest_in(directory).exists()
    }

    /// Keeps other processes from the run in a directory, and gives its last checkpoint: the bytes, for other ranks to
    /// `read`, and what they hold.
    pub fn lock_and_read(directory: &Path) -> Result<(Lock, Vec<u8>, Checkpoint)> {
        let shown = directory.display();
        if directory.join(RECIPE).exists() && Run::ensure_unoccupied(directory).is_ok() {
            bail!(
                "the run in `{shown}` ended before its first checkpoint\n\
                 hint: begin it again with the command line that began it, in the same directory"
            );
        }
        if directory.is_file() {
            bail!("`{shown}` is a file\nhint: --resume takes the directory of a run or a study");
        }
        Run::check_latest(directory)?;
        if !Run::is_in(directory) {
            bail!(
                "`{shown}` holds no run: there is no checkpoints/latest.safetensors in it\n\
                 hint: --resume takes the directory that `ntm train` named when it began"
            );
        }
        let lock = Lock::take(directory)?; // first, or another process could go on with it in between
        let saved = Checkpoint::read(&Run::latest_in(directory))?;
        let checkpoint = Run::read(directory, &saved)?;
        Run::check_recipe(directory, &checkpoint.recipe)?;
        Ok((lock, saved, checkpoint))
    }

    /// Refuses a run whose recipe.json has been edited, since it would go on with the recipe of its checkpoint. What a
    /// resumed run may change can differ, where one was killed before it wrote it.
    fn check_recipe(directory: &Path, kept: &Recipe) -> Result<()> {
        let path = directory.join(RECIPE);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()), // it is written anew
            read => read.with_context(|| format!("cannot read `{}`", path.display()))?,
        };
        let mut edited = Recipe::parse(&text, &[]).with_context(|| {
            format!(
                "in `{}`, which a run does not read but keeps (move it away, and it is written anew)",
                path.display()
            )
        })?;
        if edited.training.sequences != kept.training.sequences {
            say(&format!(
                "`{}` says {} sequences; this run has {}, and a new total by --sequences",
                path.display(),
                edited.training.sequences,
                kept.training.sequences
            ));
        }
        edited.training.sequences = kept.training.sequences;
        edited.training.on_nonfinite = kept.training.on_nonfinite.clone();
        let found = first_difference(&serde_json::to_value(kept)?, &serde_json::to_value(edited)?);
        let Some(Difference { path: field, first: kept, second: edited }) = found else { return Ok(()) };
        bail!(
            "`{}` has been edited: `{field}` was {kept} and is {edited}, but a run keeps its recipe\n\
             hint: put it back, or begin a new run with its weights: `ntm train {} --from {} --run-dir DIR`",
            path.display(),
            shell_path(&path),
            shell_path(directory)
        )
    }

    /// The checkpoint of the run in a directory.
    pub fn read(directory: &Path, saved: &[u8]) -> Result<Checkpoint> {
        Checkpoint::of_file(&Run::latest_in(directory), saved)
    }

    /// The last checkpoint of the run in a directory.
    pub fn latest_of(directory: &Path) -> Result<Checkpoint> {
        Checkpoint::load(&Run::latest_in(directory))
    }

    /// Goes on with a run from its last checkpoint, perhaps with another recipe, which is saved at once: a run that is
    /// killed before it saves again goes on with it, too. What was logged after the checkpoint is dropped: it comes
    /// again.
    pub fn resume(directory: &Path, lock: Lock, checkpoint: &Checkpoint, trained_by: &str) -> Result<Run> {
        let mut run = Run::open(directory, lock, Some(checkpoint.progress.step + 1))?;
        checkpoint.save(&run.latest())?;
        run.write_recipe(&checkpoint.recipe)?;
        run.describe(&checkpoint.recipe, checkpoint.progress.step, trained_by)?;
        Ok(run)
    }

    /// `from`: the first step that a resumed run logs again.
    fn open(directory: &Path, lock: Lock, from: Option<u64>) -> Result<Run> {
        clear_unfinished(directory, WRITTEN);
        clear_unfinished(&checkpoints(directory), WRITTEN);
        Ok(Run { directory: directory.to_path_buf(), logs: Logs::open(directory, from)?, _lock: lock })
    }

    /// Drops what was logged after a step: it comes again.
    pub fn go_back(&mut self, step: u64) -> Result<()> {
        self.logs = Logs::open(&self.directory, Some(step + 1))?;
        Ok(())
    }

    /// Tells TensorBoard what this run is, and what goes on with it from a step.
    fn describe(&mut self, recipe: &Recipe, step: u64, trained_by: &str) -> Result<()> {
        let command = shell_words(std::env::args_os());
        let session = format!("`` {command} ``\n\nntm {}, {trained_by}", env!("CARGO_PKG_VERSION"));
        self.logs.events.text("run/command", &session, step)?;
        let recipe = serde_json::to_value(recipe)?;
        self.logs.events.text("run/recipe", &format!("```json\n{recipe:#}\n```"), step)?;
        self.logs.events.parameters(&recipe)
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Saves a checkpoint of the run, after what it has logged so far, so that a loss of power leaves no gap before it.
    pub fn save(&self, checkpoint: &Checkpoint) -> Result<()> {
        let synced = self.logs.metrics.sync_data().and_then(|()| self.logs.evaluations.sync_data());
        synced.with_context(|| format!("cannot write the logs in `{}`", self.directory.display()))?;
        checkpoint.save(&self.latest())
    }

    /// Where the checkpoint of the last save is.
    pub fn latest(&self) -> PathBuf {
        Run::latest_in(&self.directory)
    }

    pub fn latest_in(directory: &Path) -> PathBuf {
        checkpoints(directory).join(LATEST)
    }

    /// The machine of the run in a directory: its best, or its latest if that is wanted or none was evaluated; none
    /// before its first checkpoint.
    pub fn checkpoint_in(directory: &Path, latest: bool) -> Option<PathBuf> {
        let names = if latest { &[LATEST][..] } else { &[BEST, LATEST] };
        names.iter().map(|name| checkpoints(directory).join(name)).find(|file| file.exists())
    }

    /// Where the checkpoint is that a number which is not finite sends the run back to, if its recipe says so.
    pub fn rollback(&self) -> PathBuf {
        checkpoints(&self.directory).join(ROLLBACK)
    }

    /// Where the checkpoint of the best evaluation is.
    pub fn best(&self) -> PathBuf {
        checkpoints(&self.directory).join(BEST)
    }

    /// The results of the last evaluation of the run in a directory; none if there was none. What is no line of ours
    /// is passed over, whatever bytes a crash has left.
    pub fn last_evaluation(directory: &Path) -> Result<Vec<Score>> {
        let log = read_log(&directory.join(EVALUATIONS))?;
        let whole = |line| serde_json::from_slice(line).ok().map(|evaluation: Evaluation| evaluation.results);
        Ok(log.rsplit(|byte| *byte == b'\n').find_map(whole).unwrap_or_default())
    }

    pub fn log_report(&mut self, report: &Report) -> Result<()> {
        self.logs.events.scalars("train", report.scalars(), report.step)?;
        write_line(&mut self.logs.metrics, report).context("cannot write metrics.jsonl")
    }

    pub fn log_evaluation(&mut self, step: u64, sequences: u64, scores: &[Score]) -> Result<()> {
        let evaluation = Evaluation { step, sequences, results: scores.to_vec() };
        for (group, means) in evaluation.scalars() {
            self.logs.events.scalars(&group, means, step)?;
        }
        write_line(&mut self.logs.evaluations, &evaluation).context("cannot write evaluations.jsonl")
    }

    /// For TensorBoard: the distribution of every tensor, and what the machine does with one sequence.
    pub fn log_machine(
        &mut self,
        step: u64,
        layout: &Layout,
        theta: &[f32],
        gradient: &[f32],
        look: &Look,
    ) -> Result<()> {
        for (group, values) in [("weights", theta), ("gradients", gradient)] {
            let tensors =
                layout.parameters.iter().map(|parameter| (parameter.name.as_str(), &values[parameter.range()]));
            self.logs.events.histograms(group, tensors, step)?;
        }
        self.logs.events.look(look, step)
    }

    /// Tells TensorBoard why the curves begin anew after a step.
    pub fn log_restart(&mut self, step: u64, why: &str) -> Result<()> {
        self.logs.events.text("run/restarts", why, step)
    }

    /// Tells TensorBoard that the run has come to its end.
    pub fn log_end(&mut self) -> Result<()> {
        self.logs.events.finished()
    }
}

fn write_line(file: &mut File, value: &impl Serialize) -> Result<()> {
    let line = serde_json::to_string(value)? + "\n";
    Ok(file.write_all(line.as_bytes())?)
}

/// The bytes of a log; none where it has not been begun.
fn read_log(path: &Path) -> Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(vec![]),
        read => read.with_context(|| format!("cannot read `{}`", path.display())),
    }
}

/// Keeps the whole lines of a log before step `from`. What is no line of ours goes, whatever bytes a crash has left.
fn drop_from(path: &Path, from: u64) -> Result<()> {
    let bytes = read_log(path)?;
    let before = |value: Value| value["step"].as_u64().is_some_and(|at| at < from);
    let stands = |line: &&[u8]| line.ends_with(b"\n") && serde_json::from_slice(line).is_ok_and(before);
    let kept = bytes.split_inclusive(|byte| *byte == b'\n').filter(stands).collect::<Vec<_>>().concat();
    if kept == bytes { Ok(()) } else { write_atomically(path, &kept) }
}
