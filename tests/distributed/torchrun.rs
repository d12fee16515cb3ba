//! Under torchrun itself, that of Python's torch in the folder of libtorch.

use crate::common::{lines, steps, wait_for_reports};
use crate::{free_port, train};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// torchrun of a command line in a directory.
fn torchrun(here: &Path, flags: &str, line: &str) -> Child {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = "import light_torch; from torch.distributed.run import main; main()";
    let mut command = Command::new(root.join(".venv-test/bin/python"));
    command.args(["-c", program, "--no-python", "--master-port", &free_port().to_string()]);
    command.args(flags.split_whitespace()).arg(env!("CARGO_BIN_EXE_ntm")).args(line.split_whitespace());
    command.env("PYTHONPATH", root.join("tests")).env("CUDA_VISIBLE_DEVICES", "").current_dir(here);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The processes of `ntm` that a process has started.
fn started_by(parent: u32) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    children.split_whitespace().map(|child| child.parse().unwrap()).collect()
}

#[test]
fn torchrun_starts_the_ranks() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let ran = torchrun(here, "--nproc-per-node 3", &train("--sequences 60", "run")).wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    assert!(said.contains("ranks: 3") && said.contains("trained 60 sequences"), "{said}");
    assert_eq!(lines(&here.join("run/metrics.jsonl")).len(), 2);
}

#[test]
fn torchrun_starts_a_job_again_whose_rank_was_killed_and_it_goes_on_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let line = train("--sequences 30000 --set training.eval_every=0", "run");
    let job = torchrun(here, "--nproc-per-node 2 --max-restarts 1", &line);
    wait_for_reports(&here.join("run"), 5);
    let victim = *started_by(job.id()).last().expect("torchrun has started the ranks");
    // SAFETY: sends a signal and nothing else, to a process that torchrun has not waited for yet.
    unsafe { libc::kill(victim, libc::SIGKILL) };
    let ran = job.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    println!("{said}");
    assert!(ran.status.success(), "{said}");
    assert!(said.contains("going on with run at "), "{said}");
    assert_eq!(
        steps(&here.join("run/metrics.jsonl")),
        (1..=1000).map(|report| 5 * report).collect::<Vec<_>>(),
        "every report once"
    );
}

#[test]
fn a_restart_does_not_go_on_with_what_another_job_has_left() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let line = train("--sequences 60", "run");
    crate::common::succeeds(here, &line);
    let before = fs::read(here.join("run/metrics.jsonl")).unwrap();
    let longer = train("--sequences 120", "run");
    for line in [line, longer] {
        let ran = torchrun(here, "--nproc-per-node 2 --max-restarts 2", &line).wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(!ran.status.success());
        assert_eq!(
            said.matches("error: rank 0: `run` holds a run already").count(),
            3,
            "an attempt and two more: {said}"
        );
        assert_eq!(fs::read(here.join("run/metrics.jsonl")).unwrap(), before);
    }
}

#[test]
fn torchrun_that_is_asked_to_stop_ends_with_a_run_that_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let line = train("--sequences 1000000000 --set training.eval_every=0", "run");
    // as a scheduler does it: torchrun alone, or torchrun and the ranks together
    for (run, together) in [("run", false), ("both", true)] {
        let job = torchrun(
            here,
            "--nproc-per-node 2 --max-restarts 1",
            &line.replace("run-dir run", &format!("run-dir {run}")),
        );
        wait_for_reports(&here.join(run), 5);
        let ranks = if together { started_by(job.id()) } else { vec![] };
        for process in ranks.into_iter().chain([job.id() as i32]) {
            // SAFETY: sends a signal and nothing else, to a process that has not been waited for yet.
            unsafe { libc::kill(process, libc::SIGTERM) };
        }
        let ran = job.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(!ran.status.success());
        assert_eq!(said.matches("stopped and saved after ").count(), 1, "{said}");
        let latest = here.join(run).join("checkpoints/latest.safetensors");
        let total = ntm::checkpoint::Checkpoint::load(&latest).unwrap().progress.sequences + 60;
        crate::together(here, 2, &format!("train --resume {run} --threads 1 --sequences {total}"));
        let all: Vec<_> = (1..=total / 30).map(|report| 5 * report).collect();
        assert_eq!(steps(&here.join(run).join("metrics.jsonl"))[..all.len()], all, "every report once");
    }
}

#[test]
fn a_restart_does_not_go_on_with_a_run_of_another_recipe() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    crate::common::succeeds(here, &train("--sequences 60", "run"));
    let mut command = crate::common::command(here, &train("--sequences 60 --seed 2", "run"));
    let ran = crate::common::Ran::new(command.env("TORCHELASTIC_RESTART_COUNT", "1").output().unwrap());
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("error: `run` holds a run of another recipe\nhint: "), "{}", ran.stderr);
}
