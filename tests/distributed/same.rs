//! What several ranks learn is what one process learns.

use crate::common::{assert_same_tensors, lines, send, succeeds, tensors, timeless, wait_for_reports};
use crate::{ended, start, together, train};
use ntm::checkpoint::Checkpoint;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// The larger of two; not a number if one is none, which `f64::max` would drop.
fn larger(left: f64, right: f64) -> f64 {
    if left.is_nan() || left > right { left } else { right }
}

/// The largest difference of two numbers in the same place, relative to what is above 1.
fn difference(left: &Value, right: &Value) -> f64 {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            assert!(left.keys().eq(right.keys()), "{left:?}\n{right:?}");
            left.keys().map(|key| difference(&left[key], &right[key])).fold(0.0, larger)
        }
        (Value::Array(left), Value::Array(right)) => {
            assert_eq!(left.len(), right.len());
            left.iter().zip(right).map(|(left, right)| difference(left, right)).fold(0.0, larger)
        }
        _ => match (left.as_f64(), right.as_f64()) {
            (Some(left), Some(right)) => (left - right).abs() / left.abs().max(1.0),
            _ => {
                assert_eq!(left, right);
                0.0
            }
        },
    }
}

/// The largest difference of the logs of two runs, and of the weights at their ends.
fn differences(left: &Path, right: &Path) -> [f64; 2] {
    let log = |name: &str| difference(&timeless(&left.join(name)).into(), &timeless(&right.join(name)).into());
    let latest = "checkpoints/latest.safetensors";
    let (ours, theirs) = (tensors(&left.join(latest)), tensors(&right.join(latest)));
    assert!(ours.keys().eq(theirs.keys()));
    let values = |bytes: &[u8]| bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let weights = ours.iter().map(|(name, (_, bytes))| {
        let (ours, theirs): (Vec<f32>, Vec<f32>) = (values(bytes), values(&theirs[name].1));
        ours.iter().zip(&theirs).map(|(x, y)| (x - y).abs() as f64).fold(0.0, larger)
    });
    [larger(log("metrics.jsonl"), log("evaluations.jsonl")), weights.fold(0.0, larger)]
}

#[test]
fn two_to_four_ranks_learn_what_one_process_learns_to_rounding() {
    for engine in ["fused", "composed"] {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        let flags = format!("--sequences 240 --engine {engine}");
        succeeds(here, &train(&flags, "one"));
        for ranks in [2, 3, 4] {
            let run = format!("of-{ranks}");
            together(here, ranks, &train(&flags, &run));
            let [log, weights] = differences(&here.join("one"), &here.join(&run));
            println!("{engine}, {ranks} ranks, 40 updates: logs differ by {log:.1e}, weights by {weights:.1e}");
            assert!(log < 1e-5 && weights < 1e-5, "{engine}, {ranks} ranks: {log} {weights}");
        }
    }
}

#[test]
fn every_task_is_shared_by_slices() {
    for task in ["repeat-copy", "associative-recall", "ngrams", "priority-sort"] {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        let own = match task {
            "ngrams" => "--set task.length=20 --set task.order=3 --set evaluation.lengths=[20]",
            "priority-sort" => "--set task.vectors=5 --set task.sorted=4 --set evaluation.vectors=[4,7]", // answers of 4 and 5
            _ => "",
        };
        let small = "--threads 1 --set model.memory.rows=8 --set model.controller.hidden=8 --set training.batch_size=4 \
            --set training.restart.kind=never \
            --set training.report_every=5 --set training.eval_every=10 --set evaluation.sequences=6 --sequences 40 \
            --peer-timeout 20";
        succeeds(here, &format!("train {task} {small} {own} --run-dir one"));
        together(here, 3, &format!("train {task} {small} {own} --run-dir of-3"));
        let [log, weights] = differences(&here.join("one"), &here.join("of-3"));
        println!("{task}: {log:.1e} {weights:.1e}");
        assert!(log < 1e-5 && weights < 1e-5, "{task}: {log} {weights}");
    }
}

#[test]
fn ranks_begin_anew_together_from_the_same_weights_as_one_process() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let unless = "--sequences 120 --set training.restart.kind=unless --set training.restart.after=0.5 \
        --set training.restart.times=2";
    let ran = succeeds(here, &train(unless, "one"));
    assert_eq!(ran.stderr.matches("beginning anew").count(), 2, "{}", ran.stderr);
    together(here, 3, &train(unless, "of-3"));
    let [log, weights] = differences(&here.join("one"), &here.join("of-3"));
    assert!(log < 1e-5 && weights < 1e-5, "{log} {weights}");
    let progress = Checkpoint::load(&here.join("of-3/checkpoints/latest.safetensors")).unwrap().progress;
    assert_eq!((progress.restarts, progress.sequences), (2, 240));
}

#[test]
fn with_the_same_number_of_ranks_a_run_repeats_bit_for_bit() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    for run in ["first", "again"] {
        together(here, 3, &train("--sequences 120", run));
    }
    for checkpoint in ["checkpoints/latest.safetensors", "checkpoints/best.safetensors"] {
        assert_same_tensors(&here.join("first").join(checkpoint), &here.join("again").join(checkpoint));
    }
    assert_eq!(timeless(&here.join("first/metrics.jsonl")), timeless(&here.join("again/metrics.jsonl")));
}

/// Asks the last `asked` of the ranks to stop in mid-run, each `times` times; all end with the signal.
fn stop(here: &Path, ranks: usize, asked: usize, times: usize, line: &str) {
    let mut all = start(here, &vec![line.to_string(); ranks]);
    wait_for_reports(&here.join("run"), 3);
    for rank in all[ranks - asked..].iter().cycle().take(asked * times) {
        send(rank, libc::SIGTERM);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(all.iter_mut().all(|rank| rank.wait().unwrap().code() == Some(128 + libc::SIGTERM)));
    let said = ended(all).remove(0).stderr;
    assert!(said.contains("stopped and saved after") && said.contains("ntm train --resume run"), "{said}");
}

#[test]
fn a_stopped_job_goes_on_bit_for_bit_and_with_another_number_of_ranks_to_rounding() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let endless = "--sequences 1000000000 --set training.report_every=7";
    stop(here, 2, 1, 1, &train(endless, "run"));
    let seen = lines(&here.join("run/metrics.jsonl")).len() * 7 * 6;
    let total = seen + 300;
    assert!(
        std::process::Command::new("cp").args(["-r", "run", "alone"]).current_dir(here).status().unwrap().success()
    );
    let finite = format!("--sequences {total} --set training.report_every=7");
    together(here, 2, &train(&finite, "uninterrupted"));
    together(here, 2, &format!("train --resume run --threads 1 --sequences {total}"));
    succeeds(here, &format!("train --resume alone --threads 1 --sequences {total}"));
    for log in ["metrics.jsonl", "evaluations.jsonl"] {
        assert_eq!(timeless(&here.join("run").join(log)), timeless(&here.join("uninterrupted").join(log)), "{log}");
    }
    let latest = "checkpoints/latest.safetensors";
    assert_same_tensors(&here.join("run").join(latest), &here.join("uninterrupted").join(latest));
    let [log, weights] = differences(&here.join("run"), &here.join("alone"));
    assert!(log < 1e-4 && weights < 1e-4, "gone on with alone: {log} {weights}");
}

#[test]
fn a_stop_that_is_asked_of_all_ranks_and_again_and_again_still_saves() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    stop(here, 3, 3, 20, &train("--sequences 1000000000", "run"));
    let seen = Checkpoint::load(&here.join("run/checkpoints/latest.safetensors")).unwrap().progress.sequences;
    together(here, 3, &train(&format!("--sequences {seen}"), "uninterrupted"));
    let latest = "checkpoints/latest.safetensors";
    assert_same_tensors(&here.join("run").join(latest), &here.join("uninterrupted").join(latest));
}

#[test]
fn one_rank_writes_and_speaks_and_the_others_need_no_directory() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let line = |run: &str| train("--sequences 60", run);
    let all = ended(start(here, &[line("led"), line("elsewhere/that/is/never/made")]));
    assert!(all.iter().all(|ran| ran.code == Some(0)), "{}", all[1].stderr);
    assert!(all[0].stderr.contains("ranks: 2") && all[0].stderr.contains("the run is in led"), "{}", all[0].stderr);
    assert_eq!((all[1].stderr.as_str(), all[1].stdout.as_str()), ("", ""));
    assert!(!here.join("elsewhere").exists());
}
