//! What the tests share: run the binary, train something tiny, read what it wrote.
#![allow(dead_code)] // every test binary uses its own part of this

use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Flags of a training run that takes a fraction of a second; reports, evaluations and checkpoints come often. The rate
/// is constant, so that a run that is made longer goes on as one that was as long from the start.
pub const TINY: &str = "--threads 1 --set training.schedule.kind=constant --set task.width=3 --set task.max_length=3 \
    --set model.memory.rows=8 --set model.memory.width=4 --set model.controller.hidden=8 \
    --set training.report_every=5 --set training.eval_every=10 --set training.checkpoint_every=10 \
    --set evaluation.lengths=[2,4] --set evaluation.sequences=4";

/// How a command ended and what it said.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Whatever a command is given, it must not end in a panic or a C++ stack trace.
    pub fn new(output: Output) -> Ran {
        let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
        let ran = Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) };
        for crash in ["panicked", "C++", "RUST_BACKTRACE", "stack backtrace"] {
            assert!(!ran.stderr.contains(crash), "{}", ran.stderr);
        }
        ran
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in stdout:\n{}", self.stdout))
    }
}

/// The binary, to be run in `directory`, with the words of `line` as its arguments.
pub fn command(directory: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ntm"));
    command.args(line.split_whitespace()).current_dir(directory);
    command.env("CUDA_VISIBLE_DEVICES", ""); // only the CPU promises bit for bit
    // SAFETY: `signal` may be called between fork and exec. Tests that run in the background inherit signals that are
    // ignored, which the program respects.
    unsafe {
        command.pre_exec(|| {
            for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
                libc::signal(signal, libc::SIG_DFL);
            }
            Ok(())
        });
    }
    command
}

pub fn ntm(directory: &Path, line: &str) -> Ran {
    Ran::new(command(directory, line).output().expect("the binary starts"))
}

/// Runs a command that must succeed.
pub fn succeeds(directory: &Path, line: &str) -> Ran {
    let ran = ntm(directory, line);
    assert_eq!(ran.code, Some(0), "ntm {line}\n{}", ran.stderr);
    ran
}

/// Runs a command that must be refused, with nothing on stdout; returns the message.
pub fn refused(directory: &Path, line: &str, code: i32) -> String {
    let ran = ntm(directory, line);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(code), ""), "ntm {line}\n{}", ran.stderr);
    let start = ran.stderr.find("error: ").unwrap_or_else(|| panic!("no `error: ` in\n{}", ran.stderr));
    ran.stderr[start..].to_string()
}

/// A directory with a finished tiny run of 20 sequences in `run/`.
pub fn tiny_run() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    succeeds(directory.path(), &format!("train {TINY} --sequences 20 --run-dir run"));
    directory
}

/// What a JSON file holds.
pub fn json_of(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// The progress in the last checkpoint of a run.
pub fn progress(directory: &Path, run: &str) -> Value {
    let line = format!("info --checkpoint {run}/checkpoints/latest.safetensors --json");
    succeeds(directory, &line).json()["progress"].clone()
}

/// The objects of a .jsonl file.
pub fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Starts a command whose words are kept.
pub fn start(directory: &Path, line: &str) -> Child {
    command(directory, line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

pub fn send(child: &Child, signal: i32) {
    // SAFETY: sends a signal and nothing else; the child's id is its own until it has been waited for.
    unsafe { libc::kill(child.id() as i32, signal) };
}

/// Whether the system has stopped a process, all of its threads, within a second.
pub fn stops(child: &Child) -> bool {
    let threads = format!("/proc/{}/task", child.id());
    let is_stopped = |stat: &Path| fs::read_to_string(stat).is_ok_and(|text| text.contains(") T "));
    let stopped = || fs::read_dir(&threads).unwrap().all(|thread| is_stopped(&thread.unwrap().path().join("stat")));
    let deadline = Instant::now() + Duration::from_secs(1);
    while !stopped() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    stopped()
}

/// Waits until a run that is going on has written so many reports, at most a minute.
pub fn wait_for_reports(run: &Path, count: usize) {
    let metrics = run.join("metrics.jsonl");
    let reports = || fs::read_to_string(&metrics).map_or(0, |text| text.lines().count());
    let deadline = Instant::now() + Duration::from_secs(60);
    while reports() < count {
        assert!(Instant::now() < deadline, "{} of {count} reports in a minute", reports());
        thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until a file is there, at most a minute.
pub fn wait_for_file(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !path.exists() {
        assert!(Instant::now() < deadline, "no {} in a minute", path.display());
        thread::sleep(Duration::from_millis(2));
    }
}

/// The step of each line of a log.
pub fn steps(log: &Path) -> Vec<u64> {
    lines(log).iter().map(|line| line["step"].as_u64().unwrap()).collect()
}

/// The lines of a log without what depends on the clock.
pub fn timeless(log: &Path) -> Vec<Value> {
    let mut lines = lines(log);
    for line in lines.iter_mut().filter_map(Value::as_object_mut) {
        line.remove("seconds");
        line.remove("sequences_per_second");
    }
    lines
}

/// Shape and bytes of every tensor of a safetensors file.
pub fn tensors(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    let data = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = safetensors::SafeTensors::deserialize(&data).unwrap();
    let tensors = file.tensors().into_iter();
    tensors.map(|(name, tensor)| (name, (tensor.shape().to_vec(), tensor.data().to_vec()))).collect()
}

/// Asserts that two safetensors files hold the same tensors, bit for bit.
pub fn assert_same_tensors(left: &Path, right: &Path) {
    let (left, right) = (tensors(left), tensors(right));
    assert!(left.keys().eq(right.keys()), "{:?} and {:?}", left.keys(), right.keys());
    let different: Vec<&String> = left.keys().filter(|name| left[*name] != right[*name]).collect();
    assert!(different.is_empty(), "these tensors differ: {different:?}");
}

/// Runs the Python that the tests read our files with, in the repository; returns its stdout.
pub fn python<Argument: AsRef<OsStr>>(arguments: impl IntoIterator<Item = Argument>) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".venv-test/bin/python");
    assert!(
        python.exists(),
        "no Python with NumPy, safetensors, TensorBoard and onnxruntime in .venv-test: run `make test`"
    );
    let output = Command::new(python).args(arguments).current_dir(root).output().expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("output is UTF-8")
}
