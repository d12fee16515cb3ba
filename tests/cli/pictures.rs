//! `ntm eval --plot`, `--curve`, `--animate` and `ntm plot`: that the pictures show what they say.

use crate::common::{TINY, ntm, refused, succeeds, tiny_run};
use image::RgbImage;
use ntm::config::Recipe;
use ntm::tasks::{Axis, Point, Source};
use serde_json::Value;
use std::fs;
use std::path::Path;

const EVAL: &str = "eval --checkpoint run/checkpoints/latest.safetensors --threads 1 --sequences 3";

fn read(path: &Path) -> RgbImage {
    image::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).to_rgb8()
}

/// The share of pixels that are not white.
fn inked(image: &RgbImage) -> f64 {
    image.pixels().filter(|pixel| pixel.0 != [255; 3]).count() as f64 / image.pixels().len() as f64
}

/// 1 for the bright end of the colours of values, 0 for the dark one, None for grey.
fn bit(image: &RgbImage, x: u32, y: u32) -> Option<f32> {
    match image.get_pixel(x, y).0 {
        [254, 232, 37] => Some(1.0),
        [68, 1, 84] => Some(0.0),
        [224, 224, 224] => None,
        other => panic!("pixel ({x}, {y}) is {other:?}"),
    }
}

#[test]
fn panels_show_the_bits_of_the_first_sequence_at_the_largest_point() {
    let directory = tiny_run();
    let here = directory.path();
    succeeds(here, &format!("{EVAL} --lengths 4,2 --plot a.png"));
    let recipe = Recipe::load(here.join("run/recipe.json").to_str().unwrap(), &[]).unwrap();
    let mut source = Source::open(&recipe.task).unwrap();
    let batch = source.evaluation_batch(1, &Point::new([(Axis::Length, 4)]), 0, 1).unwrap();
    let image = read(&here.join("a.png"));
    // 9 steps of 45 pixels; 4 input channels of 18 pixels; 3 targets of 24; the right column is 2 x 66 + 405 further
    assert_eq!((batch.steps, image.width()), (9, 2 * 12 + 2 * (66 + 405 + 66)));
    for step in 0..9 {
        let (x, right) = (78 + 45 * step as u32 + 22, 537);
        for channel in 0..4 {
            let input = bit(&image, x, 94 + 18 * channel as u32 + 9);
            assert_eq!(input, Some(batch.inputs[4 * step + channel]), "input {channel} of step {step}");
        }
        for channel in 0..3 {
            let target = bit(&image, x + right, 94 + 24 * channel as u32 + 12);
            let expected = (batch.mask[step] > 0.0).then(|| batch.targets[3 * step + channel]);
            assert_eq!(target, expected, "target {channel} of step {step}");
        }
    }
}

#[test]
fn every_kind_of_network_and_task_has_its_figure() {
    let directory = tempfile::tempdir().unwrap();
    let heads = "--set model.memory.rows=8 --set model.memory.width=4 --set model.controller.hidden=8";
    let once = "--set training.restart.kind=never";
    for (recipe, flags) in [
        ("copy", format!("{heads} --set model.read_heads=2 --set model.write_heads=3")),
        ("copy-lstm", "--set model.hidden=8".to_string()),
        ("repeat-copy", heads.to_string()),
        ("associative-recall", heads.to_string()),
        ("ngrams", heads.to_string()),
        ("priority-sort", format!("{heads} --set model.read_heads=5 --set model.write_heads=5")),
    ] {
        succeeds(
            directory.path(),
            &format!("train {recipe} {flags} {once} --threads 1 --sequences 1 --run-dir {recipe}"),
        );
        let line = format!("eval --checkpoint {recipe}/checkpoints/latest.safetensors --threads 1 --sequences 1");
        let ran = succeeds(directory.path(), &format!("{line} --plot {recipe}.png"));
        assert!(ran.stderr.contains(&format!("wrote `{recipe}.png`")), "{}", ran.stderr);
        let image = read(&directory.path().join(format!("{recipe}.png")));
        assert!(inked(&image) > 0.2, "{recipe}: {}", inked(&image));
    }
    let line =
        "eval --checkpoint priority-sort/checkpoints/latest.safetensors --threads 1 --sequences 1 --plot sort.svg";
    succeeds(directory.path(), line);
    let text = fs::read_to_string(directory.path().join("sort.svg")).unwrap();
    let circles = text.matches("<circle").count();
    assert!(text.contains("rows written to against priority"), "{text}");
    assert!(
        text.contains("head 5: the line explains ") && circles == 5 * 20,
        "{circles} points of 5 heads, 20 vectors"
    );
}

#[test]
fn an_svg_names_its_panels_and_a_curve_its_axes() {
    let directory = tiny_run();
    succeeds(directory.path(), &format!("{EVAL} --lengths 2,4 --plot a.svg --curve c.SVG"));
    for (file, expected) in [
        ("a.svg", &["copy, length 4", "inputs", "write weightings (all 8 rows)", "read vectors", "time step"][..]),
        ("c.SVG", &["copy against length", "wrong bits (per sequence)", "loss (bits per sequence)"]),
    ] {
        let text = fs::read_to_string(directory.path().join(file)).unwrap();
        assert!(text.len() < 200_000, "{file} has {} bytes", text.len());
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"), "{file}");
        for words in expected {
            assert!(text.contains(words), "{file}: no `{words}`");
        }
    }
    succeeds(directory.path(), &format!("{EVAL} --lengths 2,4 --curve c.png"));
    let image = read(&directory.path().join("c.png"));
    assert_eq!(image.dimensions(), (1200, 500));
    assert!((0.02..0.6).contains(&inked(&image)), "{}", inked(&image));
}

#[test]
fn an_animation_has_a_frame_a_step_and_of_a_long_sequence_no_more_than_150() {
    let directory = tiny_run();
    for (length, frames) in [(4, 9), (100, 101)] {
        let ran = succeeds(directory.path(), &format!("{EVAL} --lengths {length} --animate a.gif"));
        assert_eq!(ran.stderr.contains("it shows one of 2"), length == 100, "{}", ran.stderr);
        let mut gif =
            gif::DecodeOptions::new().read_info(fs::File::open(directory.path().join("a.gif")).unwrap()).unwrap();
        let (mut count, mut changed) = (0, 0);
        while let Some(frame) = gif.read_next_frame().unwrap() {
            count += 1;
            changed += frame.buffer.iter().any(|&index| Some(index) != frame.transparent) as usize;
        }
        assert_eq!((count, changed), (frames, frames), "length {length}");
    }
}

#[test]
fn pictures_that_cannot_be_drawn_are_refused_before_anything_is_measured() {
    let directory = tiny_run();
    fs::create_dir(directory.path().join("there.png")).unwrap();
    for (flags, expected) in [
        ("--curve no/where.png", "there is no directory `no`\nhint: `mkdir -p no`"),
        ("--plot there.png", "is a directory"),
        ("--lengths 1000000 --plot a.png", "the sequence to draw has 2000001 steps, allowed: up to 20000"),
        ("--lengths 200 --rows 1000000 --plot a.png", "401 steps are too many to draw with so many memory rows"),
    ] {
        let message = refused(directory.path(), &format!("{EVAL} {flags}"), 1);
        assert!(message.contains(expected), "{flags}\n{message}");
    }
    let line = "train copy-lstm --set model.hidden=8 --threads 1 --sequences 1 --run-dir lstm";
    succeeds(directory.path(), line);
    let line = "eval --checkpoint lstm/checkpoints/latest.safetensors --animate a.gif";
    assert!(refused(directory.path(), line, 1).contains("no memory to show\nhint: --plot"));
}

#[test]
fn a_picture_that_cannot_be_written_does_not_take_the_figures_with_it() {
    let directory = tiny_run();
    for (flag, file) in [("--plot", "a.png"), ("--curve", "c.svg"), ("--animate", "a.gif")] {
        let ran = ntm(directory.path(), &format!("{EVAL} --lengths 2 {flag} /proc/{file}"));
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        assert!(ran.stdout.contains("wrong bits"), "{}", ran.stdout);
        let expected = format!("error: cannot write `/proc/{file}`: No such file or directory (os error 2)");
        assert!(ran.stderr.contains(&expected), "{}", ran.stderr);
    }
}

#[test]
fn a_run_that_cannot_be_read_is_left_out_of_a_picture_unless_it_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    for seed in 1..=3 {
        succeeds(here, &format!("train copy {TINY} --sequences 20 --seed {seed}"));
    }
    fs::write(here.join("runs/copy-1/recipe.json"), "{").unwrap();
    fs::write(here.join("runs/copy-2/metrics.jsonl"), "no line of ours\n").unwrap();
    let ran = succeeds(here, "plot runs --output all.svg");
    for words in ["in `runs/copy-1/recipe.json`: not valid JSON", "`runs/copy-2/metrics.jsonl`, line 1"] {
        assert!(ran.stderr.lines().any(|line| line.contains(words) && line.ends_with(": left out")), "{}", ran.stderr);
    }
    let message = refused(here, "plot runs/copy-1 runs/copy-3", 1);
    assert!(message.contains("in `runs/copy-1/recipe.json`"), "{message}");
}

#[test]
fn runs_that_differ_in_their_seed_become_one_curve_and_a_file_is_written_over() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    for (recipe, seed) in [("copy", 1), ("copy", 2), ("copy-feedforward", 1)] {
        succeeds(here, &format!("train {recipe} {TINY} --sequences 20 --seed {seed}"));
    }
    succeeds(here, &format!("train copy {TINY} --sequences 25 --seed 3 --run-dir runs/copy-3"));
    fs::write(here.join("curves.svg"), "an old picture").unwrap();
    succeeds(here, "plot runs --output curves.svg --log --log-sequences");
    let text = fs::read_to_string(here.join("curves.svg")).unwrap();
    for words in [
        "copy (median and range of 2 seeds)",
        "\ncopy-3\n",
        "copy-feedforward",
        "sequences (thousands)",
        "loss (bits per sequence)",
    ] {
        assert!(text.contains(words), "no `{words}`");
    }
    succeeds(here, &format!("train copy {TINY} --sequences 20 --seeds 4..5 --run-dir study"));
    succeeds(here, "plot study --output study.svg");
    let text = fs::read_to_string(here.join("study.svg")).unwrap();
    assert!(text.contains("study (median and range of 2 seeds)"), "{text}");
    // a report leaves out that there was no restart
    succeeds(here, "plot study --metric restarts --output study.svg");
    let text = fs::read_to_string(here.join("study.svg")).unwrap();
    assert!(text.contains("study (median and range of 2 seeds)"), "{text}");
    // a directory with a study in it shows it, and a run that is named twice counts once
    succeeds(here, "plot . study study/seed-4 --output all.svg");
    let text = fs::read_to_string(here.join("all.svg")).unwrap();
    assert!(text.contains("study (median and range of 2 seeds)"), "{text}");
    succeeds(here, "plot runs/copy-1 runs/copy-2 --metric bit_errors");
    // a seed counts once, too, and an evaluation has its name in TensorBoard
    succeeds(here, &format!("train copy {TINY} --sequences 20 --seed 1 --run-dir again"));
    let ran = succeeds(here, "plot runs again --metric eval/length_4/bit_errors --output again.svg");
    assert!(
        ran.stderr.contains("`again` has the recipe of `runs/copy-1`, and seed 1 again: left out"),
        "{}",
        ran.stderr
    );
    let text = fs::read_to_string(here.join("again.svg")).unwrap();
    for words in ["wrong bits in evaluation, length 4", "wrong bits (per sequence)", "median and range of 2 seeds"] {
        assert!(text.contains(words), "no `{words}` in\n{text}");
    }
    // a logarithmic axis has a 0 at its foot where there are zeros, beside that of the sequences
    let log = fs::read_to_string(here.join("again/metrics.jsonl")).unwrap();
    let mut reports: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (zeros, expected) in [(0, 1), (2, 2)] {
        reports.iter_mut().take(zeros).for_each(|report| report["bit_errors"] = 0.0.into());
        let lines: Vec<String> = reports.iter().map(Value::to_string).collect();
        fs::write(here.join("again/metrics.jsonl"), lines.join("\n") + "\n").unwrap();
        succeeds(here, "plot again --metric bit_errors --log --output log.svg");
        let text = fs::read_to_string(here.join("log.svg")).unwrap();
        assert_eq!(text.lines().filter(|line| *line == "0").count(), expected, "{text}");
    }
    // a run that was solved early keeps its last value to the end of the longest, one that was stopped does not
    for (solved, last) in [("0.1", 200), ("1000", 10)] {
        let set = "--set solved.metric=loss_bits --set solved.stop=true --set training.report_every=1 --sequences 200";
        succeeds(
            here,
            &format!("train copy {TINY} {set} --set solved.at_most={solved} --seed {last} --run-dir ends/{last}"),
        );
        let recipe = here.join(format!("ends/{last}/recipe.json"));
        let text = fs::read_to_string(&recipe).unwrap().replace("1000.0", "0.1"); // one recipe, two ends
        fs::write(&recipe, text).unwrap();
    }
    let reaches = |to: &str| {
        succeeds(here, "plot ends --output ends.svg");
        let text = fs::read_to_string(here.join("ends.svg")).unwrap();
        assert!(text.contains("(median and range of 2 seeds)"), "{text}");
        text.contains(&format!("\n{to}\n"))
    };
    assert!(reaches("0.2"), "200 sequences, in thousands");
    fs::remove_file(here.join("ends/10/checkpoints/latest.safetensors")).unwrap();
    assert!(!reaches("0.2"), "of a run that is not known to have ended only what it has reported");
    let image = read(&here.join("curves.png"));
    assert_eq!(image.dimensions(), (1000, 600));
    assert!((0.01..0.6).contains(&inked(&image)), "{}", inked(&image));
}

#[test]
fn runs_of_squared_errors_are_drawn_alone_and_left_out_with_a_word_beside_others() {
    let directory = tiny_run();
    let here = directory.path();
    fs::write(here.join("data.jsonl"), "{\"input\": [[1], [0.5]], \"target\": [[0.1], [-3]]}\n").unwrap();
    let task =
        "--set task.kind=sequences --set task.train=data.jsonl --set task.eval=data.jsonl --set task.loss=squared";
    let of_copy = ["--set task.width=3 --set task.max_length=3", "--set evaluation.lengths=[2,4]"];
    let tiny = of_copy.iter().fold(TINY.to_string(), |tiny, flags| tiny.replace(flags, ""));
    succeeds(here, &format!("train copy {task} {tiny} --sequences 20 --run-dir squared"));
    succeeds(here, "plot squared --output squared.svg");
    assert!(fs::read_to_string(here.join("squared.svg")).unwrap().contains("squared error during training"));
    let ran = succeeds(here, "plot run squared");
    assert!(ran.stderr.contains("`squared` has no `loss_bits`: left out"), "{}", ran.stderr);
    let table = succeeds(here, "eval --checkpoint squared --threads 1 --plot a.svg --sequence 1").stdout;
    assert!(table.contains("squared error"), "{table}");
    assert!(fs::read_to_string(here.join("a.svg")).unwrap().contains("sequences, sequence 1"));
    let message = refused(here, "eval --checkpoint squared --plot a.svg --sequence 2", 1);
    assert!(message.contains("`--sequence 2`: the file has 1 sequences"), "{message}");
    assert!(refused(here, "eval --checkpoint squared --sequence 1", 2).contains("add --plot or --animate"));
}

#[test]
fn a_run_that_is_still_writing_is_drawn_and_one_without_a_report_is_named() {
    let directory = tiny_run();
    let here = directory.path();
    let metrics = here.join("run/metrics.jsonl");
    let whole = fs::read_to_string(&metrics).unwrap();
    fs::write(&metrics, &whole[..whole.len() - 30]).unwrap();
    succeeds(here, "plot run");
    fs::write(&metrics, whole.replacen("\"step\"", "step", 1)).unwrap();
    assert!(refused(here, "plot run", 1).contains("`run/metrics.jsonl`, line 1: "));
    for empty in [true, false] {
        if empty {
            fs::write(&metrics, "").unwrap()
        } else {
            fs::remove_file(&metrics).unwrap()
        }
        let message = refused(here, "plot run", 1);
        assert!(message.contains("`run` has no report yet\nhint: a run reports every"), "{message}");
    }
}

#[test]
fn what_is_no_run_and_a_metric_that_no_run_has_are_refused() {
    let directory = tiny_run();
    fs::create_dir(directory.path().join("empty")).unwrap();
    assert!(refused(directory.path(), "plot run/recipe.json", 1).contains("`run/recipe.json` is a file\nhint: name"));
    for (line, expected) in [
        ("plot empty", "`empty` holds no run\nhint: name a run directory of `ntm train`"),
        ("plot nowhere", "cannot read directory `nowhere`"),
        (
            "plot run --metric loss",
            "no run has a metric `loss`\nhint: there are bit_errors, grad_norm, learning_rate, loss_bits",
        ),
    ] {
        let message = refused(directory.path(), line, 1);
        assert!(message.contains(expected), "{line}\n{message}");
    }
    assert!(refused(directory.path(), "plot", 2).contains("<RUN>"));
}
