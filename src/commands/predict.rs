//! `ntm predict`: a trained machine's outputs for inputs of the user's.

use super::backend::open_engine;
use super::trained;
use crate::checkpoint::Checkpoint;
use crate::cli::Predict;
use crate::tasks::{Batch, Line, read_line, unmarked};
use crate::terminal::{print, say};
use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;
use std::fs::File;
use std::io::{BufRead, BufReader, stdin};
use std::path::Path;
use tch::Tensor;

/// A line of the answers.
#[derive(Serialize)]
struct Answer<'a> {
    output: Vec<&'a [f32]>, // (T, Y)
}

pub fn run(flags: Predict) -> Result<()> {
    let (_, Checkpoint { recipe, theta, .. }) = trained(&flags.trained)?;
    let (x, y, loss) = (recipe.task.input_width(), recipe.task.output_width(), recipe.task.loss());
    let (name, mut lines) = open(flags.input.as_deref())?;
    let (mut engine, backend) = open_engine(&flags.compute, &recipe)?;
    say(&backend.words());
    let theta = Tensor::from_slice(&theta).to_device(backend.device);
    let (mut text, mut number) = (vec![], 0);
    loop {
        number += 1;
        let read = read_line(&mut *lines, number, &mut text);
        if read.with_context(|| format!("cannot read {name}"))? == 0 {
            return Ok(());
        }
        let text = unmarked(&text, number);
        if text.trim_ascii().is_empty() {
            continue;
        }
        let Line { steps, inputs, .. } = Line::parse(text.trim_ascii_end(), None, Some((x, y)))
            .map_err(|wrong| anyhow!("{name}, line {number}, {wrong}"))?;
        let batch = Batch { inputs, ..Batch::zeros(vec![steps], x, y) };
        let outputs: Vec<f32> = engine.forward(&theta, &batch)?.iter().map(|&logit| loss.output(logit)).collect();
        if let Some(at) = outputs.iter().position(|output| !output.is_finite()) {
            let (step, value) = (at / y, outputs[at]);
            bail!(
                "{name}, line {number}: the output of step {step} is {value}\nhint: inputs as large as in training, or smaller"
            );
        }
        print(&(serde_json::to_string(&Answer { output: outputs.chunks_exact(y).collect() })? + "\n"))?;
    }
}

/// What to read and its name in errors.
fn open(input: Option<&Path>) -> Result<(String, Box<dyn BufRead>)> {
    let Some(path) = input.filter(|path| *path != Path::new("-")) else {
        return Ok(("stdin".to_string(), Box::new(stdin().lock())));
    };
    let name = format!("`{}`", path.display());
    let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
    Ok((name, Box::new(BufReader::new(file))))
}
