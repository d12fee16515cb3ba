//! `ntm eval`, `ntm info`, `ntm export`: what a checkpoint can do and what it holds.

use crate::common::{command, json_of, ntm, refused, succeeds, tensors, tiny_run};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const EVAL: &str = "eval --checkpoint run/checkpoints/latest.safetensors --threads 1";

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn eval_prints_a_row_for_each_length_asked_for() {
    let directory = tiny_run();
    let ran = succeeds(directory.path(), &format!("{EVAL} --lengths 5,2 --sequences 7"));
    let rows: Vec<Vec<&str>> = ran.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), 3, "{}", ran.stdout);
    assert_eq!(rows[0].first(), Some(&"length"));
    assert_eq!((&rows[1][..2], &rows[2][..2]), (&["5", "7"][..], &["2", "7"][..]));
}

#[test]
fn a_run_directory_stands_for_its_best_checkpoint_and_without_one_for_its_latest() {
    let directory = tiny_run();
    let here = directory.path();
    let eval = "eval --checkpoint run --threads 1 --lengths 2 --sequences 2 --json";
    assert_eq!(succeeds(here, eval).json()["checkpoint"], "run/checkpoints/best.safetensors");
    fs::remove_file(here.join("run/checkpoints/best.safetensors")).unwrap();
    assert_eq!(succeeds(here, eval).json()["checkpoint"], "run/checkpoints/latest.safetensors");
    assert_eq!(succeeds(here, "info --checkpoint run --json").json()["progress"]["sequences"], 20);
    let [latest, best] = ["latest", "best"].map(|name| here.join(format!("run/checkpoints/{name}.safetensors")));
    fs::rename(&latest, &best).unwrap();
    let message = refused(here, &format!("{eval} --latest"), 1);
    assert!(message.contains("`run` has lost its latest checkpoint\nhint: without --latest"), "{message}");
    assert_eq!(message, refused(here, "info --checkpoint run --latest", 1));
    fs::rename(&best, &latest).unwrap();
    succeeds(here, "export --checkpoint run --format npz --output run.npz");
    fs::create_dir(here.join("empty")).unwrap();
    assert!(
        refused(here, "info --checkpoint empty", 1).contains("`empty` is a directory without a checkpoint\nhint: name")
    );
}

#[test]
fn what_is_no_recipe_is_told_from_one() {
    let directory = tiny_run();
    for (name, expected) in [
        ("run", "`run` is a directory, not a recipe\nhint: a run's recipe is the recipe.json in it"),
        (
            "run/checkpoints/best.safetensors",
            "is a checkpoint, not a recipe\nhint: `ntm info --checkpoint run/checkpoints/best",
        ),
        ("nothing", "no recipe `nothing`: neither built in nor a file"),
    ] {
        let message = refused(directory.path(), &format!("info {name}"), 1);
        assert!(message.contains(expected), "{message}");
    }
    succeeds(directory.path(), "info run/recipe.json");
}

#[test]
fn info_shows_what_settings_make_of_a_recipe() {
    let directory = tempfile::tempdir().unwrap();
    let found = succeeds(directory.path(), "info copy --set model.memory.rows=64 --json").json();
    assert_eq!(found["recipe"]["model"]["memory"]["rows"], 64);
    assert!(refused(directory.path(), "info copy --set rows=64", 1).contains("did you mean `model.memory.rows`?"));
}

#[test]
fn more_than_the_memory_has_rows_is_told() {
    let directory = tiny_run();
    for (flags, length, rows, told) in [
        ("--lengths 4,11", 11, 8, true),
        ("--lengths 8", 8, 8, true), // the end marker takes a row, too
        ("--lengths 7", 7, 8, false),
        ("--lengths 11 --rows 11", 11, 11, true),
        ("--lengths 11 --rows 12", 11, 12, false),
    ] {
        let ran = succeeds(directory.path(), &format!("{EVAL} {flags}"));
        let words = format!(
            "length {length}: {} input steps before the first answer, but only {rows} rows; see --rows",
            length + 1
        );
        assert_eq!(ran.stderr.contains(&words), told, "{flags}: {}", ran.stderr);
        assert_eq!(ran.stderr.contains("before the first answer"), told, "{flags}: {}", ran.stderr);
    }
}

#[test]
fn eval_as_json_has_the_promised_schema_and_sensible_values() {
    let directory = tiny_run();
    let found = succeeds(directory.path(), &format!("{EVAL} --lengths 2,6 --sequences 30 --json")).json();
    assert_eq!(
        keys(&found),
        ["checkpoint", "step", "task", "data", "seed", "training_seed", "rows", "engine", "device", "results"]
    );
    assert_eq!((&found["seed"], &found["rows"]), (&json!(1), &json!(8)));
    assert_eq!(found["checkpoint"], "run/checkpoints/latest.safetensors");
    assert_eq!(found["task"], "copy");
    for (result, length) in found["results"].as_array().unwrap().iter().zip([2, 6]) {
        assert_eq!(keys(result), ["length", "sequences", "loss_bits", "bit_errors", "exact"]);
        assert_eq!((&result["length"], &result["sequences"]), (&json!(length), &json!(30)));
        // 20 sequences have taught it nothing: about a bit of cost and half an error for each of 3 x length bits.
        let bits = 3.0 * length as f64;
        let (loss, errors) = (result["loss_bits"].as_f64().unwrap(), result["bit_errors"].as_f64().unwrap());
        assert!((0.8 * bits..1.3 * bits).contains(&loss) && (0.3 * bits..0.7 * bits).contains(&errors), "{result}");
        assert!(result["exact"].as_u64().unwrap() <= 30);
    }
}

#[test]
fn the_figures_of_each_sequence_have_those_of_all_as_their_mean() {
    let directory = tiny_run();
    let eval = |flags: &str| succeeds(directory.path(), &format!("{EVAL} --lengths 2,6 --sequences 30 {flags}"));
    let whole = eval("--json").json();
    let printed = eval("--per-sequence").stdout;
    let lines: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 60);
    for (lines, result) in lines.chunks(30).zip(whole["results"].as_array().unwrap()) {
        let numbers: Vec<u64> = lines.iter().map(|line| line["sequence"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (1..=30).collect::<Vec<u64>>());
        assert_eq!(keys(&lines[0]), ["training_seed", "length", "sequence", "loss_bits", "bit_errors", "exact"]);
        let sum = |name: &str| lines.iter().map(|line| line[name].as_f64().unwrap()).sum::<f64>();
        for (name, count) in [("loss_bits", 30.0), ("bit_errors", 30.0), ("exact", 1.0)] {
            let (mean, expected) = (sum(name) / count, result[name].as_f64().unwrap());
            assert!((mean - expected).abs() < 1e-9 * expected.max(1.0), "{name}: {mean}, {expected}");
        }
        assert!(lines.iter().all(|line| line["length"] == result["length"]));
    }
    assert_ne!(lines[0]["loss_bits"], lines[1]["loss_bits"]);
}

#[test]
fn eval_gives_the_same_numbers_for_the_same_seed_and_others_for_another() {
    let directory = tiny_run();
    let eval = |flags: &str| succeeds(directory.path(), &format!("{EVAL} --sequences 25 --json {flags}")).json();
    let results = |flags: &str| eval(flags)["results"].clone();
    assert_eq!(results("--lengths 3"), results("--lengths 3"));
    assert_eq!(results("--lengths 3"), results("--lengths 3 --seed 1"), "the seed of `eval` is 1");
    assert_ne!(results("--lengths 3"), results("--lengths 3 --seed 2"));
    assert_eq!(results("--lengths 2,4"), results(""), "the recipe's own lengths are measured when none are named");
    assert_eq!(results("--lengths 2,4")[1], results("--lengths 4")[0], "a length does not depend on the others");
}

#[test]
fn info_lists_every_recipe_of_the_tasks_directory() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = fs::read_dir(here.join("tasks")).unwrap().map(|entry| entry.unwrap().path());
    let names: BTreeSet<String> = files.map(|file| file.file_stem().unwrap().to_str().unwrap().to_string()).collect();
    let listed = succeeds(here, "info --json").json();
    let listed = listed.as_array().unwrap();
    let listed_names = listed.iter().map(|recipe| recipe["name"].as_str().unwrap().to_string());
    assert_eq!(listed_names.collect::<BTreeSet<_>>(), names);
    let table = succeeds(here, "info").stdout;
    for recipe in listed {
        let (name, about) = (recipe["name"].as_str().unwrap(), recipe["about"].as_str().unwrap());
        let row = table.lines().find(|line| line.split_whitespace().next() == Some(name)).expect(name);
        assert!(
            row.contains(about.split(". ").next().unwrap()) && row.contains(&recipe["parameters"].to_string()),
            "{row}"
        );
    }
}

#[test]
fn info_describes_a_recipe_by_its_shapes_and_counts() {
    let here = Path::new("/");
    let found = succeeds(here, "info copy --json").json();
    assert_eq!(keys(&found), ["recipe", "progress", "parameters", "tensors"]);
    assert_eq!(found["recipe"]["model"]["memory"], json!({ "rows": 128, "width": 20 }));
    assert_eq!(found["progress"], Value::Null);
    // LSTM 400 x (9 + 20 + 100 + 2), heads 26 and 66 x 101, output 8 x 121; starts h, c 2 x 100, read 20, weightings 2
    // x 128
    assert_eq!(found["parameters"], 400 * 131 + (26 + 66) * 101 + 8 * 121 + 200 + 20 + 256);
    let text = succeeds(here, "info copy").stdout;
    for tensor in found["tensors"].as_array().unwrap() {
        let name = tensor["name"].as_str().unwrap();
        let row = text.lines().find(|line| line.split_whitespace().next() == Some(name)).expect(name);
        let shape: Vec<u64> = tensor["shape"].as_array().unwrap().iter().map(|size| size.as_u64().unwrap()).collect();
        assert!(row.contains(&format!("{shape:?}")), "{row}");
        assert!(row.ends_with(&format!(" {}", shape.iter().product::<u64>())), "{row}");
    }
}

#[test]
fn info_describes_a_checkpoint_by_its_recipe_and_progress() {
    let directory = tiny_run();
    let line = "info --checkpoint run/checkpoints/latest.safetensors";
    let found = succeeds(directory.path(), &format!("{line} --json")).json();
    let recipe = json_of(&directory.path().join("run/recipe.json"));
    assert_eq!(found["recipe"], recipe);
    assert_eq!((&found["progress"]["step"], &found["progress"]["sequences"]), (&json!(20), &json!(20)));
    let text = succeeds(directory.path(), line).stdout;
    assert!(text.contains("20 sequences in 20 updates") && text.contains("best evaluation"), "{text}");
}

#[test]
fn export_writes_the_weights_under_pytorchs_names() {
    let directory = tiny_run();
    let line = "export --checkpoint run/checkpoints/latest.safetensors --format safetensors --output out.safetensors";
    let ran = succeeds(directory.path(), line);
    assert_eq!(ran.stdout, "");
    let weights = tensors(&directory.path().join("run/checkpoints/latest.safetensors")).into_iter();
    let weights =
        weights.filter_map(|(name, tensor)| Some((name.strip_prefix("model.")?.to_string(), tensor))).collect();
    assert_eq!(tensors(&directory.path().join("out.safetensors")), weights);
}

#[test]
fn export_overwrites_a_file_only_when_told_to() {
    let directory = tiny_run();
    for format in ["safetensors", "npz", "torchscript", "onnx"] {
        let output = directory.path().join("out");
        fs::write(&output, "precious").unwrap();
        let line = format!("export --checkpoint run/checkpoints/latest.safetensors --format {format} --output out");
        let message = refused(directory.path(), &line, 1);
        assert!(message.contains("`out` exists already\nhint: --force"), "{message}");
        assert_eq!(fs::read_to_string(&output).unwrap(), "precious");
        succeeds(directory.path(), &format!("{line} --force"));
        assert!(fs::metadata(&output).unwrap().len() > 1000, "{format}");
        fs::remove_file(&output).unwrap();
        succeeds(directory.path(), &line);
    }
}

#[test]
fn export_writes_the_same_bytes_every_time_and_no_file_beside() {
    let directory = tiny_run();
    for format in ["safetensors", "npz", "torchscript", "onnx", "onnx --onnx-graph step", "onnx --onnx-graph init"] {
        let export = |output: &str| {
            let checkpoint = "--checkpoint run/checkpoints/latest.safetensors";
            succeeds(directory.path(), &format!("export {checkpoint} --format {format} --output {output} --force"));
            fs::read(directory.path().join(output)).unwrap()
        };
        assert!(export("one") == export("two"), "{format}");
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3, "run, one and two");
}

#[test]
fn the_shipped_copy_machine_copies_120_vectors_and_with_more_rows_800() {
    let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR")).join("checkpoints/copy.safetensors");
    for flags in ["--lengths 10,120 --sequences 20", "--lengths 800 --rows 1024 --sequences 5"] {
        let line = format!("eval --checkpoint {} {flags} --threads 1 --json", checkpoint.display());
        for result in succeeds(Path::new("/"), &line).json()["results"].as_array().unwrap() {
            assert_eq!(result["bit_errors"], 0.0, "{result}");
        }
    }
}

#[test]
fn an_export_goes_to_a_pipe_without_force_and_never_over_a_file() {
    let directory = tiny_run();
    let line = "export --checkpoint run --format npz --output";
    let piped = command(directory.path(), &format!("{line} /dev/stdout")).output().unwrap();
    assert!(piped.status.success() && piped.stdout.starts_with(b"PK"), "{}", String::from_utf8_lossy(&piped.stderr));
    succeeds(directory.path(), &format!("{line} weights.npz"));
    assert_eq!(fs::read(directory.path().join("weights.npz")).unwrap(), piped.stdout);
    let refused = ntm(directory.path(), &format!("{line} weights.npz"));
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("`weights.npz` exists already\nhint: --force"), "{}", refused.stderr);
}
