//! SIGKILL at random moments: whatever a run leaves behind, it goes on to the same end, with every report once.

use crate::common::{Ran, TINY, assert_same_tensors, command, python, succeeds, timeless};
use crate::nonfinite::diverging;
use ntm::checkpoint::Checkpoint;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// A checkpoint at every other update, and reports that fall between them.
const OFTEN: &str = "--set training.checkpoint_every=2 --set training.report_every=3 --set training.eval_every=5";

/// Enough that some come while it goes on from an earlier one.
const KILLS_OF_A_RUN: usize = 20;

/// Command lines, and what those that go on add.
fn kinds() -> [(String, &'static str); 5] {
    let restarts = format!(
        "train {TINY} {OFTEN} --sequences 200 --set training.restart.kind=unless --set training.restart.times=2"
    );
    [
        (format!("train {TINY} {OFTEN} --engine fused --sequences 300"), ""),
        (format!("train {TINY} {OFTEN} --engine composed --sequences 40"), ""),
        (
            format!(
                "train diverging.json --threads 1 {OFTEN} --set training.checkpoint_every=15 --on-nonfinite rollback"
            ),
            "",
        ),
        (restarts.clone(), ""),
        (format!("{restarts} --jobs 2"), "--jobs 2"),
    ]
}

/// Numbers below `limit`, the same ones every time (splitmix64).
fn below(state: &mut u64, limit: u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) % limit
}

/// Every file with the name of a checkpoint is a whole one.
fn assert_checkpoints_are_whole(run: &Path) {
    for entry in fs::read_dir(run.join("checkpoints")).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            Checkpoint::load(&path).unwrap_or_else(|error| panic!("{error:#}"));
        }
    }
}

/// Begins a run, kills it at a random moment within `time`, goes on with it, and so on; after `most` kills it is left
/// alone. How often it was killed.
fn train_under_fire(here: &Path, (begin, again): (&str, &str), time: Duration, most: usize, random: &mut u64) -> usize {
    let run = here.join("run");
    let _ = fs::remove_dir_all(&run);
    let mut kills = 0;
    loop {
        let begun = run.join("checkpoints/latest.safetensors").exists();
        let line = if begun { &format!("train --resume run --threads 1 {again}") } else { begin };
        if kills == most {
            succeeds(here, line);
            return kills;
        }
        let mut child = command(here, line).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(below(random, time.as_micros() as u64)));
        child.kill().unwrap();
        let ran = Ran::new(child.wait_with_output().unwrap());
        assert_checkpoints_are_whole(&run);
        match ran.code {
            None => kills += 1,
            Some(code) => {
                assert_eq!(code, 0, "ntm {line}\n{}", ran.stderr);
                return kills;
            }
        }
    }
}

/// The steps of each scalar as TensorBoard shows them.
fn shown(run: &Path) -> Value {
    let text = python([Path::new("tests/read_events.py"), run]);
    let events: Value = serde_json::from_str(&text).unwrap();
    let steps = |values: &Value| values.as_array().unwrap().iter().map(|pair| pair[0].clone()).collect::<Vec<_>>();
    events["scalars"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(tag, values)| (tag.clone(), Value::from(steps(values))))
        .collect()
}

/// At least `kills` kills of each kind of run, each compared with one that was left alone.
fn kill_and_compare(kills: usize) {
    let mut random = 1;
    for (kind, again) in kinds() {
        let directory = diverging();
        let here = directory.path();
        let start = Instant::now();
        succeeds(here, &format!("{kind} --run-dir alone"));
        let time = start.elapsed() / 2; // so that most kills come before the end
        let (run, alone) = (here.join("run"), here.join("alone"));
        let shown_alone = shown(&alone);
        let (mut killed, mut runs) = (0, 0);
        while killed < kills {
            let lines = (&*format!("{kind} --run-dir run"), again);
            killed += train_under_fire(here, lines, time, KILLS_OF_A_RUN.min(kills), &mut random);
            runs += 1;
            for log in ["metrics.jsonl", "evaluations.jsonl"] {
                assert_eq!(timeless(&run.join(log)), timeless(&alone.join(log)), "{log}");
            }
            for checkpoint in ["latest", "best"] {
                let path = format!("checkpoints/{checkpoint}.safetensors");
                assert_same_tensors(&run.join(&path), &alone.join(&path));
            }
            assert_eq!(shown(&run), shown_alone, "event files");
            let left = fs::read_dir(run.join("checkpoints")).unwrap();
            assert!(left.map(|entry| entry.unwrap().path()).all(|path| path.extension().unwrap() == "safetensors"));
        }
        println!("{killed} kills of {runs} runs: {kind}");
    }
}

#[test]
fn runs_that_are_killed_at_random_moments_end_as_if_they_had_been_left_alone() {
    kill_and_compare(3);
}

#[test]
#[ignore = "minutes: cargo test --release --test cli -- --ignored --nocapture two_hundred"]
fn two_hundred_kills_of_every_kind_of_run() {
    kill_and_compare(200);
}
