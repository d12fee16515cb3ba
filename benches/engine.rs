//! Times the engines: `cargo bench --bench engine -- ENGINE BATCH LENGTH THREADS [UPDATES [DEVICE]]`
//!
//! Prints one line of JSON: milliseconds of every update (batch, forward, backward, clip, optimizer) of the copy recipe,
//! and peak memory.
//! ENGINE is fused or composed, or `forward`: the forward pass of fused alone, or `checkpoint`: saving one (synced,
//! renamed) after every update. DEVICE is cpu (the default) or cuda: there, as in training, nothing waits for an
//! update, so tens of them are timed together.

use ntm::checkpoint::Checkpoint;
use ntm::composed::Composed;
use ntm::config::Recipe;
use ntm::device::{self, DeviceChoice};
use ntm::engine::{Engine, Logits};
use ntm::fused::{CudaFused, Fused};
use ntm::optim::Optimizer;
use ntm::progress::Progress;
use ntm::tasks::{Axis, Point, Source};
use std::process::ExitCode;
use std::time::Instant;
use tch::{Device, Tensor};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [engine, numbers @ ..] = arguments.as_slice() else {
        return refused("usage: ENGINE BATCH LENGTH THREADS [UPDATES [DEVICE]]");
    };
    let number =
        |index: usize, default: usize| numbers.get(index).map_or(default, |text| text.parse().expect("a whole number"));
    let (batch, length, threads, updates) = (number(0, 1), number(1, 20), number(2, 1), number(3, 40));

    let recipe = Recipe::load("copy", &[]).expect("a built-in recipe");
    let mut source = Source::open(&recipe.task).expect("it has no files");
    let choice = numbers.get(4).map_or(Ok(DeviceChoice::Cpu), |text| text.parse());
    let device = choice.map_err(anyhow::Error::msg).and_then(|choice| device::choose(choice, Some(0), 1));
    let device = match device {
        Ok((device, _)) => device,
        Err(error) => return refused(&format!("error: {error:#}")),
    };
    let mut machine: Box<dyn Engine> = match (engine.as_str(), device) {
        ("fused", Device::Cuda(index)) => Box::new(CudaFused::on_card(recipe.network(), index).expect("a card")),
        ("fused" | "forward" | "checkpoint", _) => {
            Box::new(Fused::<f32>::new(recipe.network(), threads).expect("threads"))
        }
        ("composed", _) => Box::new(Composed::new(recipe.network())),
        (other, _) => return refused(&format!("no engine {other}: fused, composed, forward or checkpoint")),
    };
    tch::set_num_threads(if engine == "composed" { threads as i32 } else { 1 });
    let mut theta = Tensor::from_slice(&recipe.layout().initial_theta(1)).to_device(device);
    let mut gradient = theta.zeros_like();
    let mut optimizer = Optimizer::new(&recipe.training.optimizer, &recipe.training.clip, &theta)
        .with_kernels(machine.update_kernels(&theta));
    let mut milliseconds = vec![];
    let mut bytes = None;
    let together = if device == Device::Cpu { 1 } else { (updates as u64 / 10).max(1) };
    let mut start = Instant::now();
    for step in 0..updates as u64 {
        let point = Point::new([(Axis::Length, length)]);
        let sequences = source.evaluation_batch(1, &point, step * batch as u64, batch).expect("a batch");
        if engine == "forward" {
            machine.forward(&theta, &sequences).expect("logits");
        } else {
            let step = step + 1;
            match machine.gradient(&theta, &sequences, &mut gradient).expect("a gradient") {
                Logits::Host(_) => optimizer.update(1.0, &mut theta, &gradient, step),
                Logits::Device(logits) => {
                    let norm = optimizer.update_later(1.0, &mut theta, &gradient, &logits, step).expect("an update");
                    if step.is_multiple_of(together) { norm.double_value(&[]) } else { 0.0 }
                }
            };
        }
        if engine == "checkpoint" {
            let (took, size) = save(&recipe, &theta, &optimizer);
            milliseconds.push(took);
            bytes = Some(size);
        } else if (step + 1).is_multiple_of(together) {
            milliseconds.push(start.elapsed().as_secs_f64() * 1e3 / together as f64);
            start = Instant::now();
        }
    }
    let peak = std::fs::read_to_string("/proc/self/status").ok().and_then(|status| {
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok())
    });
    let result = serde_json::json!({ "engine": engine, "batch": batch, "length": length, "threads": threads, "device": device::name(device),
        "milliseconds": milliseconds, "bytes": bytes, "peak_mb": peak.map(|kb| kb / 1024.0) });
    println!("{result}");
    ExitCode::SUCCESS
}

fn refused(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::FAILURE
}

/// Saves a checkpoint as training does; milliseconds and bytes.
fn save(recipe: &Recipe, theta: &Tensor, optimizer: &Optimizer) -> (f64, u64) {
    let start = Instant::now();
    let values = |vector: &Tensor| Vec::try_from(vector).expect("a flat vector of f32");
    let state = optimizer.state.iter().map(|(name, vector)| (name.to_string(), values(vector))).collect();
    let (recipe, progress) = (recipe.clone(), Progress::default());
    let checkpoint = Checkpoint { recipe, progress, theta: values(theta), optimizer: state };
    let path = std::env::temp_dir().join(format!("ntm-bench-{}.safetensors", std::process::id()));
    checkpoint.save(&path).expect("the temporary directory can be written");
    let took = start.elapsed().as_secs_f64() * 1e3;
    let bytes = std::fs::metadata(&path).expect("it was just written").len();
    std::fs::remove_file(&path).expect("it was just written");
    (took, bytes)
}
