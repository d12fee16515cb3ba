//! The command line; imports nothing of ours but what a flag is read into.

mod values;

pub use values::Seeds;

use crate::device::DeviceChoice;
use crate::tasks::Axis;
use clap::builder::RangedU64ValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::path::{Path, PathBuf};
use values::{animation, count, picture, seed, sequences, setting};

/// Trains, evaluates and exports Neural Turing Machines
#[derive(Parser)]
#[command(
    name = "ntm",
    version,
    after_help = "Examples:
  ntm train                       teach the copy task, into runs/copy-1
  ntm eval --checkpoint runs/copy-1
  ntm plot runs/copy-1            its learning curve, into curves.png
  ntm help train                  every flag of a command, with examples

Exit code: 0, 1 after an error, 2 for a wrong command line, 128 + signal for a
stopped run, which is saved: `ntm train --resume` continues it."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// The command line of this process; where it is wrong, ends it with the reason.
    pub fn read() -> Cli {
        Cli::try_parse().unwrap_or_else(|mut error| {
            if error.kind() == ErrorKind::ArgumentConflict {
                error.remove(ContextKind::Usage); // which leaves out one of the two at random
            }
            if let Some(tip) = tip(&error) {
                error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
            }
            error.exit()
        })
    }
}

/// What to write instead of arguments that do not go, where that is known and clap does not say it.
fn tip(error: &clap::Error) -> Option<String> {
    let conflicts = error.kind() == ErrorKind::ArgumentConflict;
    if conflicts && std::env::args_os().any(|argument| argument.to_string_lossy().starts_with("--resume")) {
        let cure = "ntm train RUN/recipe.json --from RUN --run-dir DIR --set KEY=VALUE";
        return Some(format!("a run keeps its recipe; `{cure}` begins another one with its weights"));
    }
    let (ErrorKind::UnknownArgument, Some(ContextValue::String(argument)), None) =
        (error.kind(), error.get(ContextKind::InvalidArg), error.get(ContextKind::SuggestedArg))
    else {
        return None;
    };
    let command = std::env::args_os().nth(1)?;
    let names_checkpoint = || std::env::args_os().any(|argument| argument == "--checkpoint");
    match command.to_str()? {
        "train" if argument.starts_with("--") => {
            Some("every field of a recipe is set by `--set KEY=VALUE`; `ntm info copy` shows them".to_string())
        }
        "eval" | "export" if !argument.starts_with('-') && !names_checkpoint() => {
            Some(format!("write `--checkpoint {argument}`"))
        }
        _ => None,
    }
}

#[derive(Subcommand)]
pub enum Command {
    Train(Train),
    Eval(Eval),
    Predict(Predict),
    Plot(Plot),
    Export(Export),
    Info(Info),
    Completions(Completions),
    Man(Man),
}

/// Train a machine; progress goes to stderr, results to a run directory
#[derive(Args)]
#[command(after_help = "Examples:
  ntm train                                    copy, seed 1, into runs/copy-1
  ntm train copy-feedforward --seed 7 --sequences 50000
  ntm train --set training.batch_size=16 --set model.memory.rows=64
  ntm train my-recipe.json --run-dir runs/mine
  ntm train associative-recall --seeds 1..10   ten runs, and a summary
  ntm train --resume runs/copy-1               continue where it stopped
  ntm train copy --from runs/copy-1 --set task.max_length=40 --run-dir runs/longer
  torchrun --no-python --nproc-per-node 4 ntm train --set training.batch_size=64")]
pub struct Train {
    /// A built-in recipe (`ntm info` lists them) or the path of a JSON recipe
    #[arg(default_value = "copy", conflicts_with = "resume")]
    pub recipe: String,
    /// Set a field of the recipe by its path, for instance training.batch_size=16 (repeatable)
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "resume", value_parser = setting)]
    pub set: Vec<String>,
    /// Begin a new run with the weights of a checkpoint, or of a run's best machine, instead of random ones (short for
    /// --set training.from=PATH); memory rows may differ
    #[arg(long, value_name = "PATH", conflicts_with = "resume")]
    pub from: Option<PathBuf>,
    /// The seed of weights and data (short for --set training.seed=N)
    #[arg(long, value_name = "N", conflicts_with = "resume", allow_negative_numbers = true, value_parser = seed)]
    pub seed: Option<u64>,
    /// Train a study: several seeds in parallel, for instance 1..10 or 1,5,9, each in its own directory under one
    /// parent; with --resume, add seeds to the study
    #[arg(long, value_name = "A..B", conflicts_with = "seed")]
    pub seeds: Option<Seeds>,
    /// How many seeds, or starts of a run with restarts, train at once [default: of seeds, cores / threads of each;
    /// of starts 1, or so many, too, if the recipe retries until solved]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: Option<u16>,
    /// Sequences per start (short for --set training.sequences=N); with --resume, a new total for the last start
    #[arg(long, value_name = "N", value_parser = sequences)]
    pub sequences: Option<u64>,
    /// On a number that is not finite: stop, or roll back to the last good checkpoint with half the learning rate
    /// (short for --set training.on_nonfinite.kind=...)
    #[arg(long, value_name = "DO")]
    pub on_nonfinite: Option<OnNonfinite>,
    /// Where the run goes [default: runs/<recipe>-<seed>, of several seeds runs/<recipe>-seeds]
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    pub run_dir: Option<PathBuf>,
    /// Continue the run or study in this directory exactly where it stopped
    #[arg(long, value_name = "DIR")]
    pub resume: Option<PathBuf>,
    /// How long the processes of a job that torchrun starts wait for each other
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub peer_timeout: u32,
    #[command(flatten)]
    pub compute: Compute,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum OnNonfinite {
    Stop,
    Rollback,
}

/// Measure a checkpoint, or every seed of a study, on fresh sequences or a data file
///
/// Without --lengths (or the task's other axes): at the recipe's evaluation points; for your own sequences, on its
/// `task.eval`, which chose `best`. --checkpoint also takes a study's directory: a row for each seed's best machine
/// (or latest), and the median, least and most of each figure.
#[derive(Args)]
#[command(after_help = "Examples:
  ntm eval --checkpoint runs/copy-1
  ntm eval --checkpoint copy.safetensors --lengths 10,20,50,120 --json
  ntm eval --checkpoint repeat.safetensors --lengths 10,20 --repeats 10,20
  ntm eval --checkpoint copy.safetensors --lengths 1000 --rows 1024
  ntm eval --checkpoint runs/reverse-1 --data test.jsonl
  ntm eval --checkpoint runs/copy-seeds --lengths 20,120
  ntm eval --checkpoint copy.safetensors --plot copy.png --animate copy.gif
  ntm eval --checkpoint copy.safetensors --lengths 20,50,120 --curve c.svg")]
pub struct Eval {
    #[command(flatten)]
    pub trained: Trained,
    #[command(flatten)]
    pub axes: Axes,
    /// For a machine of your own sequences: a file to use instead of `task.eval`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["lengths", "repeats", "items", "vectors"])]
    pub data: Option<String>,
    /// Sequences per point [default: 100; own data: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub sequences: Option<u32>,
    /// The seed of the sequences
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true, value_parser = seed)]
    pub seed: u64,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// Print the figures of each sequence instead, a JSON object per line; --plot with its point (--lengths 20) and
    /// --sequence N draws one
    #[arg(long, conflicts_with = "json")]
    pub per_sequence: bool,
    #[command(flatten)]
    pub pictures: Pictures,
    #[command(flatten)]
    pub compute: Compute,
}

/// Print a machine's outputs for your own inputs, JSON Lines in and out
///
/// Each line has an `input`, a list of steps, each a list of numbers. Its answer is printed before the next line is
/// read: an `output`, as many steps, with the probability of a 1 for each output channel, or its value where the loss
/// is squared. `target` and `mask`, as in a data file, are ignored.
#[derive(Args)]
#[command(after_help = "Examples:
  ntm predict --checkpoint best.safetensors data.jsonl > outputs.jsonl
  echo '{\"input\": [[0, 1], [1, 0]]}' | ntm predict --checkpoint my.safetensors")]
pub struct Predict {
    #[command(flatten)]
    pub trained: Trained,
    /// The file with the inputs, - for stdin [default: -]
    pub input: Option<PathBuf>,
    #[command(flatten)]
    pub compute: Compute,
}

/// A machine that has been trained.
#[derive(Args)]
pub struct Trained {
    /// A checkpoint of `ntm train`, a .safetensors file, or the directory of a run, for its best machine
    #[arg(long, value_name = "PATH")]
    pub checkpoint: PathBuf,
    /// Use a run's latest machine instead of its best one
    #[arg(long)]
    pub latest: bool,
    /// Number of memory rows [default: as trained]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1 << 20))]
    pub rows: Option<usize>,
}

/// Where to measure: the axes that the task has; several give a grid [default: the recipe's evaluation].
#[derive(Args, Clone)]
pub struct Axes {
    /// Lengths of sequences (copy, repeat-copy, ngrams)
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = count)]
    pub lengths: Vec<usize>,
    /// Numbers of repeats (repeat-copy)
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = count)]
    pub repeats: Vec<usize>,
    /// Numbers of items (associative-recall)
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = count)]
    pub items: Vec<usize>,
    /// Numbers of vectors (priority-sort)
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = count)]
    pub vectors: Vec<usize>,
}

impl Axes {
    /// The values of each axis that has some.
    pub fn given(&self) -> impl Iterator<Item = (Axis, &Vec<usize>)> {
        let values = |axis| match axis {
            Axis::Length => &self.lengths,
            Axis::Repeats => &self.repeats,
            Axis::Items => &self.items,
            Axis::Vectors => &self.vectors,
        };
        Axis::ALL.into_iter().map(move |axis| (axis, values(axis))).filter(|(_, values)| !values.is_empty())
    }
}

/// What to draw of an evaluation; a file that is there already is written over.
#[derive(Args)]
pub struct Pictures {
    /// Draw one sequence of the largest point, or of own data: what goes in and out, what the heads write and read
    /// (.png or .svg)
    #[arg(long, value_name = "FILE", value_parser = picture)]
    pub plot: Option<PathBuf>,
    /// Draw loss and wrong bits against the first axis of the task (.png or .svg)
    #[arg(long, value_name = "FILE", value_parser = picture)]
    pub curve: Option<PathBuf>,
    /// Draw the heads moving over the memory as that sequence passes, at most 150 frames (.gif)
    #[arg(long, value_name = "FILE", value_parser = animation)]
    pub animate: Option<PathBuf>,
    /// Which sequence to draw (own data: place in the file) [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub sequence: Option<u32>,
}

impl Pictures {
    /// Those that are asked for, by their flags.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let all = [("--plot", &self.plot), ("--curve", &self.curve), ("--animate", &self.animate)];
        all.into_iter().filter_map(|(flag, file)| Some((flag, file.as_deref()?)))
    }

    /// The flag of the first one that draws one sequence.
    pub fn of_a_sequence(&self) -> Option<&'static str> {
        self.files().map(|(flag, _)| flag).find(|flag| *flag != "--curve")
    }
}

/// Draw the learning curves of runs
#[derive(Args)]
#[command(after_help = "Examples:
  ntm plot runs/copy-1
  ntm plot runs --metric bit_errors --output errors.svg
  ntm plot runs/copy-seeds --metric eval/length_120/bit_errors
  ntm plot runs/copy-1 runs/copy-2 runs/copy-lstm-1 --log")]
pub struct Plot {
    /// Run directories, or directories with runs in them; runs that differ in their seed only become one curve, the
    /// median, with their range around it
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// The picture, .png or .svg; a file that is there already is written over
    #[arg(long, value_name = "FILE", default_value = "curves.png", value_parser = picture)]
    pub output: PathBuf,
    /// What to draw: a field of metrics.jsonl, such as bit_errors or grad_norm, or of an evaluation by its name in
    /// TensorBoard, such as eval/length_120/bit_errors [default: the loss]
    #[arg(long, value_name = "NAME")]
    pub metric: Option<String>,
    /// Logarithmic metric axis; zeros are drawn at its foot, labelled 0
    #[arg(long)]
    pub log: bool,
    /// Logarithmic axis of sequences, for runs of very different lengths
    #[arg(long)]
    pub log_sequences: bool,
}

/// Export a checkpoint for other programs: weights alone, or an ONNX or TorchScript model
#[derive(Args)]
#[command(after_help = "Examples:
  ntm export --checkpoint best.safetensors --format onnx --output copy.onnx
  ntm export --checkpoint best.safetensors --format onnx --onnx-graph step \\
             --output step.onnx
  ntm export --checkpoint best.safetensors --format torchscript --output c.pt
  ntm export --checkpoint best.safetensors --format npz --output copy.npz
  ntm export --checkpoint copy.safetensors --rows 1024 --format onnx \\
             --output long.onnx")]
pub struct Export {
    #[command(flatten)]
    pub trained: Trained,
    /// What to write
    #[arg(long, value_name = "KIND")]
    pub format: Format,
    /// Which graph an ONNX file holds [default: sequence]
    #[arg(long, value_name = "GRAPH")]
    pub onnx_graph: Option<OnnxGraph>,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Overwrite an existing file
    #[arg(long)]
    pub force: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Format {
    /// Weights alone, PyTorch's names
    Safetensors,
    /// Weights alone, for numpy.load
    Npz,
    /// A module for torch.jit.load: forward, and step from state to state
    Torchscript,
    /// A graph for onnxruntime and others
    Onnx,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum OnnxGraph {
    /// All steps of a sequence: inputs (steps, batch, width) to logits
    Sequence,
    /// One step, with the state as inputs (prev_...) and outputs
    Step,
    /// The first state, for `step`
    Init,
}

/// List the built-in recipes, or describe a recipe or a checkpoint
#[derive(Args)]
#[command(after_help = "Examples:
  ntm info                                  the built-in recipes
  ntm info copy                             every field of one, its weights
  ntm info copy --set model.memory.rows=64  the same, after this change
  ntm info repeat-copy --sample --seed 3    one sequence, drawn
  ntm info --checkpoint runs/copy-1 --latest")]
pub struct Info {
    /// A built-in recipe or the path of a JSON recipe
    #[arg(conflicts_with = "checkpoint")]
    pub recipe: Option<String>,
    /// A checkpoint of `ntm train`, a .safetensors file, or the directory of a run, for its best machine
    #[arg(long, value_name = "PATH")]
    pub checkpoint: Option<PathBuf>,
    /// Describe the run's latest machine instead of its best one
    #[arg(long, requires = "checkpoint", conflicts_with = "recipe")]
    pub latest: bool,
    /// Set a field of the recipe by its path, as in `ntm train`
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting, requires = "recipe", conflicts_with = "checkpoint")]
    pub set: Vec<String>,
    /// Draw one sequence of the recipe's task, one row per step; a short one unless --lengths (or another axis) is
    /// given
    #[arg(long, requires = "recipe", conflicts_with_all = ["checkpoint", "json"])]
    pub sample: bool,
    /// The seed of the sample
    #[arg(long, value_name = "N", default_value_t = 1, requires = "sample", allow_negative_numbers = true,
        value_parser = seed)]
    pub seed: u64,
    #[command(flatten)]
    pub axes: Axes,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// Print a shell completion script for ntm
#[derive(Args)]
#[command(after_help = "Examples:
  ntm completions bash > ~/.local/share/bash-completion/completions/ntm
  ntm completions zsh > ~/.zfunc/_ntm       with ~/.zfunc in $fpath
  ntm completions fish > ~/.config/fish/completions/ntm.fish")]
pub struct Completions {
    pub shell: Shell,
}

/// Write the man pages into a directory
#[derive(Args)]
#[command(after_help = "Examples:
  ntm man ~/.local/share/man/man1    then `man ntm` and `man ntm-train`")]
pub struct Man {
    /// The directory; created if missing
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

/// What runs the network.
#[derive(Args, Clone)]
pub struct Compute {
    /// auto (a GPU if there is one; seeds or starts that train in parallel on the CPU), cpu, cuda, or cuda:N
    #[arg(long, default_value = "auto")]
    pub device: DeviceChoice,
    /// How the network is computed
    #[arg(long, value_enum, default_value_t = EngineChoice::Auto)]
    pub engine: EngineChoice,
    /// CPU threads [default: all cores; 1 per seed that trains in parallel, and per start as many as a batch has
    /// sequences]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum EngineChoice {
    /// The fastest one that takes the recipe
    Auto,
    /// A whole sequence as one operation, its gradient derived by hand
    Fused,
    /// The definition, under libtorch's autograd
    Composed,
}
