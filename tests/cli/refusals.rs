//! What is refused: the message says what, where, and the cure.

use crate::common::{TINY, refused, succeeds, tiny_run};
use std::fs;

/// Each of these must stand in the message, which has at most three lines unless clap adds its usage (exit code 2).
fn assert_message(message: &str, line: &str, code: i32, expected: &[&str]) {
    for words in expected {
        assert!(message.contains(words), "ntm {line}: no `{words}` in\n{message}");
    }
    assert!(code == 2 || message.lines().count() <= 3, "ntm {line}: more than three lines\n{message}");
}

#[test]
fn wrong_command_lines_are_refused_with_what_is_wrong_and_what_is_right() {
    let directory = tiny_run();
    fs::write(directory.path().join("file"), "").unwrap();
    let checkpoint = "--checkpoint run/checkpoints/latest.safetensors";
    let table: &[(&str, i32, &[&str])] = &[
        ("trian", 2, &["unrecognized subcommand 'trian'", "'train'"]),
        ("train copi", 1, &["no recipe `copi`", "did you mean `copy`?"]),
        ("train --set training.batch_siz=4", 1, &["`training.batch_siz`", "did you mean `batch_size`?"]),
        ("train --set training.batch_size", 2, &["'training.batch_size'", "--set", "it has no `=`; for instance"]),
        ("train --set training.batch_size=0", 1, &["`training.batch_size` is 0", "allowed: 1 to"]),
        ("train --sequences 0", 2, &["'0'", "--sequences", "above 0"]),
        ("train --device gpu", 2, &["'gpu'", "--device", "allowed: auto, cpu, cuda"]),
        ("train --device cuda:x", 2, &["'cuda:x'", "cuda:0, cuda:1"]),
        ("train --device cuda", 1, &["no CUDA device", "hint: `--device cpu`"]),
        ("train --device cuda:7 --engine fused", 1, &["no CUDA device", "hint: `--device cpu`"]),
        ("train --engine fast", 2, &["'fast'", "--engine", "auto", "composed"]),
        ("train --threads 0", 2, &["'0'", "--threads", "1..=1024"]),
        ("train --run-dir file", 1, &["`file`", "directory"]),
        ("train --resume nowhere", 1, &["`nowhere` holds no run", "hint: --resume takes"]),
        ("train --resume run --seed 3", 2, &["--resume", "cannot be used with", "--seed"]),
        (
            "train --resume run --set training.batch_size=2",
            2,
            &["cannot be used with", "a run keeps its recipe; `ntm train"],
        ),
        (
            "train --set training.batch_size={",
            1,
            &["with `--set training.batch_size={`: its value is not valid JSON: EOF"],
        ),
        (
            "train --set model.memory.rows=9 --set model.hidden=12",
            1,
            &["in built-in recipe `copy` with `--set model.hidden=12`: unknown field `model.hidden`"],
        ),
        ("train --resume run --sequences 5", 1, &["`--sequences 5`", "20"]),
        ("eval", 2, &["--checkpoint <PATH>"]),
        ("eval --checkpoint nowhere.safetensors", 1, &["cannot read", "`nowhere.safetensors`"]),
        ("eval CHECKPOINT --latest", 1, &["`--latest` takes the last machine of a run"]),
        ("eval CHECKPOINT --lengths 0", 2, &["'0'", "--lengths", "from 1 to 1000000"]),
        ("eval CHECKPOINT --lengths 3,x", 2, &["'x'", "--lengths"]),
        ("eval CHECKPOINT --plot a.svg --curve a.svg", 2, &["`--plot` and `--curve` name the same file `a.svg`"]),
        ("eval CHECKPOINT --items 3", 1, &["`--items` is no axis of copy", "hint: it has --lengths"]),
        ("eval CHECKPOINT --rows 0", 2, &["'0'", "--rows", "1..=1048576"]),
        (
            "info repeat-copy --sample --lengths 1000000 --repeats 1000000",
            1,
            &["length 1000000, repeats 1000000 makes", "steps, allowed: up to 20000000"],
        ),
        (
            "train repeat-copy --set evaluation.lengths=[1000000] --set evaluation.repeats=[1000000]",
            1,
            &["in recipe `repeat-copy`", "steps, allowed: up to 20000000"],
        ),
        (
            "export CHECKPOINT --format npz --force --output run/checkpoints/latest.safetensors",
            1,
            &["`run/checkpoints/latest.safetensors` is the checkpoint itself", "hint: name another file"],
        ),
        ("export CHECKPOINT --format npz --rows 0 --output out", 2, &["'0'", "--rows", "1..=1048576"]),
        ("export CHECKPOINT --format zip --output out", 2, &["'zip'", "--format", "npz"]),
        ("eval CHECKPOINT --plot a.jpg", 2, &["'a.jpg'", "--plot", "name a file that ends in .png or .svg"]),
        ("eval CHECKPOINT --animate a.png", 2, &["'a.png'", "name a file that ends in .gif"]),
        ("plot run --output a.pdf", 2, &["'a.pdf'", "--output", ".png or .svg"]),
        (
            "train --jobs 2",
            2,
            &["`--jobs 2` needs several seeds or starts", "has one start", "hint: name seeds with --seeds"],
        ),
        ("train ngrams --jobs 2 --on-nonfinite rollback", 2, &["`--jobs 2`", "may go back"]),
        ("info copy --lengths 2", 2, &["axes only shape a sample", "hint: add --sample"]),
        ("completions tcsh", 2, &["'tcsh'", "bash"]),
        ("man file", 1, &["cannot write man pages into `file`"]),
        (
            "export CHECKPOINT --format npz --output no/where.npz",
            1,
            &["there is no directory `no`", "hint: `mkdir -p no`"],
        ),
        ("export CHECKPOINT --format onnx --output no/where.onnx", 1, &["there is no directory `no`"]),
        ("export CHECKPOINT --format torchscript --output no/where.pt", 1, &["there is no directory `no`"]),
        ("export CHECKPOINT --format npz --onnx-graph step --output out", 2, &["`--onnx-graph`", "`--format onnx`"]),
        ("export CHECKPOINT --format onnx --onnx-graph all --output out", 2, &["'all'", "sequence", "step", "init"]),
        ("info copi", 1, &["no recipe `copi`", "hint: `ntm info` lists"]),
        ("info copy CHECKPOINT", 2, &["--checkpoint", "cannot be used with"]),
    ];
    for (line, code, expected) in table {
        let line = line.replace("CHECKPOINT", checkpoint);
        assert_message(&refused(directory.path(), &line, *code), &line, *code, expected);
    }
    let mut left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["file", "run"], "a refused command leaves nothing behind");
}

#[test]
fn wrong_recipes_are_refused_with_the_file_the_field_and_what_is_allowed() {
    let directory = tempfile::tempdir().unwrap();
    for (recipe, expected) in [
        ("", "not valid JSON"),
        (r#"{"task": {"kind": "copy"},}"#, "not valid JSON"),
        (r#"["copy"]"#, "a recipe is a JSON object"),
        (r#"{"trainning": {}}"#, "unknown field `trainning`; did you mean `training`?"),
        (r#"{"model": {"memory": {"row": 8}}}"#, "unknown field `model.memory.row`; did you mean `rows`?"),
        (r#"{"task": {"kind": "copying"}}"#, "did you mean `copy`?"),
        (r#"{"model": {"kind": "lstm", "read_heads": 1}}"#, "unknown field `model.read_heads`"),
        (r#"{"model": {"shift_range": 2}}"#, "`model.shift_range` is 2, allowed: odd numbers"),
        (
            r#"{"model": {"shift_range": 1, "init": {"addressing": "tape"}}}"#,
            "`model.init.addressing` is `tape`, which needs a shift to move by: `model.shift_range` of 3",
        ),
        (r#"{"model": {"init": {"weighting": "focused"}}}"#, "`model.init.weighting` is \"focused\", allowed: learned"),
        (r#"{"training": {"sequences": 1e3}}"#, "`training.sequences` is 1000.0, expected a whole number"),
        (r#"{"training": {"optimizer": {"kind": "sgd"}}}"#, "`training.optimizer.kind` is \"sgd\", allowed: rms"),
        (r#"{"training": {"clip": {"kind": "norm", "at": 0}}}"#, "`training.clip.at` is 0, allowed: more than 0"),
        (r#"{"evaluation": {"lengths": []}}"#, "`evaluation.lengths` is empty"),
        (
            r#"{"model": {"memory": {"rows": 16777216, "width": 65536}}}"#,
            "an update of this recipe would need about 1011",
        ),
        (r#"{"task": {"max_length": 1000000}, "training": {"batch_size": 1048576}}"#, " GB of memory, "),
        (r#"{"model": {"memory": {"rows": 18446744073709551615}}}"#, "is 18446744073709551615, allowed: 1 to 16777216"),
        (r#"{"task": {"kind": "repeat-copy", "alike": 1.5}}"#, "`task.alike` is 1.5, allowed: 0 to 1"),
        (r#"{"task": {"kind": "associative-recall", "alike": -1}}"#, "`task.alike` is -1, allowed: 0 to 1"),
        (r#"{"task": {"kind": "priority-sort", "alike": 2}}"#, "`task.alike` is 2, allowed: 0 to 1"),
        (r#"{"model": {"memory": {"rows": 18446744073709551616}}}"#, "expected a whole number"),
        (
            r#"{"task": {"kind": "sequences", "train": "a", "eval": "a", "input_width": 1152921504606846976}}"#,
            "`task.input_width` is 1152921504606846976, allowed: 0 to",
        ),
    ] {
        fs::write(directory.path().join("my.json"), recipe).unwrap();
        let line = "train my.json --run-dir run";
        assert_message(&refused(directory.path(), line, 1), line, 1, &["recipe `my.json`", expected]);
        assert!(!directory.path().join("run").exists(), "{recipe}");
    }
}

/// Files that are no checkpoint: a good one damaged, and others.
fn damaged(good: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let foreign = safetensors::serialize(Vec::<(String, safetensors::tensor::TensorView)>::new(), &None).unwrap();
    let mut misleading = good.to_vec();
    misleading[..8].copy_from_slice(&u64::MAX.to_le_bytes()); // the length of the header
    vec![
        ("empty", vec![]),
        ("cut in the header", good[..100].to_vec()),
        ("cut in the tensors", good[..good.len() - 1].to_vec()),
        ("a header of absurd length", misleading),
        ("text", b"a note about checkpoints, and no checkpoint".to_vec()),
        ("the safetensors of another program", foreign),
    ]
}

#[test]
fn damaged_and_foreign_checkpoints_are_refused_by_every_command_that_reads_one() {
    let directory = tiny_run();
    let latest = directory.path().join("run/checkpoints/latest.safetensors");
    let metrics = fs::read(directory.path().join("run/metrics.jsonl")).unwrap();
    for (what, data) in damaged(&fs::read(&latest).unwrap()) {
        fs::write(&latest, data).unwrap();
        let checkpoint = "--checkpoint run/checkpoints/latest.safetensors";
        for line in [
            format!("eval {checkpoint}"),
            format!("info {checkpoint}"),
            format!("export {checkpoint} --format npz --output out.npz"),
            "train --resume run --sequences 30".to_string(),
        ] {
            let (message, context) = (refused(directory.path(), &line, 1), format!("{line} ({what})"));
            assert_message(&message, &context, 1, &["latest.safetensors` is not a usable checkpoint"]);
        }
        assert!(!directory.path().join("out.npz").exists(), "{what}");
        let after = fs::read(directory.path().join("run/metrics.jsonl")).unwrap();
        assert_eq!(after, metrics, "{what}: the log is untouched");
    }
}

#[test]
fn weights_that_become_useless_stop_the_run_by_name_and_its_checkpoints_still_load() {
    let directory = tempfile::tempdir().unwrap();
    let every = "--set training.report_every=1 --set training.eval_every=1 --set training.checkpoint_every=1";
    let wild = "--set training.optimizer.learning_rate=1e6 --set training.optimizer.decay=0";
    // An epsilon of 1e-50 is 0 in f32, and the first update divides 0 by 0; 1e-30 makes weights of 1e20.
    for (epsilon, expected) in
        [("1e-50", "weight `controller.weight_ih_l0` is not a finite"), ("1e-30", "is not a finite number")]
    {
        let run = format!("run-{epsilon}");
        let line = format!("train {TINY} {every} {wild} --set training.optimizer.epsilon={epsilon} --run-dir {run}");
        let message = refused(directory.path(), &line, 1);
        assert_message(&message, &line, 1, &["training stopped", expected, "at update ", "hint: "]);
        let last = message.lines().last().unwrap();
        assert!(last.starts_with("hint: ") && !last.contains(expected), "the cause stands before the hint:\n{message}");
        for checkpoint in fs::read_dir(directory.path().join(&run).join("checkpoints")).unwrap() {
            succeeds(directory.path(), &format!("info --checkpoint {}", checkpoint.unwrap().path().display()));
        }
    }
}
