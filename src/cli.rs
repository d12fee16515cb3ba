//! The command line; imports nothing of ours.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Parser)]
#[command(name = "ntm", version, about = "Trains, evaluates and exports Neural Turing Machines")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    Train(Train),
    Eval(Eval),
    Plot(Plot),
    Export(Export),
    Info(Info),
}

/// Train a machine; progress goes to stderr, results to a run directory
#[derive(Args)]
#[command(after_help = "Examples:
  ntm train                                      the copy task, seed 1, into runs/copy-1
  ntm train copy-feedforward --seed 7 --sequences 50000
  ntm train copy --set training.batch_size=16 --set training.optimizer.learning_rate=1e-3
  ntm train associative-recall --seeds 1..10     ten runs side by side, and a summary
  ntm train --resume runs/copy-1                 goes on exactly where that run stopped")]
pub struct Train {
    /// A built-in recipe (`ntm info` lists them) or the path of a JSON recipe
    #[arg(default_value = "copy", conflicts_with = "resume")]
    pub recipe: String,
    /// Set a field of the recipe by its path, for instance training.batch_size=16 (repeatable)
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "resume")]
    pub set: Vec<String>,
    /// The seed of weights and data (short for --set training.seed=N)
    #[arg(long, value_name = "N", conflicts_with = "resume")]
    pub seed: Option<u64>,
    /// Train from several seeds side by side, a run directory each under one parent, for instance 1..10 or 1,5,9
    #[arg(long, value_name = "A..B", conflicts_with_all = ["seed", "resume"])]
    pub seeds: Option<Seeds>,
    /// How many seeds train at the same time [default: cores / threads of each]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: Option<u16>,
    /// How many sequences to train on (short for --set training.sequences=N); with --resume, a new total
    #[arg(long, value_name = "N")]
    pub sequences: Option<u64>,
    /// What to do about a number that is not finite: end, or go back to the last good checkpoint with half the learning rate
    /// (short for --set training.on_nonfinite.kind=...)
    #[arg(long, value_name = "DO")]
    pub on_nonfinite: Option<OnNonfinite>,
    /// Where the run goes [default: runs/<recipe>-<seed>, of several seeds runs/<recipe>-seeds]
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    pub run_dir: Option<PathBuf>,
    /// Go on exactly where the run in this directory stopped
    #[arg(long, value_name = "DIR")]
    pub resume: Option<PathBuf>,
    #[command(flatten)]
    pub machine: Machine,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum OnNonfinite {
    Stop,
    Rollback,
}

/// Several seeds: a range with both ends, or a list.
#[derive(Clone)]
pub struct Seeds(pub Vec<u64>);

impl std::str::FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Seeds, String> {
        let number =
            |part: &str| part.trim().parse().map_err(|_| format!("`{part}` is no seed: a whole number, 0 or more"));
        let mut seeds: Vec<u64> = match text.split_once("..") {
            Some((first, last)) => (number(first)?..=number(last)?).take(10_001).collect(),
            None => text.split(',').map(number).collect::<Result<_, _>>()?,
        };
        let count = seeds.len();
        seeds.sort_unstable();
        seeds.dedup();
        match seeds.len() {
            0 => Err("no seed lies in this range: the first number is the smaller one".to_string()),
            10_001.. => Err("more than 10,000 seeds".to_string()),
            distinct if distinct < count => Err("a seed stands here twice".to_string()),
            _ => Ok(Seeds(seeds)),
        }
    }
}

/// Measure a checkpoint on fresh sequences that no training run draws
#[derive(Args)]
#[command(after_help = "Examples:
  ntm eval --checkpoint runs/copy-1/checkpoints/best.safetensors
  ntm eval --checkpoint best.safetensors --lengths 10,20,50,120 --sequences 100 --json
  ntm eval --checkpoint repeat-copy.safetensors --lengths 10,20 --repeats 10,20
  ntm eval --checkpoint copy.safetensors --lengths 1000 --rows 1024
  ntm eval --checkpoint copy.safetensors --lengths 10,20,50,120 --plot copy.png --curve errors.png")]
pub struct Eval {
    /// The checkpoint, a .safetensors file of `ntm train`
    #[arg(long, value_name = "FILE")]
    pub checkpoint: PathBuf,
    #[command(flatten)]
    pub axes: Axes,
    /// Sequences at each point [default: 100; of own data, all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub sequences: Option<u32>,
    /// Memory rows, instead of as many as it was trained with
    #[arg(long, value_name = "N")]
    pub rows: Option<usize>,
    /// The seed of the sequences
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub pictures: Pictures,
    #[command(flatten)]
    pub machine: Machine,
}

/// Where to measure: the axes that the task has; several give a grid [default: the recipe's evaluation].
#[derive(Args, Clone)]
pub struct Axes {
    /// Lengths of sequences (copy, repeat-copy, ngrams)
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    pub lengths: Vec<usize>,
    /// Numbers of repeats (repeat-copy)
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    pub repeats: Vec<usize>,
    /// Numbers of items (associative-recall)
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    pub items: Vec<usize>,
    /// Numbers of vectors (priority-sort)
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    pub vectors: Vec<usize>,
}

/// What to draw of an evaluation; a file that is there already is written over.
#[derive(Args)]
pub struct Pictures {
    /// Draw one sequence of the largest point: what goes in and out, what the heads write and read (.png or .svg)
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// Draw loss and wrong bits against the first axis of the task (.png or .svg)
    #[arg(long, value_name = "FILE")]
    pub curve: Option<PathBuf>,
    /// Draw the heads moving over the memory as that sequence passes, at most 150 frames (.gif)
    #[arg(long, value_name = "FILE")]
    pub animate: Option<PathBuf>,
}

/// Draw the learning curves of runs
#[derive(Args)]
#[command(after_help = "Examples:
  ntm plot runs/copy-1
  ntm plot runs --metric bit_errors --output errors.svg
  ntm plot runs/copy-1 runs/copy-2 runs/copy-lstm-1 --log")]
pub struct Plot {
    /// Run directories, or directories with runs in them; runs that differ in their seed only become one curve, the
    /// median, with their range around it
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// The picture, .png or .svg; a file that is there already is written over
    #[arg(long, value_name = "FILE", default_value = "curves.png")]
    pub output: PathBuf,
    /// What to draw: a field of metrics.jsonl
    #[arg(long, value_name = "NAME", default_value = "loss_bits")]
    pub metric: String,
    /// A logarithmic axis
    #[arg(long)]
    pub log: bool,
}

/// Write a checkpoint in a format for other programs: the weights alone, or a program that runs
#[derive(Args)]
#[command(after_help = "Examples:
  ntm export --checkpoint best.safetensors --format onnx --output copy.onnx
  ntm export --checkpoint best.safetensors --format onnx --onnx-graph step --output step.onnx
  ntm export --checkpoint best.safetensors --format torchscript --output copy.pt
  ntm export --checkpoint best.safetensors --format npz --output copy.npz")]
pub struct Export {
    /// The checkpoint, a .safetensors file of `ntm train`
    #[arg(long, value_name = "FILE")]
    pub checkpoint: PathBuf,
    #[arg(long)]
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
  ntm info
  ntm info copy --json
  ntm info repeat-copy --sample --seed 3         one sequence, drawn
  ntm info --checkpoint runs/copy-1/checkpoints/latest.safetensors")]
pub struct Info {
    /// A built-in recipe or the path of a JSON recipe
    #[arg(conflicts_with = "checkpoint")]
    pub recipe: Option<String>,
    /// The checkpoint, a .safetensors file of `ntm train`
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,
    /// Draw one sequence of the recipe's task, a row a step
    #[arg(long, requires = "recipe", conflicts_with_all = ["checkpoint", "json"])]
    pub sample: bool,
    /// The seed of the sample
    #[arg(long, value_name = "N", default_value_t = 1, requires = "sample")]
    pub seed: u64,
    #[command(flatten)]
    pub axes: Axes,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// What runs the network.
#[derive(Args, Clone)]
pub struct Machine {
    /// auto, cpu, cuda or cuda:I
    #[arg(long, default_value = "auto")]
    pub device: String,
    #[arg(long, value_enum, default_value_t = EngineChoice::Auto)]
    pub engine: EngineChoice,
    /// CPU threads [default: all cores; 1 for each of several seeds]
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
