//! What goes wrong among several ranks: all end within the time-out, each with a message that says what, and the run
//! goes on.

use crate::common::{assert_same_tensors, command, steps, succeeds, wait_for_reports};
use crate::{as_rank, assert_failed, ended, free_port, start, together, train};
use ntm::checkpoint::Checkpoint;
use std::fs;
use std::time::{Duration, Instant};

#[test]
fn a_rank_that_never_comes_is_named_within_the_time_out() {
    let directory = tempfile::tempdir().unwrap();
    let line = train("--sequences 60 --peer-timeout 2", "run");
    let (port, start) = (free_port(), Instant::now());
    let two = [0, 2].map(|rank| as_rank(command(directory.path(), &line), rank, 3, port).spawn().unwrap());
    let all = two.map(|rank| rank.wait_with_output().unwrap().stderr);
    for said in all.map(|said| String::from_utf8(said).unwrap()) {
        println!("{said}");
        assert!(said.contains("2 of 3 ranks came within 2 s, missing: 1\nhint: "), "{said}");
    }
    assert!(start.elapsed() < Duration::from_secs(20));
    assert!(!directory.path().join("run").exists(), "nothing begins before all are there");
}

#[test]
fn without_rank_0_the_others_say_where_nobody_answers() {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let line = train("--sequences 60 --peer-timeout 2", "run");
    let output = as_rank(command(directory.path(), &line), 1, 2, port).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    println!("{said}");
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains(&format!("error: rank 1: nobody answers at 127.0.0.1:{port} (MASTER_ADDR")), "{said}");
    assert!(!said.contains("Exception") && !said.contains("frame #"), "{said}");
}

#[test]
fn a_port_in_use_is_an_error_of_rank_0() {
    let directory = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let line = train("--sequences 60 --peer-timeout 2", "run");
    let output = as_rank(command(directory.path(), &line), 0, 2, port).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    println!("{said}");
    assert!(said.contains(&format!("error: rank 0: cannot serve the ranks at 127.0.0.1:{port}")), "{said}");
}

#[test]
fn a_killed_rank_ends_the_others_and_the_run_goes_on_from_a_whole_checkpoint() {
    for killed in [0, 1, 2] {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        // a rank whose peers went while it sent to them may wait for the time-out
        let mut all = start(here, &vec![train("--sequences 1000000000 --peer-timeout 5", "run"); 3]);
        wait_for_reports(&here.join("run"), 3);
        all[killed].kill().unwrap();
        let (since, victim) = (Instant::now(), all.remove(killed));
        for (ran, rank) in ended(all).iter().zip((0..3).filter(|rank| *rank != killed)) {
            println!("rank {rank}, exit code {:?}:\n{}", ran.code.unwrap(), ran.stderr);
            assert_eq!(ran.code, Some(1), "{}", ran.stderr);
            let error = format!("error: rank {rank}: training stopped: lost touch with the other ranks: ");
            assert!(ran.stderr.contains(&error), "{}", ran.stderr);
            let hint =
                if rank == 0 { "then the same with `ntm train --resume run`" } else { "rank 0 has the checkpoint" };
            assert!(ran.stderr.contains(hint), "{}", ran.stderr);
        }
        assert!(since.elapsed() < Duration::from_secs(20));
        victim.wait_with_output().unwrap();
        let latest = here.join("run/checkpoints/latest.safetensors");
        let seen = Checkpoint::load(&latest).unwrap().progress.sequences;
        let total = seen + 60;
        together(here, 3, &format!("train --resume run --threads 1 --sequences {total}"));
        together(here, 3, &train(&format!("--sequences {total}"), "uninterrupted"));
        assert_same_tensors(&latest, &here.join("uninterrupted/checkpoints/latest.safetensors"));
    }
}

#[test]
fn ranks_with_other_recipes_or_seeds_or_flags_are_named_with_the_field() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let plain = train("--sequences 60", "run");
    for (flag, field) in [
        ("--seed 7", "`recipe.training.seed`: 1 "),
        ("--set training.clip.at=0.5", "`recipe.training.clip.at`: 0.3 "),
        ("--on-nonfinite rollback", "`rollback`: null "),
        ("--engine composed", "`engine`: \"fused\" "),
        ("--jobs 2", "`jobs`: null "),
    ] {
        let all = ended(start(here, &[plain.clone(), format!("{plain} {flag}")]));
        let ours = format!("the ranks differ in {field}here, ");
        assert_failed(&all, &[&ours, "the ranks differ in "]);
        assert!(!here.join("run").exists());
    }
}

#[test]
fn ranks_that_begin_and_ranks_that_go_on_do_not_wait_for_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    succeeds(here, &train("--sequences 60", "run"));
    let go_on = "train --resume run --sequences 120 --peer-timeout 20".to_string();
    let begin = train("--sequences 120", "other");
    for other in [begin.clone(), format!("{begin} --seeds 1..3")] {
        let since = Instant::now();
        let all = ended(start(here, &[go_on.clone(), other]));
        assert_failed(
            &all,
            &["the ranks differ in `resume`: true here, false on rank 1", "the ranks differ in `resume`"],
        );
        assert!(since.elapsed() < Duration::from_secs(15));
    }
    let all = ended(start(here, &[begin.clone(), format!("{begin} --seeds 1..3")]));
    assert_failed(
        &all,
        &["differ in `seeds`: null here, [1,2,3] on rank 1", "differ in `seeds`: [1,2,3] here, null on rank 0"],
    );
}

#[test]
fn what_fails_on_one_rank_is_said_by_all() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let plain = train("--sequences 60", "run");
    // a recipe that is not there
    let all = ended(start(here, &[plain.clone(), "train no-such.json --peer-timeout 20".to_string(), plain.clone()]));
    assert_failed(&all, &["rank 1 failed: ", "no-such.json", "rank 1 failed: "]);
    // a directory that holds a run already
    succeeds(here, &plain);
    let all = ended(start(here, &[plain.clone(), plain]));
    assert_failed(&all, &["`run` holds a run already", "rank 0 failed: `run` holds a run already"]);
}

#[test]
fn an_interface_that_a_rank_does_not_have_is_named_by_all_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let (line, port, since) = (train("--sequences 60", "run"), free_port(), Instant::now());
    let rank = |rank| {
        let mut command = as_rank(command(directory.path(), &line), rank, 3, port);
        if rank == 1 { command.env("GLOO_SOCKET_IFNAME", "nope0") } else { &mut command }.spawn().unwrap()
    };
    let all = ended((0..3).map(rank).collect());
    let named = "no network for Gloo at GLOO_SOCKET_IFNAME, which is `nope0`: ";
    let elsewhere = format!("rank 1 failed: {named}");
    assert_failed(&all, &[&elsewhere, named, &elsewhere]);
    assert!(
        all.iter().all(|ran| ran.stderr.contains("\nhint: `ip -brief address`") && !ran.stderr.contains("enforce"))
    );
    assert!(since.elapsed() < Duration::from_secs(15), "the time-out is 20 s");
}

#[test]
fn a_batch_smaller_than_the_ranks_is_refused_with_the_cure() {
    let directory = tempfile::tempdir().unwrap();
    let line = train("--sequences 60", "run").replace("training.batch_size=6", "training.batch_size=2");
    let all = ended(start(directory.path(), &vec![line; 3]));
    assert_failed(&all, &["a batch of 2 cannot be shared among 3 ranks\nhint: `--set training.batch_size=N`"; 3]);
}

#[test]
fn a_checkpoint_that_cannot_be_written_ends_all_and_the_last_one_stays() {
    for evaluations in ["0", "10"] {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        let flags = format!("--sequences 1000000000 --set training.eval_every={evaluations}");
        let all = start(here, &vec![train(&flags, "run"); 2]);
        wait_for_reports(&here.join("run"), 3);
        let checkpoints = here.join("run/checkpoints");
        fs::rename(&checkpoints, here.join("run/moved")).unwrap();
        let written = "cannot write `run/checkpoints/"; // the best or the latest
        assert_failed(&ended(all), &[written, &format!("rank 0 failed: {written}")]);
        Checkpoint::load(&here.join("run/moved/latest.safetensors")).unwrap();
    }
}

#[test]
fn ranks_that_diverge_go_back_together() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    // plain gradient descent on squared errors, as in tests/cli/nonfinite.rs, on batches of two
    let line =
        |i: usize| format!("{{\"input\": [[{}, 1]], \"target\": [[{}]]}}\n", i % 2, if i == 20 { 90 } else { i % 3 });
    fs::write(here.join("data.jsonl"), (0..50).map(line).collect::<String>()).unwrap();
    let recipe = r#"{
        "task": {"kind": "sequences", "train": "data.jsonl", "eval": "data.jsonl", "loss": "squared"},
        "model": {"memory": {"rows": 8, "width": 4}, "controller": {"hidden": 8}},
        "training": {"sequences": 120, "batch_size": 2, "report_every": 1, "eval_every": 4, "checkpoint_every": 15,
            "clip": {"kind": "none"}, "optimizer": {"kind": "rmsprop", "learning_rate": 0.02, "decay": 0}},
        "evaluation": {"sequences": 5}}"#;
    fs::write(here.join("diverging.json"), recipe).unwrap();
    let all = together(here, 2, "train diverging.json --threads 1 --run-dir run --on-nonfinite rollback");
    assert!(all[0].stderr.contains("with half the learning rate, rollback 1 of "), "{}", all[0].stderr);
    assert_eq!(steps(&here.join("run/metrics.jsonl")), (1..=60).collect::<Vec<_>>());
}
