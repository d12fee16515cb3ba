//! What NVRTC makes of the kernels: for every card, without spilling, and interpreted the definition.

use crate::machines::compare::{compare, composed};
use crate::machines::{MACHINES, batch, exact_blur, recipe, weights};
use crate::ptx::Interpreted;
use crate::{FEW, run};
use ntm::config::Recipe;
use ntm::fused::CudaFused;
use ntm::fused::cuda::{Blocks, Kernel, Shape, compiler, nvrtc};
use ntm::tasks::Batch;
use std::collections::BTreeMap;
use std::rc::Rc;
use tch::{Device, Kind};

/// NVRTC of the Python environment of the tests, or of the system. False, with the reason on stderr, where there is
/// none.
pub fn has_nvrtc() -> bool {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let packages = std::fs::read_dir(root.join(".venv-test/lib")).into_iter().flatten();
    let folder =
        packages.map(|python| python.unwrap().path().join("site-packages/nvidia/cu13/lib")).find(|f| f.exists());
    match nvrtc::open(folder.as_deref()) {
        Ok(_) => true,
        Err(error) if folder.is_some() => panic!("{error}"), // it was installed for this
        Err(error) => {
            eprintln!("skipped: {error}");
            false
        }
    }
}

/// How an H100 runs a batch of this many sequences.
fn shape(recipe: &Recipe, sequences: usize) -> Shape {
    let blocks = Blocks::on_card(sequences, 132, 227 * 1024);
    Shape::of(recipe.network(), blocks).unwrap()
}

#[test]
fn nvrtc_compiles_the_kernels_for_every_card_from_turing_to_blackwell() {
    if !has_nvrtc() {
        return;
    }
    let recipe = Recipe::load("copy", &[]).unwrap();
    let cards = ["sm_75", "sm_80", "sm_90", "sm_100", "sm_120"].map(|architecture| (architecture, 1, 1));
    for (architecture, sequences, together) in cards.into_iter().chain([("sm_90", 200, 2), ("sm_90", 1000, 4)]) {
        let shape = shape(&recipe, sequences);
        assert_eq!(shape.together(), together);
        let mut options = compiler::options(&shape.sizes, architecture);
        options.push("--ptxas-options=-v".to_string());
        let (code, log) = compiler::compile(&options).unwrap();
        assert!(code.starts_with(b"\x7fELF"), "{architecture}");
        let before = |words: &str| -> Vec<u32> {
            let numbers = log.split(words).map(|text| text.rsplit([' ', '\n']).find_map(|word| word.parse().ok()));
            numbers.take(log.matches(words).count()).map(Option::unwrap).collect()
        };
        let spilled = before(" bytes spill stores");
        assert!(spilled.len() == 6 && spilled.iter().all(|&bytes| bytes <= 64), "{architecture}, {sequences}: {log}");
        assert!(!log.contains("warning"), "{architecture}: {log}");
    }
}

#[test]
fn how_many_threads_a_team_has_is_a_constant_to_the_compiler_of_every_card() {
    if !has_nvrtc() {
        return;
    }
    for (name, sequences) in [("copy", 1), ("ngrams", 1000)] {
        let shape = shape(&Recipe::load(name, &[]).unwrap(), sequences);
        for architecture in ["compute_90", "compute_100", "compute_120"] {
            let (code, _) = compiler::compile(&compiler::options(&shape.sizes, architecture)).unwrap();
            let code = String::from_utf8(code).unwrap();
            let lines: Vec<&str> = code.lines().map(str::trim).collect();
            for (at, line) in lines.iter().enumerate() {
                let Some((_, threads)) = line.strip_prefix("bar.sync").and_then(|rest| rest.split_once(", ")) else {
                    continue;
                };
                let register = threads.trim_end_matches(';');
                // what gives the register its value: `mov.b32 <tab>%r205, 128;`
                let given =
                    |line: &&&str| line.split_once(", ").is_some_and(|(to, _)| to.ends_with(&format!("\t{register}")));
                let from = lines[..at].iter().rev().find(given).map_or(*line, |line| *line);
                let value = from.rsplit(", ").next().unwrap().trim_end_matches(';');
                assert!(
                    from.starts_with("mov.") && value.parse::<u32>().is_ok(),
                    "{name}, {architecture}: {line} {from}"
                );
            }
        }
    }
}

#[test]
fn streamed_weights_are_loaded_by_sixteen_bytes() {
    if !has_nvrtc() {
        return;
    }
    let shape = shape(&Recipe::load("copy", &[]).unwrap(), 1000);
    let (code, _) = compiler::compile(&compiler::options(&shape.sizes, "compute_90")).unwrap();
    let code = String::from_utf8(code).unwrap();
    for kernel in ["ntm_forward", "ntm_backward"] {
        let entry = code.split(".entry ").find(|entry| entry.starts_with(kernel)).unwrap();
        let wide = entry.lines().filter(|line| line.contains("ld.global") && line.contains(".v4.")).count();
        // four rows that registers hold; of those that are streamed, four at once
        assert!(wide >= 8, "{kernel} has {wide}");
    }
}

#[test]
fn nvrtc_compiles_the_kernels_for_every_recipe_without_arithmetic_in_f64() {
    if !has_nvrtc() {
        return;
    }
    for (name, _) in ntm::config::BUILT_IN {
        let recipe = Recipe::load(name, &[]).unwrap();
        let (code, _) = compiler::compile(&compiler::options(&shape(&recipe, 1).sizes, "compute_90")).unwrap();
        let code = String::from_utf8(code).unwrap();
        assert!(code.contains(".entry ntm_backward"), "{name}");
        assert!(!code.contains(".f64"), "{name}: {:?}", code.lines().find(|line| line.contains(".f64")));
    }
}

/// An engine on an interpreted card, which proves itself there before it computes anything.
fn engine(recipe: &Recipe, card: &Rc<Interpreted>) -> CudaFused {
    CudaFused::new(recipe.network(), card.clone(), (Kind::Float, Device::Cpu)).unwrap()
}

/// The shared memory of a block on an H100.
const SHARED: usize = 227 * 1024;

#[test]
fn interpreted_logits_and_every_gradient_equal_the_definition_with_no_fault_and_no_race() {
    if !has_nvrtc() {
        return;
    }
    for (index, (name, model)) in MACHINES.iter().enumerate() {
        let (recipe, architecture) = (recipe(model), ["75", "90", "100", "120"][index / 3 % 4]);
        let card = Rc::new(Interpreted::new(&format!("compute_{architecture}"), [1, 2, 4][index % 3], SHARED));
        for (draw, lengths) in FEW.iter().enumerate() {
            let theta = weights(&recipe.layout(), 0.1, draw as u64);
            let batch = Batch { blur: exact_blur(&recipe, draw), ..batch(&recipe, lengths, draw as u64) };
            let (logits, gradient) = run(&mut engine(&recipe, &card), &theta, &batch, Kind::Float).unwrap();
            compare(name, &recipe, &batch, &logits, &gradient, &composed(&recipe, &theta, &batch), 1e-4);
        }
    }
}

#[test]
fn interpreted_kernels_of_shipped_recipes_prove_themselves() {
    if !has_nvrtc() {
        return;
    }
    for (name, architecture, sequences) in
        [("copy", "90", 1), ("ngrams", "90", 2), ("priority-sort", "90", 4), ("repeat-copy-feedforward", "100", 1)]
    {
        let card = Rc::new(Interpreted::new(&format!("compute_{architecture}"), sequences, SHARED));
        engine(&Recipe::load(name, &[]).unwrap(), &card).prove(sequences).unwrap();
    }
}

#[test]
fn without_any_one_barrier_the_interpreted_kernels_race() {
    if !has_nvrtc() {
        return;
    }
    // by kernel and line, for each machine: of how many of the line's barriers it was told, and how many there are
    let mut told: BTreeMap<String, Vec<[usize; 2]>> = BTreeMap::new();
    // the last has several warps a head
    for (name, sequences) in [("many heads", 4), ("three layers", 2), ("many rows, many taps, two write heads", 1)] {
        let recipe = recipe(MACHINES.iter().find(|(other, _)| *other == name).unwrap().1);
        let card = Rc::new(Interpreted::new("compute_90", sequences, SHARED));
        let (theta, batch) = (weights(&recipe.layout(), 0.1, 5), batch(&recipe, &[6, 3, 4, 6, 5], 5));
        let run = || run(&mut engine(&recipe, &card).with_snapshot_bytes(0), &theta, &batch, Kind::Float);
        assert!(run().is_ok(), "{name}");
        let mut here: BTreeMap<String, [usize; 2]> = BTreeMap::new();
        for kernel in [Kernel::Forward, Kernel::Backward] {
            for (barrier, place) in card.barriers(kernel).into_iter().enumerate() {
                card.leave_out(kernel, barrier);
                let races = run().err().is_some_and(|error| error.to_string().contains("in no order"));
                let [of_line, all] = here.entry(format!("{kernel:?}, {place}")).or_default();
                (*of_line, *all) = (*of_line + races as usize, *all + 1);
            }
        }
        here.into_iter().for_each(|(line, counts)| told.entry(line).or_default().push(counts));
    }
    assert!(told.len() > 20, "{told:?}");
    for (line, machines) in told {
        // a machine needs all barriers of a line, or none where its sizes give nothing to order, which others have
        assert!(machines.iter().all(|[told, all]| told == all || *told == 0), "{line}: {machines:?}");
        assert!(machines.iter().any(|[told, _]| *told > 0), "{line}: {machines:?}");
    }
}
