//! `ntm train --seeds`: many seeds of one recipe, and when a run is solved.

use crate::common::{
    Ran, TINY, assert_same_tensors, json_of, lines, ntm, progress, refused, send, start, succeeds, wait_for_file,
    wait_for_reports,
};
use serde_json::{Value, json};
use std::fs;

#[test]
fn each_seed_of_a_study_trains_as_it_would_alone() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let ran = succeeds(here, &format!("train {TINY} --seeds 3..5 --jobs 2 --sequences 20 --run-dir study"));
    for seed in 3..=5 {
        succeeds(here, &format!("train {TINY} --seed {seed} --sequences 20 --run-dir alone-{seed}"));
        let latest = "checkpoints/latest.safetensors";
        assert_same_tensors(
            &here.join(format!("study/seed-{seed}")).join(latest),
            &here.join(format!("alone-{seed}")).join(latest),
        );
    }
    let rows: Vec<&str> = ran.stdout.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(rows, ["sequences", "seed", "3", "4", "5", "solved:"], "{}", ran.stdout);
    let summary = json_of(&here.join("study/summary.json"));
    assert_eq!((&summary["seeds"], &summary["solved"]), (&json!(3), &json!(0)));
    assert_eq!(summary["outcomes"][2]["seed"], 5);
    assert_eq!(summary["outcomes"][2]["results"][1]["length"], 4, "the last evaluation is in it");
}

#[test]
fn a_study_that_was_stopped_goes_on_to_the_same_end() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let rarely = "--set training.eval_every=1000 --set training.checkpoint_every=1000";
    let line = |run: &str| format!("train {TINY} {rarely} --seeds 1..3 --jobs 1 --sequences 3000 --run-dir {run}");
    let child = start(here, &line("study"));
    wait_for_file(&here.join("study/seed-2/metrics.jsonl"));
    send(&child, libc::SIGTERM);
    let ran = Ran::new(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(143), "{}", ran.stderr);
    assert!(ran.stderr.contains("go on with: ntm train --resume study"), "{}", ran.stderr);
    assert!(!here.join("study/seed-3").exists(), "the third seed had not begun");

    succeeds(here, "train --resume study --threads 1");
    succeeds(here, &line("uninterrupted"));
    for seed in 1..=3 {
        let of = |run: &str| here.join(format!("{run}/seed-{seed}/checkpoints/latest.safetensors"));
        assert_same_tensors(&of("study"), &of("uninterrupted"));
    }
}

#[test]
fn a_resumed_study_keeps_its_engine_and_leaves_finished_seeds_alone() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    succeeds(here, &format!("train {TINY} --seeds 1..2 --engine composed --sequences 10 --run-dir study"));
    let files = || fs::read_dir(here.join("study/seed-1")).unwrap().count();
    let before = files();
    succeeds(here, "train --resume study");
    assert_eq!(files(), before, "nothing was left to do");
    succeeds(here, "train --resume study --sequences 20 --threads 1");
    assert_eq!(json_of(&here.join("study/study.json"))["recipe"]["training"]["sequences"], 20);
    for seed in 1..=2 {
        succeeds(here, &format!("train {TINY} --engine composed --seed {seed} --sequences 20 --run-dir alone-{seed}"));
        let of = |run: String| here.join(run).join("checkpoints/latest.safetensors");
        assert_same_tensors(&of(format!("study/seed-{seed}")), &of(format!("alone-{seed}")));
    }
}

#[test]
fn seeds_that_begin_after_a_stop_have_the_engine_that_began_their_study() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let long = "--seeds 1..2 --jobs 1 --engine composed --sequences 1000000000 --run-dir study";
    let child = start(here, &format!("train {TINY} {long}"));
    wait_for_reports(&here.join("study/seed-1"), 1);
    send(&child, libc::SIGTERM);
    assert_eq!(Ran::new(child.wait_with_output().unwrap()).code, Some(143));
    let study = json_of(&here.join("study/study.json"));
    assert_eq!((&study["engine"], &study["device"]), (&json!("composed"), &json!("cpu")));
    let seen = progress(here, "study/seed-1")["sequences"].as_u64().unwrap();
    succeeds(here, &format!("train --resume study --jobs 1 --sequences {}", seen + 5));
    for seed in [1, 2] {
        assert_eq!(progress(here, &format!("study/seed-{seed}"))["engine"], "composed");
    }
    succeeds(here, &format!("train --resume study --jobs 1 --engine fused --sequences {}", seen + 10));
    assert_eq!(progress(here, "study/seed-2")["engine"], "fused");
    assert_eq!(json_of(&here.join("study/study.json"))["engine"], "fused");
}

#[test]
fn a_run_of_another_recipe_in_the_place_of_a_seed_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    succeeds(here, &format!("train {TINY} --set model.memory.width=3 --seed 1 --sequences 10 --run-dir study/seed-1"));
    let before = fs::read(here.join("study/seed-1/checkpoints/latest.safetensors")).unwrap();
    let ran = ntm(here, &format!("train {TINY} --seeds 1..2 --sequences 20 --run-dir study"));
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("`study/seed-1` holds a run of another recipe than its study's"), "{}", ran.stderr);
    assert_eq!(fs::read(here.join("study/seed-1/checkpoints/latest.safetensors")).unwrap(), before);
    assert_eq!(progress(here, "study/seed-2")["sequences"], 20);
    let said = succeeds(here, "eval --checkpoint study --sequences 1").stderr;
    assert!(said.contains("seed 1 has a run of another recipe in its place: left out"), "{said}");
    assert!(!said.contains("not come to the end"), "{said}");
    fs::rename(here.join("study/seed-1"), here.join("elsewhere")).unwrap();
    succeeds(here, "train --resume study");
    assert_eq!(progress(here, "study/seed-1")["sequences"], 20);
}

#[test]
fn bytes_that_a_crash_has_left_in_a_log_do_not_hide_the_results_of_a_seed() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    succeeds(here, &format!("train {TINY} --seeds 1..2 --sequences 20 --run-dir study"));
    let results = || json_of(&here.join("study/summary.json"))["outcomes"][0]["results"].clone();
    let before = results();
    assert!(before[0].is_object(), "{before}");
    let log = here.join("study/seed-1/evaluations.jsonl");
    let whole = fs::read(&log).unwrap();
    fs::write(&log, [&whole[..], b"\xff{"].concat()).unwrap();
    succeeds(here, "train --resume study");
    assert_eq!(results(), before);
}

#[test]
fn a_seed_that_was_told_to_roll_back_still_does_in_its_study() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let kind = |of: &str| json_of(&here.join(of).join("recipe.json"))["training"]["on_nonfinite"]["kind"].clone();
    succeeds(here, &format!("train {TINY} --seeds 1..2 --sequences 10 --run-dir study"));
    succeeds(here, "train --resume study/seed-1 --sequences 15 --on-nonfinite rollback");
    succeeds(here, "train --resume study --sequences 20");
    assert_eq!([kind("study/seed-1"), kind("study/seed-2")], ["rollback", "stop"]);
    succeeds(here, "train --resume study --sequences 30 --on-nonfinite stop");
    assert_eq!([kind("study/seed-1"), kind("study/seed-2")], ["stop", "stop"]);
}

#[test]
fn a_seed_that_was_made_longer_alone_stays_so_and_one_that_waits_follows_its_study() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let stopped = |line: &str, seed: &str| {
        let run = here.join("study").join(seed);
        let reports = fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |text| text.lines().count());
        let child = start(here, line);
        wait_for_reports(&run, reports + 1);
        send(&child, libc::SIGTERM);
        assert_eq!(Ran::new(child.wait_with_output().unwrap()).code, Some(143));
    };
    let total =
        |seed: &str| json_of(&here.join("study").join(seed).join("recipe.json"))["training"]["sequences"].clone();
    stopped(&format!("train {TINY} --seeds 1..2 --jobs 2 --sequences 10000000 --run-dir study"), "seed-1");
    stopped("train --resume study/seed-1 --sequences 30000000", "seed-1");
    stopped("train --resume study --jobs 1", "seed-1");
    assert_eq!(total("seed-1"), 30_000_000);
    stopped("train --resume study --jobs 1 --sequences 20000000", "seed-1");
    assert_eq!([total("seed-1"), total("seed-2")], [20_000_000, 10_000_000]);
    stopped("train --resume study --jobs 2", "seed-2");
    assert_eq!([total("seed-1"), total("seed-2")], [20_000_000, 20_000_000]);
}

#[test]
fn a_study_cannot_get_fewer_sequences_than_a_seed_has_seen() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    succeeds(here, &format!("train {TINY} --seeds 1..2,5 --sequences 20 --run-dir study"));
    let before = fs::read(here.join("study/study.json")).unwrap();
    let message = refused(here, "train --resume study --sequences 15", 1);
    assert!(message.contains("`--sequences 15` is less than the 20 that seed 1 has seen\nhint: "), "{message}");
    assert_eq!(fs::read(here.join("study/study.json")).unwrap(), before);
    for setting in ["training.seed=4", r#"training={"seed":4}"#] {
        let message = refused(here, &format!("train {TINY} --seeds 1..2 --set {setting} --run-dir other"), 1);
        assert!(message.contains("both name seeds"), "{message}");
    }
    for seed in [2, 5] {
        fs::remove_dir_all(here.join(format!("study/seed-{seed}"))).unwrap();
    }
    let said = succeeds(here, "eval --checkpoint study --lengths 2 --threads 1").stderr;
    assert!(said.contains("seeds 2, 5 have no checkpoint yet: left out"), "{said}");
}

#[test]
fn a_study_may_get_more_seeds_and_leaves_those_that_it_has_alone() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    succeeds(here, &format!("train {TINY} --seeds 2,5 --sequences 10 --run-dir study"));
    let before = fs::read(here.join("study/seed-5/checkpoints/latest.safetensors")).unwrap();
    succeeds(here, "train --resume study --seeds 1..3 --threads 1");
    assert_eq!(json_of(&here.join("study/study.json"))["seeds"], json!([1, 2, 3, 5]));
    let outcomes = json_of(&here.join("study/summary.json"))["outcomes"].clone();
    let seeds: Vec<&serde_json::Value> = outcomes.as_array().unwrap().iter().map(|outcome| &outcome["seed"]).collect();
    assert_eq!(seeds, [1, 2, 3, 5]);
    assert_eq!(fs::read(here.join("study/seed-5/checkpoints/latest.safetensors")).unwrap(), before);
    succeeds(here, &format!("train {TINY} --seed 3 --sequences 10 --run-dir alone"));
    let of = |run: &str| here.join(run).join("checkpoints/latest.safetensors");
    assert_same_tensors(&of("study/seed-3"), &of("alone"));
    let message = refused(here, "train --resume alone --seeds 1..3", 1);
    assert!(message.contains("`alone` holds no study\nhint: `--resume` with `--seeds` adds seeds"), "{message}");
}

#[test]
fn a_study_is_measured_seed_by_seed_as_each_alone_and_by_median_and_range() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    succeeds(here, &format!("train {TINY} --seeds 2..4 --sequences 30 --run-dir study"));
    let flags = "--lengths 2,6 --sequences 9 --threads 1";
    let found = succeeds(here, &format!("eval --checkpoint study {flags} --json")).json();
    let mut losses = vec![];
    for (index, seed) in (2..5).enumerate() {
        let alone = succeeds(here, &format!("eval --checkpoint study/seed-{seed} {flags} --json")).json();
        assert_eq!((&found["runs"][index], &alone["training_seed"]), (&alone, &seed.into()));
        losses.push(alone["results"][1]["loss_bits"].as_f64().unwrap());
    }
    losses.sort_by(f64::total_cmp);
    let ran = succeeds(here, &format!("eval --checkpoint study {flags}"));
    let row = ran.stdout.lines().last().unwrap();
    let expected = format!("{:.4} ({:.4} to {:.4})", losses[1], losses[0], losses[2]);
    assert!(row.trim().starts_with("6") && row.contains(&expected), "{row}\n{expected}");
    assert_eq!(ran.stdout.lines().filter(|line| line.trim_start().starts_with(['2', '3', '4', '6'])).count(), 5);
    assert_eq!(ran.stderr.matches("engine on cpu").count(), 1, "{}", ran.stderr);

    let lines = succeeds(here, &format!("eval --checkpoint study {flags} --per-sequence")).stdout;
    let seed = |line| serde_json::from_str::<Value>(line).unwrap()["training_seed"].as_u64().unwrap();
    let seeds: Vec<u64> = lines.lines().map(seed).collect();
    assert_eq!(seeds, [[2; 18], [3; 18], [4; 18]].concat(), "two lengths of nine sequences each");

    assert!(refused(here, "eval --checkpoint study --plot a.png", 2).contains("name the directory of a seed"));
    let message = refused(here, "predict --checkpoint study", 1);
    assert!(message.contains("`study` holds a study of several seeds\nhint: name the directory of one"), "{message}");
    fs::remove_dir_all(here.join("study/seed-3/checkpoints")).unwrap();
    let ran = succeeds(here, &format!("eval --checkpoint study {flags}"));
    assert!(ran.stderr.contains("seed 3 has no checkpoint yet: left out"), "{}", ran.stderr);
    assert!(ran.stdout.contains("of 2 seeds"), "{}", ran.stdout);
}

#[test]
fn a_damaged_field_of_study_json_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    succeeds(here, &format!("train {TINY} --seeds 2 --sequences 5 --run-dir study"));
    let file = here.join("study/study.json");
    let good = json_of(&file);
    for (field, value, named) in [
        ("seeds", json!("2"), "its `seeds`"),
        ("sequences_before", Value::Null, "its `sequences_before`"),
        ("engine", json!("fast"), "its engine and device: unknown variant `fast`"),
        ("device", json!(0), "its engine and device"),
    ] {
        let mut damaged = good.clone();
        damaged[field] = value;
        fs::write(&file, damaged.to_string()).unwrap();
        for line in ["train --resume study", "eval --checkpoint study"] {
            let message = refused(here, line, 1);
            assert!(message.contains("cannot read study `study/study.json`") && message.contains(named), "{message}");
        }
    }
}

#[test]
fn a_study_that_goes_on_has_no_summary_until_it_has_come_to_its_end_again() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let summary = here.join("study/summary.json");
    succeeds(here, &format!("train {TINY} --seeds 1..2 --sequences 10 --run-dir study"));
    assert!(summary.exists());
    let seed = here.join("study/seed-1");
    let reports = lines(&seed.join("metrics.jsonl")).len();
    let child = start(here, "train --resume study --sequences 1000000000 --jobs 1");
    wait_for_reports(&seed, reports + 1);
    send(&child, libc::SIGTERM);
    assert_eq!(Ran::new(child.wait_with_output().unwrap()).code, Some(143));
    assert!(!summary.exists());
}

#[test]
fn a_run_is_solved_at_the_first_evaluation_within_its_threshold_and_may_stop_there() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let set = "--set solved.metric=loss_bits --set solved.at_most=1000 --set solved.stop=true";
    let ran = succeeds(here, &format!("train {TINY} {set} --sequences 50 --run-dir run"));
    assert!(ran.stderr.contains("solved after 10 sequences"), "{}", ran.stderr);
    let progress = progress(here, "run");
    assert_eq!((&progress["sequences"], &progress["solved"]["step"]), (&json!(10), &json!(10)));
    let again = ntm(here, "train --resume run");
    assert!(again.code == Some(0) && again.stderr.contains("finished"), "{}", again.stderr);
    assert_eq!(crate::common::lines(&here.join("run/metrics.jsonl")).last().unwrap()["step"], 10);
    succeeds(here, "train --resume run --sequences 50");
    let more = refused(here, "train --resume run --sequences 90", 1);
    assert!(
        more.contains(
            "the run in `run` is solved, and its recipe stops there\nhint: `ntm train run/recipe.json --from"
        )
    );
}

#[test]
fn wrong_seeds_and_directories_in_use_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    for (seeds, expected) in [
        ("5..1", "no seed lies in this range"),
        ("1,2,1", "a seed appears twice"),
        ("1..x", "`x` is no seed"),
        ("1..99999", "more than 10,000 seeds"),
    ] {
        let message = refused(here, &format!("train {TINY} --seeds {seeds}"), 2);
        assert!(message.contains(expected), "{message}");
    }
    let message = refused(here, &format!("train {TINY} --set solved.metric=squared_error"), 1);
    assert!(message.contains("`solved.metric` is squared_error, copy has bit_errors, loss_bits"), "{message}");
    succeeds(here, &format!("train {TINY} --seeds 1 --sequences 5 --run-dir study"));
    let message = refused(here, &format!("train {TINY} --seeds 1..2 --sequences 5 --run-dir study"), 1);
    assert!(
        message
            .contains("`study` holds a seed study already\nhint: name another directory with --run-dir, or go on with"),
        "{message}"
    );
    let message = refused(here, &format!("train {TINY} --seed 1 --sequences 5 --run-dir study"), 1);
    assert!(message.contains("`study` holds a seed study already"), "{message}");
}

#[test]
fn a_seed_that_has_gone_on_by_itself_is_finished_for_its_study() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    succeeds(here, &format!("train {TINY} --seeds 1..2 --sequences 10 --run-dir study"));
    succeeds(here, "train --resume study/seed-1 --sequences 30 --threads 1");
    let ran = succeeds(here, "train --resume study --threads 1");
    assert!(ran.stderr.contains("of 30") || ran.stderr.contains("in 30 sequences"), "{}", ran.stderr);
    succeeds(here, "train --resume study --sequences 20 --threads 1");
    let outcomes = json_of(&here.join("study/summary.json"))["outcomes"].clone();
    assert_eq!((&outcomes[0]["sequences"], &outcomes[1]["sequences"]), (&30.into(), &20.into()));
}

#[test]
fn a_study_needs_memory_for_as_many_runs_as_train_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let gigabytes = |message: &str| -> f64 {
        let number = message.split("would need about ").nth(1).expect(message).split(' ').next().unwrap();
        number.parse().unwrap()
    };
    let line = "train copy --set model.memory.rows=16777216 --set model.memory.width=65536 --run-dir run";
    let one = gigabytes(&refused(directory.path(), line, 1));
    let message = refused(directory.path(), &format!("{line} --seeds 1..5 --jobs 3"), 1);
    assert!((gigabytes(&message) / one - 3.0).abs() < 1e-5, "{message}");
    assert!(message.contains(", 3 runs at a time)") && message.contains("or `--jobs`"), "{message}");
    assert!(!directory.path().join("run").exists());
}
