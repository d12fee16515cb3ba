use super::machine;
use crate::checkpoint::Checkpoint;
use crate::cli::Eval;
use crate::device;
use crate::display::print;
use crate::limits::check;
use crate::metrics::Score;
use crate::train::evaluate;
use anyhow::Result;
use serde::Serialize;
use std::fmt::Write;
use tch::Tensor;

/// What `--json` prints.
#[derive(Serialize)]
struct Results<'a> {
    checkpoint: String,
    task: &'a str,
    engine: &'a str,
    device: String,
    results: Vec<Score>,
}

pub fn run(flags: Eval) -> Result<()> {
    let Checkpoint { recipe, theta, .. } = Checkpoint::load(&flags.checkpoint)?;
    let lengths = if flags.lengths.is_empty() { &recipe.evaluation.lengths } else { &flags.lengths };
    for &length in lengths {
        check("--lengths", length, 1, 1_000_000)?;
    }
    let (mut engine, device) = machine(&flags.machine, &recipe)?;
    let theta = Tensor::from_slice(&theta).to_device(device);
    let scores = evaluate(&mut *engine, &theta, &recipe.task, lengths, flags.sequences as usize, flags.seed)?;
    let mut out = String::new();
    if flags.json {
        let results = Results {
            checkpoint: flags.checkpoint.display().to_string(),
            task: recipe.task.name(),
            engine: engine.name(),
            device: device::name(device),
            results: scores,
        };
        writeln!(out, "{}", serde_json::to_string_pretty(&results)?)?;
    } else {
        writeln!(
            out,
            "{:>8} {:>10} {:>12} {:>12} {:>10}",
            "length", "sequences", "loss (bits)", "wrong bits", "exact"
        )?;
        for Score { length, sequences, loss_bits, bit_errors, exact } in scores {
            writeln!(
                out,
                "{length:>8} {sequences:>10} {loss_bits:>12.4} {bit_errors:>12.3} {:>10}",
                format!("{exact}/{sequences}")
            )?;
        }
    }
    print(&out)
}
