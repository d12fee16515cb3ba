//! `ntm train`: what a run directory holds, and how a run goes on.

use crate::common::{TINY, assert_same_tensors, json_of, lines, ntm, progress, refused, succeeds, tiny_run};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const LATEST: &str = "checkpoints/latest.safetensors";

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Names and contents of all files below a directory.
fn contents(directory: &Path) -> BTreeSet<(String, Vec<u8>)> {
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            files.insert((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    files
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_run_directory_holds_the_recipe_the_logs_and_two_checkpoints() {
    let directory = tiny_run();
    let run = directory.path().join("run");
    let found = names(&run);
    assert_eq!(found.len(), 6, "{found:?}");
    assert!(found[2].starts_with("events.out.tfevents."), "{found:?}");
    assert_eq!(
        [&found[0], &found[1], &found[3], &found[4], &found[5]],
        ["checkpoints", "evaluations.jsonl", "lock", "metrics.jsonl", "recipe.json"]
    );
    assert_eq!(names(&run.join("checkpoints")), ["best.safetensors", "latest.safetensors"]);
}

#[test]
fn metrics_have_a_line_a_report_with_the_promised_keys() {
    let directory = tiny_run();
    let metrics = lines(&directory.path().join("run/metrics.jsonl"));
    assert_eq!(metrics.iter().map(|line| line["step"].as_u64().unwrap()).collect::<Vec<_>>(), [5, 10, 15, 20]);
    for line in &metrics {
        let expected = "step sequences seconds loss_bits bit_errors grad_norm learning_rate sequences_per_second";
        assert_eq!(keys(line).join(" "), expected);
        assert!(keys(line).iter().all(|key| line[key].as_f64().is_some_and(|value| value > 0.0)), "{line}");
    }
}

#[test]
fn each_evaluation_has_a_line_and_the_last_of_those_with_the_fewest_wrong_bits_is_the_best_checkpoint() {
    for rate in [0.0003, 0.1, 3.0] {
        let directory = tempfile::tempdir().unwrap();
        let line = format!("train {TINY} --set training.optimizer.learning_rate={rate} --sequences 50 --run-dir run");
        succeeds(directory.path(), &line);
        let evaluations = lines(&directory.path().join("run/evaluations.jsonl"));
        let steps: Vec<u64> = evaluations.iter().map(|line| line["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, [10, 20, 30, 40, 50]);
        let scores = |line: &Value| line["results"].as_array().unwrap().clone();
        // the geometric mean, but for its root; of 4 sequences without a wrong bit half a bit counts
        let wrong = |line: &Value| {
            scores(line).iter().map(|score| score["bit_errors"].as_f64().unwrap().max(0.5 / 4.0)).product::<f64>()
        };
        let best = evaluations.iter().rev().min_by(|a, b| wrong(a).total_cmp(&wrong(b))).unwrap();
        for score in &scores(best) {
            assert_eq!(keys(score), ["length", "sequences", "loss_bits", "bit_errors", "exact"]);
            // Evaluation during training draws the sequences of seed 0.
            let flags = format!("--lengths {} --sequences 4 --seed 0 --threads 1 --json", score["length"]);
            let found = succeeds(directory.path(), &format!("eval --checkpoint run {flags}")).json();
            assert_eq!((&found["results"][0], &found["step"]), (score, &best["step"]), "rate {rate}");
        }
        let latest = succeeds(directory.path(), "eval --checkpoint run --latest --json").json();
        assert_eq!(latest["step"], 50);
    }
}

#[test]
fn a_run_is_rebuilt_from_its_recipe_bit_for_bit() {
    let directory = tiny_run();
    succeeds(directory.path(), "train run/recipe.json --run-dir again --threads 1");
    assert_same_tensors(&directory.path().join("run").join(LATEST), &directory.path().join("again").join(LATEST));
}

#[test]
fn an_edited_recipe_a_lost_checkpoint_and_a_file_are_refused_with_what_to_do() {
    let directory = tiny_run();
    let here = directory.path();
    let recipe = here.join("run/recipe.json");
    let kept = fs::read_to_string(&recipe).unwrap();
    fs::write(&recipe, kept.replace("\"max_length\": 3", "\"max_length\": 2")).unwrap();
    let message = refused(here, "train --resume run --sequences 40", 1);
    assert!(message.contains("`run/recipe.json` has been edited: `task.max_length` was 3 and is 2"), "{message}");
    assert!(message.contains("`ntm train run/recipe.json --from run --run-dir DIR`"), "{message}");
    succeeds(here, "train run/recipe.json --from run --sequences 5 --run-dir edited --threads 1");
    fs::write(&recipe, kept.replace("\"max_length\": 3", "\"max_length\": 3,,")).unwrap();
    assert!(
        refused(here, "train --resume run --sequences 40", 1).contains("in `run/recipe.json`, which a run does not")
    );
    fs::write(&recipe, kept.replace("\"sequences\": 20", "\"sequences\": 30")).unwrap();
    let said = ntm(here, "train --resume run").stderr;
    assert!(said.contains("`run/recipe.json` says 30 sequences; this run has 20"), "{said}");
    fs::write(&recipe, kept).unwrap();
    assert!(refused(here, &format!("train --resume run/{LATEST}"), 1).contains("is a file\nhint: --resume takes"));
    succeeds(here, "train --resume run --sequences 40 --threads 1");
    fs::remove_file(here.join("run").join(LATEST)).unwrap();
    let message = refused(here, "train --resume run", 1);
    assert!(message.contains("has lost its latest checkpoint") && message.contains("`--from run`"), "{message}");
}

#[test]
fn a_total_rounded_up_to_batches_and_sequences_beyond_the_memory_are_told_first() {
    let directory = tempfile::tempdir().unwrap();
    let line = "--set training.batch_size=16 --set evaluation.lengths=[4,8,20] --sequences 40 --run-dir run";
    let said = succeeds(directory.path(), &format!("train {TINY} {line}")).stderr;
    assert!(said.contains("training 48 sequences (3 updates of 16) of copy into run"), "{said}");
    assert!(said.contains("length 8 (and another point): 9 input steps before the first answer, but only"), "{said}");
    let said =
        succeeds(directory.path(), &format!("train {TINY} --set task.max_length=9 --sequences 1 --run-dir long"));
    assert!(said.stderr.contains("training draws up to length 9: 10 input steps before the first"), "{}", said.stderr);
}

#[test]
fn another_seed_gives_another_run_in_a_directory_named_after_recipe_and_seed() {
    let directory = tempfile::tempdir().unwrap();
    for seed in [1, 2] {
        succeeds(directory.path(), &format!("train copy {TINY} --sequences 5 --seed {seed}"));
    }
    let metrics =
        |seed| lines(&directory.path().join(format!("runs/copy-{seed}/metrics.jsonl")))[0]["loss_bits"].clone();
    assert_ne!(metrics(1), metrics(2));
}

#[test]
fn a_directory_that_holds_a_run_is_refused_and_left_as_it_was() {
    let directory = tiny_run();
    let before = contents(directory.path());
    let message = refused(directory.path(), &format!("train {TINY} --run-dir run"), 1);
    assert!(message.contains("`run` holds a run already"), "{message}");
    assert!(message.contains("or go on with what is there by `ntm train --resume run`"), "{message}");
    assert_eq!(before, contents(directory.path()));
}

#[test]
fn resuming_a_finished_run_says_so_and_changes_no_result() {
    let directory = tiny_run();
    let results = |file: &str| fs::read(directory.path().join("run").join(file)).unwrap();
    let files = ["metrics.jsonl", "evaluations.jsonl", "recipe.json", LATEST];
    let before = files.map(results);
    let ran = succeeds(directory.path(), "train --resume run --threads 1");
    assert!(ran.stderr.contains("run is finished: 20 sequences seen; more with --sequences"), "{}", ran.stderr);
    assert_eq!(before, files.map(results));
}

#[test]
fn a_finished_run_with_more_sequences_is_the_run_of_all_of_them() {
    let directory = tiny_run();
    let ran = succeeds(directory.path(), "train --resume run --sequences 40 --threads 1");
    assert!(ran.stderr.starts_with("fused engine on cpu (where it began), threads: 1\n"), "{}", ran.stderr);
    succeeds(directory.path(), &format!("train {TINY} --sequences 40 --run-dir at-once"));
    let (run, at_once) = (directory.path().join("run"), directory.path().join("at-once"));
    assert_same_tensors(&run.join(LATEST), &at_once.join(LATEST));
    let recipe = |run: &Path| fs::read_to_string(run.join("recipe.json")).unwrap();
    assert_eq!(recipe(&run), recipe(&at_once), "recipe.json says what the run has become");
}

#[test]
fn more_sequences_than_a_recipe_allows_are_refused_and_the_run_stays_usable() {
    let directory = tiny_run();
    let message = refused(directory.path(), "train --resume run --sequences 18446744073709551615", 1);
    assert!(message.contains("`training.sequences` is 18446744073709551615, allowed: 1 to"), "{message}");
    succeeds(directory.path(), "train --resume run --sequences 21 --threads 1");
}

#[test]
fn a_run_that_is_never_evaluated_ends_by_naming_a_checkpoint_that_exists() {
    let directory = tempfile::tempdir().unwrap();
    let ran =
        succeeds(directory.path(), &format!("train {TINY} --set training.eval_every=0 --sequences 5 --run-dir run"));
    let named = ran.stderr.split_whitespace().find(|word| word.ends_with(".safetensors")).expect(&ran.stderr);
    assert!(directory.path().join(named).is_file(), "{}", ran.stderr);
}

#[test]
fn a_run_may_begin_with_the_weights_of_another_also_with_other_rows() {
    let directory = tiny_run();
    let here = directory.path();
    let figures = |checkpoint: &str, rows: &str| {
        let eval = "--lengths 3,6 --threads 1 --json";
        succeeds(here, &format!("eval --checkpoint {checkpoint} {rows} {eval}")).json()["results"].clone()
    };
    // an update of no size leaves the weights as they were
    let still = format!("train {TINY} --set training.optimizer.learning_rate=1e-30 --sequences 1");
    let latest = |run: &str| format!("{run}/checkpoints/latest.safetensors");
    succeeds(here, &format!("{still} --from run --run-dir same"));
    assert_eq!(figures(&latest("same"), ""), figures("run", ""));
    assert_ne!(figures(&latest("same"), ""), figures("run", "--rows 5"));
    succeeds(here, &format!("{still} --from {} --set model.memory.rows=5 --run-dir fewer", latest("run")));
    assert_eq!(figures(&latest("fewer"), ""), figures(&latest("run"), "--rows 5"));
    succeeds(here, &format!("{still} --from run --seeds 1..2 --run-dir study"));
    assert_eq!(figures(&latest("study/seed-2"), ""), figures("run", ""));
}

#[test]
fn a_run_does_not_begin_with_the_weights_of_another_network() {
    let directory = tiny_run();
    let here = directory.path();
    let message = refused(here, &format!("train {TINY} --from run --set model.memory.width=5 --run-dir other"), 1);
    let expected = "its `controller.weight_ih_l0` is [32, 8], this recipe asks for [32, 9]\nhint";
    assert!(message.contains(expected), "{message}");
    let message =
        refused(here, &format!("train {TINY} --from run --set model.init.weighting=uniform --run-dir other"), 1);
    assert!(message.contains("its `init.weighting` is [2, 8], this recipe has none"), "{message}");
    let message = refused(here, &format!("train {TINY} --from run --set model.activation.add=tanh --run-dir other"), 1);
    assert!(message.contains("its `model.activation.add` is linear, this recipe's tanh\nhint: "), "{message}");
    assert!(!here.join("other").exists());
    let message = refused(here, &format!("train {TINY} --from nowhere --run-dir other"), 1);
    assert!(message.contains("cannot read checkpoint") && message.contains("/nowhere`"), "{message}");
}

#[test]
fn a_run_with_weights_of_another_needs_the_same_ones_to_begin_and_none_to_go_on() {
    let directory = tiny_run();
    let here = directory.path();
    let still = format!("train {TINY} --set training.optimizer.learning_rate=1e-30 --sequences 1");
    succeeds(here, &format!("{still} --from run --run-dir same"));
    succeeds(here, &format!("{still} --from run --seeds 1..2 --run-dir study"));
    let recipe = json_of(&here.join("same/recipe.json"));
    assert!(recipe["training"]["from"].as_str().unwrap().ends_with("/run"));
    assert!(recipe["training"]["from_content"].as_str().unwrap().starts_with("checksum "));
    succeeds(here, "train same/recipe.json --run-dir again");
    assert_eq!(json_of(&here.join("again/recipe.json")), recipe);
    fs::rename(here.join("run"), here.join("moved")).unwrap();
    for run in ["same", "study"] {
        succeeds(here, &format!("train --resume {run} --sequences 3"));
    }
    // a seed that is to begin needs the weights, the same ones, and the others do not wait for it
    let ran = ntm(here, "train --resume study --sequences 4 --seeds 3");
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("1 of 3 seeds failed") && ran.stderr.contains("seed 3: "), "{}", ran.stderr);
    assert_eq!(progress(here, "study/seed-2")["sequences"], 4);
    succeeds(here, &format!("train {TINY} --sequences 20 --seed 9 --run-dir run"));
    let ran = ntm(here, "train --resume study");
    assert!(ran.stderr.contains("has other weights than when this recipe was written"), "{}", ran.stderr);
    let message = refused(here, "train same/recipe.json --run-dir other", 1);
    assert!(message.contains("has other weights than when this recipe was written: checksum "), "{message}");
    succeeds(here, "train same/recipe.json --from run --run-dir other");
    assert_ne!(json_of(&here.join("other/recipe.json")), recipe);
    fs::remove_dir_all(here.join("run")).unwrap();
    fs::rename(here.join("moved"), here.join("run")).unwrap();
    succeeds(here, "train --resume study");
    fs::rename(here.join("run"), here.join("moved")).unwrap();
    assert!(refused(here, &format!("{still} --from run --run-dir another"), 1).contains("cannot read checkpoint"));
}

#[test]
fn a_report_says_how_far_a_curriculum_has_come() {
    let directory = tempfile::tempdir().unwrap();
    let reach = |curriculum: &str, run: &str| {
        let line = format!("train {TINY} --sequences 40 --set training.curriculum={curriculum} --run-dir {run}");
        succeeds(directory.path(), &line);
        let lines = lines(&directory.path().join(run).join("metrics.jsonl"));
        lines.iter().map(|line| line["reach"].as_f64()).collect::<Vec<_>>()
    };
    // reports every 5 updates, the last of them, counted from 0, number 4, 9, 14, ...; all is reached after 20
    let grown = [0.2, 0.45, 0.7, 0.95, 1.0, 1.0, 1.0, 1.0].map(Some);
    assert_eq!(reach(r#"{"kind":"grow","over":0.5}"#, "grow"), grown);
    // lengths 1 to 3: two levels, each after 10 updates, whatever they cost
    let mastered = [0.0, 0.0, 0.5, 0.5, 1.0, 1.0, 1.0, 1.0].map(Some);
    assert_eq!(reach(r#"{"kind":"mastered","at_most":100,"updates":10}"#, "mastered"), mastered);
    assert_eq!(reach(r#"{"kind":"none"}"#, "none"), [None; 8]);
}
