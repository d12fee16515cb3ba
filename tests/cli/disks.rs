//! Disks that are full, read-only or gone: an error that names the file, whole checkpoints, and a run that goes on once
//! the cause is gone.

use crate::common::{Ran, TINY, assert_same_tensors, command, ntm, refused, succeeds, tiny_run, wait_for_reports};
use ntm::checkpoint::Checkpoint;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A file system in memory, as large as we like.
struct Disk(PathBuf);

impl Disk {
    /// None, with the reason on stderr, where we may not mount one.
    fn mount(at: PathBuf, size: &str) -> Option<Disk> {
        fs::create_dir(&at).unwrap();
        let disk = Disk(at);
        let said = disk.mount_with(&format!("size={size}"), &["-t", "tmpfs", "none"]);
        match said {
            Ok(()) => Some(disk),
            Err(reason) => {
                eprintln!("skipped: no file system of our own can be mounted here: {reason}");
                None
            }
        }
    }

    fn mount_with(&self, options: &str, arguments: &[&str]) -> Result<(), String> {
        let output = Command::new("mount").args(["-o", options]).args(arguments).arg(&self.0).output();
        let output = output.map_err(|error| error.to_string())?;
        output.status.success().then_some(()).ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn remount(&self, options: &str) {
        self.mount_with(&format!("remount,{options}"), &[]).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).stderr(Stdio::null()).status();
    }
}

const RESUME: &str = "train --resume run --threads 1";

fn train(sequences: u64) -> String {
    format!("train {TINY} --sequences {sequences} --run-dir run")
}

/// Every checkpoint of the run loads; the updates of the last one.
fn step_of_whole_checkpoints(here: &Path) -> u64 {
    for entry in fs::read_dir(here.join("run/checkpoints")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().unwrap() == "safetensors" {
            Checkpoint::load(&path).unwrap_or_else(|error| panic!("{error:#}"));
        }
    }
    Checkpoint::load(&here.join("run/checkpoints/latest.safetensors")).unwrap().progress.step
}

/// Goes on for 20 sequences more and compares the end with that of a run without trouble.
fn assert_goes_on(here: &Path) {
    let total = step_of_whole_checkpoints(here) + 20;
    succeeds(here, &format!("{RESUME} --sequences {total}"));
    let apart = tempfile::tempdir().unwrap();
    succeeds(apart.path(), &train(total));
    let latest = "run/checkpoints/latest.safetensors";
    assert_same_tensors(&here.join(latest), &apart.path().join(latest));
    for entry in fs::read_dir(here.join("run/checkpoints")).unwrap() {
        assert_eq!(entry.unwrap().path().extension().unwrap(), "safetensors", "nothing half-written is left");
    }
}

fn assert_ended_with(ran: &Ran, words: &[&str]) {
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let error = ran.stderr.split("error: ").nth(1).unwrap_or_else(|| panic!("no error in\n{}", ran.stderr));
    for word in words {
        assert!(error.contains(word), "no `{word}` in\n{error}");
    }
}

#[test]
fn a_full_disk_ends_a_run_with_whole_checkpoints_and_with_space_it_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(directory.path().join("disk"), "300k") else { return };
    let ran = ntm(&disk.0, &train(1_000_000));
    assert_ended_with(&ran, &["training stopped: cannot write", "No space left", "hint: the last good checkpoint is"]);
    assert!(step_of_whole_checkpoints(&disk.0) > 0);
    assert_ended_with(&ntm(&disk.0, RESUME), &["cannot write", "No space left"]);
    step_of_whole_checkpoints(&disk.0);
    disk.remount("size=64m");
    assert_goes_on(&disk.0);
}

/// Runs a command whose files may not grow beyond so many bytes.
fn limited(here: &Path, line: &str, bytes: u64) -> Ran {
    let mut limited = command(here, line);
    // SAFETY: both may be called between fork and exec. The signal would end the process before it could say why.
    unsafe {
        limited.pre_exec(move || {
            let most = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            if libc::setrlimit(libc::RLIMIT_FSIZE, &most) == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
    }
    Ran::new(limited.output().unwrap())
}

#[test]
fn a_file_that_may_not_grow_ends_a_run_as_a_full_disk_does() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let ran = limited(here, &train(1_000_000), 100_000);
    assert_ended_with(&ran, &["training stopped: cannot write", "File too large", "hint: the last good checkpoint is"]);
    assert_goes_on(here);
}

#[test]
fn an_export_that_cannot_be_written_leaves_the_file_that_was_there() {
    let directory = tiny_run();
    let here = directory.path();
    fs::write(here.join("out"), "precious").unwrap();
    for format in ["safetensors", "npz", "torchscript", "onnx"] {
        let line =
            format!("export --checkpoint run/checkpoints/latest.safetensors --format {format} --output out --force");
        let ran = limited(here, &line, 1000);
        assert_ended_with(&ran, &["cannot write `out`: File too large"]);
        assert!(!ran.stderr.contains("ZipWriter"), "{}", ran.stderr);
        assert_eq!(fs::read_to_string(here.join("out")).unwrap(), "precious", "{format}");
        assert_eq!(fs::read_dir(here).unwrap().count(), 2, "{format}: run and out");
    }
}

#[test]
fn a_read_only_disk_is_named_and_once_it_can_be_written_the_run_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(directory.path().join("disk"), "16m") else { return };
    succeeds(&disk.0, &train(20));
    disk.remount("ro");
    for line in [format!("{RESUME} --sequences 40"), train(20).replace("--run-dir run", "--run-dir new")] {
        assert_ended_with(&ntm(&disk.0, &line), &["`", "Read-only file system"]);
    }
    succeeds(&disk.0, "eval --checkpoint run/checkpoints/latest.safetensors --sequences 2 --threads 1");
    disk.remount("rw");
    assert_goes_on(&disk.0);
}

#[test]
fn a_run_directory_that_vanishes_ends_the_run_and_where_it_reappears_it_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let child = command(here, &train(1_000_000)).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_reports(&here.join("run"), 5);
    fs::rename(here.join("run"), here.join("away")).unwrap();
    let ran = Ran::new(child.wait_with_output().unwrap());
    assert_ended_with(&ran, &["training stopped: cannot write `run/checkpoints/", "No such file or directory"]);
    assert!(refused(here, RESUME, 1).contains("`run` holds no run"));
    fs::rename(here.join("away"), here.join("run")).unwrap();
    assert_goes_on(here);
}

#[test]
fn a_directory_in_place_of_a_file_is_named_and_once_it_is_gone_the_run_goes_on() {
    for (file, expected) in [
        ("metrics.jsonl", "`run/metrics.jsonl`"),
        ("evaluations.jsonl", "`run/evaluations.jsonl`"),
        ("recipe.json", "`run/recipe.json`"),
        ("lock", "cannot lock `run/lock`"),
        ("checkpoints/best.safetensors", "cannot write `run/checkpoints/best.safetensors`"),
        ("checkpoints/latest.safetensors", "cannot read checkpoint `run/checkpoints/latest.safetensors`"),
    ] {
        let directory = tiny_run();
        let (here, path) = (directory.path(), directory.path().join("run").join(file));
        let kept = here.join("kept");
        fs::rename(&path, &kept).unwrap();
        fs::create_dir(&path).unwrap();
        assert_ended_with(&ntm(here, &format!("{RESUME} --sequences 40")), &[expected, "Is a directory"]);
        fs::remove_dir(&path).unwrap();
        fs::rename(&kept, &path).unwrap();
        assert_goes_on(here);
    }
}

#[test]
fn a_directory_that_we_may_not_write_is_named_and_once_we_may_the_run_goes_on() {
    let directory = tiny_run();
    let here = directory.path();
    let set = |path: &Path, mode: u32| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let as_nobody = |line: &str| {
        let mut command = command(here, line);
        // SAFETY: asks for a number and nothing else.
        if unsafe { libc::geteuid() } == 0 {
            command.uid(65534); // permissions do not hold root back
        }
        command.output()
    };
    set(here, 0o755);
    match as_nobody("--version") {
        Ok(output) if output.status.success() => {}
        other => return eprintln!("skipped: root cannot run the program as another user here: {other:?}"),
    }
    for path in ["run", "run/checkpoints"] {
        set(&here.join(path), 0o555);
    }
    set(&here.join("run/lock"), 0o444);
    for (line, expected) in [
        (format!("{RESUME} --sequences 40"), "cannot lock `run/lock`"),
        (train(20).replace("--run-dir run", "--run-dir run/new"), "cannot make run directory `run/new`"),
        (
            "export --checkpoint run/checkpoints/latest.safetensors --format npz --output run/out.npz".into(),
            "`run/out.npz`",
        ),
    ] {
        assert_ended_with(&Ran::new(as_nobody(&line).unwrap()), &[expected, "Permission denied"]);
    }
    set(&here.join("run/checkpoints/latest.safetensors"), 0);
    let ran = Ran::new(as_nobody("info --checkpoint run/checkpoints/latest.safetensors").unwrap());
    assert_ended_with(&ran, &["cannot read checkpoint", "Permission denied"]);
    for (path, mode) in
        [("run", 0o755), ("run/checkpoints", 0o755), ("run/lock", 0o644), ("run/checkpoints/latest.safetensors", 0o644)]
    {
        set(&here.join(path), mode);
    }
    assert_goes_on(here);
}
