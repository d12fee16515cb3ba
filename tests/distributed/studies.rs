//! Seed studies dealt to ranks.

use crate::common::{
    Ran, TINY, assert_same_tensors, json_of, lines, send, stops, succeeds, wait_for_file, wait_for_reports,
};
use crate::{ended, start, together};
use serde_json::Value;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

fn study(flags: &str, run: &str) -> String {
    format!("train {TINY} --seeds 1..5 --jobs 1 --peer-timeout 2 --run-dir {run} {flags}")
}

/// The outcomes without what depends on the clock.
fn outcomes(study: &Path) -> Vec<Value> {
    let summary = json_of(&study.join("summary.json"));
    let mut outcomes = summary["outcomes"].as_array().unwrap().clone();
    outcomes.iter_mut().for_each(|outcome| drop(outcome.as_object_mut().unwrap().remove("seconds")));
    outcomes
}

/// Two ranks of a longer study in `run/`, of which both have begun.
fn two_ranks_at_work(here: &Path, sequences: u64) -> Vec<Child> {
    let rarely = "--set training.eval_every=0 --set training.checkpoint_every=50";
    let line = study(&format!("--sequences {sequences} {rarely}"), "run");
    let all = start(here, &vec![line; 2]);
    wait_for_file(&here.join("run/seed-2/checkpoints/latest.safetensors"));
    all
}

#[test]
fn seeds_are_dealt_to_the_ranks_and_the_summary_is_that_of_one_process() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let alone = succeeds(here, &study("--sequences 40", "alone"));
    let all = together(here, 2, &study("--sequences 40", "dealt"));
    assert_eq!(outcomes(&here.join("alone")), outcomes(&here.join("dealt")));
    let rows = |text: &str| text.lines().count();
    assert_eq!(rows(&all[0].stdout), rows(&alone.stdout), "{}", all[0].stdout);
    assert_eq!(all[1].stdout, "");
    assert!(all[1].stderr.starts_with("rank 1, seed 2: not solved in 40 sequences"), "{}", all[1].stderr);
    for seed in 1..=5 {
        let latest = format!("seed-{seed}/checkpoints/latest.safetensors");
        assert_same_tensors(&here.join("alone").join(&latest), &here.join("dealt").join(&latest));
    }
}

#[test]
fn when_a_rank_of_a_study_is_lost_the_others_finish_and_its_seeds_go_on_later() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let mut all = two_ranks_at_work(here, 4000);
    all[1].kill().unwrap();
    let led = ended(all).remove(0);
    println!("{}", led.stderr);
    assert_eq!(led.code, Some(1));
    assert!(led.stderr.contains("rank 1 has given no sign of life for 2 s"), "{}", led.stderr);
    assert!(led.stderr.contains("error: rank 0: 2 of 5 seeds failed\nhint: once"), "{}", led.stderr);
    let errors: Vec<bool> = outcomes(&here.join("run")).iter().map(|outcome| outcome["error"].is_string()).collect();
    assert_eq!(errors, [false, true, false, true, false]);
    together(here, 3, "train --resume run --jobs 1 --threads 1");
    assert!(outcomes(&here.join("run")).iter().all(|outcome| outcome["sequences"] == 4000));
    let steps = |seed: u64| lines(&here.join(format!("run/seed-{seed}/metrics.jsonl"))).len();
    assert!((1..=5).all(|seed| steps(seed) == 800), "every report once");
}

#[test]
fn a_study_that_outlives_the_rank_that_leads_still_trains_its_seeds() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let mut all = two_ranks_at_work(here, 4000);
    all[0].kill().unwrap();
    let other = ended(all).remove(1);
    println!("{}", other.stderr);
    assert_eq!(other.code, Some(1));
    assert!(other.stderr.contains("error: rank 1: rank 0 has no summary of this rank's seeds"), "{}", other.stderr);
    assert!([2, 4].iter().all(|seed| lines(&here.join(format!("run/seed-{seed}/metrics.jsonl"))).len() == 800));
}

#[test]
fn a_rank_without_its_leader_ends_when_its_seeds_are_trained_or_it_is_told_to_stop() {
    for asked in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        let mut all = two_ranks_at_work(here, if asked { 1_000_000_000 } else { 4000 });
        send(&all[0], libc::SIGSTOP); // as a machine that is frozen, or cut off: its connections stay open
        assert!(stops(&all[0]));
        if asked {
            send(&all[1], libc::SIGTERM);
        } else {
            wait_for_reports(&here.join("run/seed-4"), 800);
        }
        let since = Instant::now();
        let other = Ran::new(all.remove(1).wait_with_output().unwrap());
        println!("asked: {asked}, ended after {:.1} s\n{}", since.elapsed().as_secs_f64(), other.stderr);
        all[0].kill().unwrap();
        all[0].wait().unwrap();
        assert_eq!(other.code, Some(1));
        assert!(other.stderr.contains("error: rank 1: rank 0 has no summary of this rank's seeds"), "{}", other.stderr);
        assert!(other.stderr.contains("lost touch with the other ranks: no answer within 2 s"), "{}", other.stderr);
        assert!(since.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn a_study_of_which_one_rank_is_asked_to_stop_stops_everywhere_and_goes_on() {
    for asked in [0, 1] {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        // so many that no rank has trained its last seed before it hears of the other's signal
        let all = two_ranks_at_work(here, 20_000);
        send(&all[asked], libc::SIGTERM);
        let all = ended(all);
        let codes: Vec<_> = all.iter().map(|ran| ran.code).collect();
        assert_eq!(codes, [Some(128 + libc::SIGTERM); 2], "{}", all[0].stderr);
        assert!(all[0].stderr.contains("stopped and saved; go on with: ntm train --resume run"), "{}", all[0].stderr);
        assert!(!here.join("run/summary.json").exists());
        together(here, 2, "train --resume run --jobs 1 --threads 1");
        assert!(outcomes(&here.join("run")).iter().all(|outcome| outcome["sequences"] == 20_000));
    }
}
