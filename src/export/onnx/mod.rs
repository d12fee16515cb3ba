//! ONNX: the network over a whole sequence as one Scan, or the pieces for streaming, one step and the first state.

mod graph;
mod network;
mod proto;

use super::state_names;
use crate::checkpoint::Checkpoint;
use crate::model::{Config, Parameter};
use anyhow::{Result, ensure};
use graph::{Graph, Size, declared};
use network::Network;
use prost::Message;
use proto::{Graph as Proto, Model, OperatorSet, Property, Tensor, ValueInfo};
use std::collections::HashMap;

/// inputs (T, B, X) -> logits (T, B, Y)
pub fn sequence(checkpoint: &Checkpoint) -> Result<Vec<u8>> {
    let graph = Graph::default();
    let network = network(&graph, checkpoint);
    let inputs = graph.input("inputs");
    let results = graph.scan(&network.start(inputs.size(1)), inputs, |state, x| {
        let (logits, mut results) = network.step(x, state);
        results.push(logits);
        results
    });
    results.last().expect("the logits").named("logits");
    let shape = |values: usize| [Size::Any("steps"), BATCH, Size::Fixed(values)];
    let (x, y) = checkpoint.recipe.task.widths();
    let (input, output) = (declared("inputs", Tensor::FLOAT, &shape(x)), declared("logits", Tensor::FLOAT, &shape(y)));
    encode(checkpoint, graph.finish("sequence", vec![input], vec![output]))
}

/// x (B, X), and every part of a state under `prev_` and its name -> logits (B, Y), and the parts of the next state
pub fn step(checkpoint: &Checkpoint) -> Result<Vec<u8>> {
    let model = &checkpoint.recipe.model;
    let graph = Graph::default();
    let network = network(&graph, checkpoint);
    let prev: Vec<_> = state_names(model).iter().map(|name| graph.input(&format!("prev_{name}"))).collect();
    let (logits, state) = network.step(graph.input("x"), &prev);
    logits.named("logits");
    for (name, value) in state_names(model).iter().zip(state) {
        value.named(name);
    }
    let (x, y) = checkpoint.recipe.task.widths();
    let mut inputs = vec![declared("x", Tensor::FLOAT, &[BATCH, Size::Fixed(x)])];
    inputs.extend(state_declared(model, "prev_"));
    let mut outputs = vec![declared("logits", Tensor::FLOAT, &[BATCH, Size::Fixed(y)])];
    outputs.extend(state_declared(model, ""));
    encode(checkpoint, graph.finish("step", inputs, outputs))
}

/// batch (one whole number) -> the parts of the first state of so many sequences
pub fn init(checkpoint: &Checkpoint) -> Result<Vec<u8>> {
    let model = &checkpoint.recipe.model;
    let graph = Graph::default();
    let network = network(&graph, checkpoint);
    let size = graph.input("batch").unsqueeze(0);
    for (name, value) in state_names(model).iter().zip(network.start(size)) {
        value.named(name);
    }
    let batch = declared("batch", Tensor::INT64, &[]);
    encode(checkpoint, graph.finish("init", vec![batch], state_declared(model, "")))
}

const BATCH: Size = Size::Any("batch");

/// The network whose weights are the checkpoint's. All heads become one Linear, one on top of the other.
fn network<'g>(graph: &'g Graph, checkpoint: &'g Checkpoint) -> Network<'g> {
    let layout = checkpoint.recipe.layout();
    let values = |parameter: &Parameter| &checkpoint.theta[parameter.range()];
    let mut weights = HashMap::new();
    for parameter in layout.parameters.iter().filter(|parameter| !parameter.name.starts_with("heads.")) {
        let value = graph.floats(&parameter.name, &parameter.shape, values(parameter));
        weights.insert(parameter.name.clone(), value);
    }
    for kind in ["weight", "bias"] {
        let heads = layout.parameters.iter().filter(|p| p.name.starts_with("heads.") && p.name.ends_with(kind));
        let heads: Vec<&Parameter> = heads.collect();
        let Some(first) = heads.first() else { continue };
        let mut shape = first.shape.clone();
        shape[0] = heads.iter().map(|parameter| parameter.shape[0]).sum();
        let rows: Vec<f32> = heads.iter().flat_map(|parameter| values(parameter)).copied().collect();
        let name = format!("heads.{kind}");
        weights.insert(name.clone(), graph.floats(&name, &shape, &rows));
    }
    Network { config: &checkpoint.recipe.model, graph, weights }
}

/// The parts of a state as inputs or outputs.
fn state_declared(config: &Config, prefix: &str) -> Vec<ValueInfo> {
    use Size::Fixed;
    let (layers, memory) = match config {
        Config::Lstm(layers) => (*layers, None),
        Config::Ntm(config) => (config.controller.layers(), Some(config)),
    };
    let controller = [Fixed(layers.layers), BATCH, Fixed(layers.hidden)];
    let shape = |name: &str| match (name, memory) {
        ("memory", Some(config)) => [BATCH, Fixed(config.memory.rows), Fixed(config.memory.width)],
        ("weighting", Some(config)) => [BATCH, Fixed(config.heads()), Fixed(config.memory.rows)],
        ("read", Some(config)) => [BATCH, Fixed(config.read_heads), Fixed(config.memory.width)],
        _ => controller,
    };
    let part = |name: &&str| declared(&format!("{prefix}{name}"), Tensor::FLOAT, &shape(name));
    state_names(config).iter().map(part).collect()
}

fn encode(checkpoint: &Checkpoint, graph: Proto) -> Result<Vec<u8>> {
    let property = |key: &str, value: String| Property { key: key.to_string(), value };
    let model = Model {
        ir_version: 8, // of opset 18's time, so that runtimes from 2023 on read it
        producer_name: "ntm".to_string(),
        producer_version: env!("CARGO_PKG_VERSION").to_string(),
        graph: Some(graph),
        opset_import: vec![OperatorSet { domain: String::new(), version: 18 }],
        metadata_props: vec![
            property("recipe", serde_json::to_string(&checkpoint.recipe)?),
            property("progress", serde_json::to_string(&checkpoint.progress)?),
        ],
    };
    let size = model.encoded_len();
    ensure!(
        size <= i32::MAX as usize,
        "this machine is {size} bytes as ONNX, whose files end at 2 GB\nhint: `--format torchscript` has no such limit"
    );
    Ok(model.encode_to_vec())
}
