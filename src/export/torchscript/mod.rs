//! TorchScript: a module compiled from source, whose parameters have PyTorch's names and gradients.

mod source;

use crate::checkpoint::Checkpoint;
use crate::composed::Composed;
use crate::model::Parameter;
use crate::random::{Purpose, stream};
use crate::shim::Script;
use crate::tasks::Batch;
use anyhow::{Context, Result, ensure};
use rand::Rng;
use std::collections::{BTreeMap, HashMap};
use tch::{CModule, Device, Kind, Tensor};

/// The largest difference from the definition that an export may have, relative to the largest logit above 1.
const TOLERANCE: f64 = 1e-5;
/// Over this many steps.
const CHECKED_STEPS: usize = 40;

/// A tensor by its name below some module, and whether it is learned.
type Named<'a> = (&'a str, &'a Tensor, bool);

/// The bytes of the file, and how far the module that they load as is from the definition.
pub fn encode(checkpoint: &Checkpoint) -> Result<(Vec<u8>, f64)> {
    let layout = checkpoint.recipe.layout();
    let tensor = |p: &Parameter| Tensor::from_slice(&checkpoint.theta[p.range()]).view(p.dims().as_slice());
    let tensors: Vec<Tensor> = layout.parameters.iter().map(tensor).collect();
    let named: Vec<Named> =
        layout.parameters.iter().zip(&tensors).map(|(p, tensor)| (p.name.as_str(), tensor, p.learned)).collect();
    let sources: HashMap<&str, String> = source::sources(&checkpoint.recipe.model).into_iter().collect();

    let mut script = module("", &named, &sources)?;
    let recipe = serde_json::to_string(&checkpoint.recipe)?;
    let progress = serde_json::to_string(&checkpoint.progress)?;
    script.text("recipe", &recipe)?;
    script.text("progress", &progress)?;
    let bytes = script.save(&[("recipe.json", &recipe), ("progress.json", &progress)])?;
    let difference = difference(checkpoint, &bytes).context("the exported module cannot be run")?;
    ensure!(
        difference <= TOLERANCE,
        "the exported module differs from the machine by {difference:e}, allowed: {TOLERANCE:e}\n\
         hint: please report this with the checkpoint; `--format npz` gives its weights"
    );
    Ok((bytes, difference))
}

/// The module at `path`, "" being the root: its tensors, its submodules, then its methods, which call theirs.
fn module(path: &str, named: &[Named], sources: &HashMap<&str, String>) -> Result<Script> {
    let mut script = Script::new(&format!("__torch__.ntm_{}", path.replace('.', "_")))?; // a number is no part of a type
    let mut children: BTreeMap<&str, Vec<Named>> = BTreeMap::new();
    for &(name, tensor, learned) in named {
        match name.split_once('.') {
            None => script.tensor(name, tensor, learned)?,
            Some((child, rest)) => children.entry(child).or_default().push((rest, tensor, learned)),
        }
    }
    for (child, named) in children {
        let path = if path.is_empty() { child.to_string() } else { format!("{path}.{child}") };
        script.child(child, &module(&path, &named, sources)?)?;
    }
    if let Some(source) = sources.get(path) {
        script.define(source).with_context(|| format!("in the TorchScript source of `{path}`"))?;
    }
    Ok(script)
}

/// The largest difference between the logits of the module in `bytes` and those of the definition on two random
/// sequences, relative to the largest logit above 1. Both run in f64: a recurrence can amplify the rounding of f32
/// beyond any bound, and that is no error of the export.
fn difference(checkpoint: &Checkpoint, bytes: &[u8]) -> Result<f64> {
    let recipe = &checkpoint.recipe;
    let (x, y) = recipe.task.widths();
    let mut batch = Batch::zeros(vec![CHECKED_STEPS; 2], x, y);
    let mut rng = stream(recipe.training.seed, Purpose::EvaluationSequence, 0);
    batch.inputs.iter_mut().for_each(|input| *input = rng.random_range(-1.0..1.0));
    let _guard = tch::no_grad_guard();
    let theta = Tensor::from_slice(&checkpoint.theta).to_kind(Kind::Double);
    let logits = Composed::new(recipe.network()).logits(&theta, &batch);
    let mut module = CModule::load_data(&mut &*bytes)?;
    module.to(Device::Cpu, Kind::Double, false);
    let inputs = Tensor::from_slice(&batch.inputs).view([batch.steps as i64, 2, x as i64]);
    let found = module.forward_ts(&[inputs.to_kind(Kind::Double)])?;
    let largest = |tensor: &Tensor| tensor.abs().max().double_value(&[]);
    Ok(largest(&(found - &logits)) / largest(&logits).max(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Recipe;
    use crate::progress::Progress;

    #[test]
    fn a_module_with_other_weights_than_the_machine_is_noticed() {
        let recipe = Recipe::parse(r#"{"model": {"memory": {"rows": 4, "width": 2}}}"#, &[]).unwrap();
        let theta = recipe.layout().initial_theta(1);
        let mut checkpoint = Checkpoint { recipe, progress: Progress::default(), theta, optimizer: vec![] };
        let (bytes, same) = encode(&checkpoint).unwrap();
        assert!(same < 1e-6, "{same:e}");
        for name in ["controller.weight_hh_l0", "heads.write.0.weight", "init.read", "output.bias"] {
            let kept = checkpoint.theta.clone();
            checkpoint.theta[checkpoint.recipe.layout().get(name).range()].iter_mut().for_each(|weight| *weight += 0.5);
            let other = difference(&checkpoint, &bytes).unwrap();
            assert!(other > TOLERANCE, "{name}: {other:e}");
            checkpoint.theta = kept;
        }
    }
}
