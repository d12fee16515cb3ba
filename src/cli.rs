//! The command line; imports nothing of ours.

use clap::builder::RangedU64ValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::path::{Path, PathBuf};

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

Exit code: 0, 1 after an error, 2 for a wrong command line, 128 + signal when
a run was stopped; it is saved then, and goes on with `ntm train --resume`."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// The command line of this process; where it is wrong, ends it with a word on why.
    pub fn read() -> Cli {
        Cli::try_parse().unwrap_or_else(|mut error| {
            let command = std::env::args_os().nth(1).unwrap_or_default();
            let similar = error.get(ContextKind::SuggestedArg).is_some();
            if let (ErrorKind::UnknownArgument, Some(ContextValue::String(argument)), false) =
                (error.kind(), error.get(ContextKind::InvalidArg), similar)
            {
                let tip = match command.to_str().unwrap_or_default() {
                    "train" if argument.starts_with("--") => {
                        "every field of a recipe is set by `--set KEY=VALUE`; `ntm info copy` shows them".to_string()
                    }
                    "eval" | "export"
                        if !argument.starts_with('-')
                            && !std::env::args_os().any(|argument| argument == "--checkpoint") =>
                    {
                        format!("write `--checkpoint {argument}`")
                    }
                    _ => error.exit(),
                };
                error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
            }
            error.exit()
        })
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
  ntm train --resume runs/copy-1               goes on where it stopped
  ntm train copy --from runs/copy-1 --set task.max_length=40 --run-dir runs/longer
  torchrun --no-python --nproc-per-node 4 ntm train --set training.batch_size=64")]
pub struct Train {
    /// A built-in recipe (`ntm info` lists them) or the path of a JSON recipe
    #[arg(default_value = "copy", conflicts_with = "resume")]
    pub recipe: String,
    /// Set a field of the recipe by its path, for instance training.batch_size=16 (repeatable)
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "resume", value_parser = setting)]
    pub set: Vec<String>,
    /// Begin a new run with the weights of a checkpoint, or of the best machine of a run, instead of drawn ones (short for --set
    /// training.from=FILE); memory rows may be others
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    pub from: Option<PathBuf>,
    /// The seed of weights and data (short for --set training.seed=N)
    #[arg(long, value_name = "N", conflicts_with = "resume", allow_negative_numbers = true, value_parser = seed)]
    pub seed: Option<u64>,
    /// Train from several seeds side by side, a run directory each under one parent, for instance 1..10 or 1,5,9; with --resume,
    /// more seeds of a study, beside those that it has
    #[arg(long, value_name = "A..B", conflicts_with = "seed")]
    pub seeds: Option<Seeds>,
    /// How many seeds, or starts of a run that may begin anew, train at the same time [default: cores / threads of each; of
    /// starts 1, unless the recipe goes on until one is solved]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: Option<u16>,
    /// How many sequences a start trains on (short for --set training.sequences=N); with --resume, a new total, of the last
    /// start
    #[arg(long, value_name = "N", value_parser = sequences)]
    pub sequences: Option<u64>,
    /// What to do about a number that is not finite: end, or go back to the last good checkpoint with half the learning rate
    /// (short for --set training.on_nonfinite.kind=...)
    #[arg(long, value_name = "DO")]
    pub on_nonfinite: Option<OnNonfinite>,
    /// Where the run goes [default: runs/<recipe>-<seed>, of several seeds runs/<recipe>-seeds]
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    pub run_dir: Option<PathBuf>,
    /// Go on exactly where the run, or the seed study, in this directory stopped
    #[arg(long, value_name = "DIR")]
    pub resume: Option<PathBuf>,
    /// How long the processes of a job that torchrun starts wait for each other
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub peer_timeout: u32,
    #[command(flatten)]
    pub machine: Machine,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum OnNonfinite {
    Stop,
    Rollback,
}

/// Several seeds: ranges with both ends, and single ones, separated by commas.
#[derive(Clone)]
pub struct Seeds(pub Vec<u64>);

impl std::str::FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Seeds, String> {
        let number = |part: &str| -> Result<u64, String> {
            part.trim()
                .parse()
                .map_err(|_| format!("`{part}` is no seed: a whole number, 0 or more; several as in 1..10 or 1,5,9"))
        };
        let mut seeds: Vec<u64> = vec![];
        for part in text.split(',') {
            let (first, last) = part.split_once("..").unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err("no seed lies in this range: the first number is the smaller one".to_string());
            }
            seeds.extend((first..=last).take(10_001_usize.saturating_sub(seeds.len())));
        }
        let count = seeds.len();
        if count > 10_000 {
            return Err("more than 10,000 seeds".to_string());
        }
        seeds.sort_unstable();
        seeds.dedup();
        if seeds.len() < count { Err("a seed stands here twice".to_string()) } else { Ok(Seeds(seeds)) }
    }
}

/// Measure a checkpoint, or every seed of a study, on sequences that no training run draws
///
/// Without lengths (or what the task has) at the points of the recipe's evaluation; a machine of your own sequences on the
/// recipe's `task.eval`, by which its `best` was chosen. --checkpoint takes the directory of a study, too: each seed's best
/// machine is measured, a row a seed, and of each mean the median, least and most.
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
    /// Of a machine of your own sequences: another file of them than the recipe's `task.eval`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["lengths", "repeats", "items", "vectors"])]
    pub data: Option<String>,
    /// Sequences at each point [default: 100; of own data, all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub sequences: Option<u32>,
    /// The seed of the sequences
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true, value_parser = seed)]
    pub seed: u64,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub pictures: Pictures,
    #[command(flatten)]
    pub machine: Machine,
}

/// Print a machine's outputs for your own inputs, JSON Lines in and out
///
/// Each line has an `input`, a list of steps, each a list of numbers. Its answer is printed before the next line is read: an
/// `output`, as many steps, with the probability of a 1 for each output channel, or its value where the loss is squared. A `target`
/// and a `mask`, as the lines of a data file have them, are passed over.
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
    pub machine: Machine,
}

/// A machine that has been trained.
#[derive(Args)]
pub struct Trained {
    /// The checkpoint, a .safetensors file of `ntm train`, or the directory of a run, for its best machine
    #[arg(long, value_name = "FILE")]
    pub checkpoint: PathBuf,
    /// Memory rows, instead of as many as it was trained with
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1 << 20))]
    pub rows: Option<usize>,
}

/// Where to measure: the axes that the task has; several give a grid [default: the recipe's evaluation].
#[derive(Args, Clone)]
pub struct Axes {
    /// Lengths of sequences (copy, repeat-copy, ngrams)
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = count())]
    pub lengths: Vec<usize>,
    /// Numbers of repeats (repeat-copy)
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = count())]
    pub repeats: Vec<usize>,
    /// Numbers of items (associative-recall)
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = count())]
    pub items: Vec<usize>,
    /// Numbers of vectors (priority-sort)
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = count())]
    pub vectors: Vec<usize>,
}

/// What to draw of an evaluation; a file that is there already is written over.
#[derive(Args)]
pub struct Pictures {
    /// Draw one sequence of the largest point, or of own data: what goes in and out, what the heads write and read (.png or .svg)
    #[arg(long, value_name = "FILE", value_parser = picture)]
    pub plot: Option<PathBuf>,
    /// Draw loss and wrong bits against the first axis of the task (.png or .svg)
    #[arg(long, value_name = "FILE", value_parser = picture)]
    pub curve: Option<PathBuf>,
    /// Draw the heads moving over the memory as that sequence passes, at most 150 frames (.gif)
    #[arg(long, value_name = "FILE", value_parser = animation)]
    pub animate: Option<PathBuf>,
    /// Which sequence to draw, of own data by its place in the file [default: 1]
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
    /// What to draw: a field of metrics.jsonl, such as bit_errors or grad_norm, or of an evaluation by its name in TensorBoard,
    /// such as eval/length_120/bit_errors [default: the loss]
    #[arg(long, value_name = "NAME")]
    pub metric: Option<String>,
    /// A logarithmic axis of the metric; zeros are drawn at its foot, which is called 0
    #[arg(long)]
    pub log: bool,
    /// A logarithmic axis of sequences, for runs of very different lengths
    #[arg(long)]
    pub log_sequences: bool,
}

/// Write a checkpoint in a format for other programs: the weights alone, or a program that runs
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
  ntm info copy --set model.memory.rows=64  the same of what `ntm train` would make of it
  ntm info repeat-copy --sample --seed 3    one sequence, drawn
  ntm info --checkpoint runs/copy-1/checkpoints/latest.safetensors")]
pub struct Info {
    /// A built-in recipe or the path of a JSON recipe
    #[arg(conflicts_with = "checkpoint")]
    pub recipe: Option<String>,
    /// The checkpoint, a .safetensors file of `ntm train`, or the directory of a run, for its best machine
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,
    /// Set a field of the recipe by its path, as in `ntm train`
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting, requires = "recipe")]
    pub set: Vec<String>,
    /// Draw one sequence of the recipe's task, a row a step; a short one, unless lengths (or what the task has) are named
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

/// Print what makes a shell complete the commands and flags of ntm
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
    /// The directory, which is made if need be
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

/// What runs the network.
#[derive(Args, Clone)]
pub struct Machine {
    /// auto, cpu, cuda, or cuda:I for the card of that number
    #[arg(long, default_value = "auto", value_parser = device)]
    pub device: String,
    /// How the network is computed
    #[arg(long, value_enum, default_value_t = EngineChoice::Auto)]
    pub engine: EngineChoice,
    /// CPU threads [default: all cores; where `ntm train` has several seeds or starts at a time, 1 for each seed, and for each
    /// start as many as a batch has sequences]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// No flag: what a run that goes on began on, `cpu` or `cuda`, where that is known. It counts where `device` leaves that open.
    #[arg(skip)]
    pub began_on: String,
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

/// How many of something an axis has.
fn count() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=1_000_000)
}

fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "it is no seed: a whole number, 0 or more".to_string())
}

fn sequences(text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|&number| number > 0);
    number.ok_or("it is no whole number, 1 or more".to_string())
}

fn setting(text: &str) -> Result<String, String> {
    match text.contains('=') {
        true => Ok(text.to_string()),
        false => Err("it has no `=`; for instance training.batch_size=16".to_string()),
    }
}

fn device(text: &str) -> Result<String, String> {
    let card = text.strip_prefix("cuda:").is_some_and(|number| number.parse::<u16>().is_ok());
    match card || ["auto", "cpu", "cuda"].contains(&text) {
        true => Ok(text.to_string()),
        false => Err("allowed: auto, cpu, cuda, cuda:0, cuda:1, ...".to_string()),
    }
}

fn picture(text: &str) -> Result<PathBuf, String> {
    ending(text, &["png", "svg"])
}

fn animation(text: &str) -> Result<PathBuf, String> {
    ending(text, &["gif"])
}

fn ending(text: &str, allowed: &[&str]) -> Result<PathBuf, String> {
    let is = |ending: &&str| Path::new(text).extension().is_some_and(|found| found.eq_ignore_ascii_case(ending));
    match allowed.iter().any(is) {
        true => Ok(PathBuf::from(text)),
        false => Err(format!("name a file that ends in .{}", allowed.join(" or ."))),
    }
}
