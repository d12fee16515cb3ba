//! What a terminal of 80 or 100 columns, a pipe, a shell and `man` get.

use crate::common::{Ran, TINY, command, python, succeeds, tiny_run};
use std::fs;
use std::path::Path;
use std::process::Command;

const SUBCOMMANDS: [&str; 8] = ["train", "eval", "predict", "plot", "export", "info", "completions", "man"];

const EVAL: &str = "eval --checkpoint run/checkpoints/latest.safetensors --threads 1 --sequences 3";

/// What a terminal of so many columns shows of a command after these words to `env`: another variable, perhaps a
/// program that runs it.
fn on_a_terminal(columns: usize, line: &str, before: &str) -> String {
    let words = format!("tests/terminal.py {columns} /usr/bin/env TERM=xterm {before}");
    let words =
        [words.as_str(), env!("CARGO_BIN_EXE_ntm"), line].map(|part| part.split_whitespace().map(str::to_string));
    python(words.into_iter().flatten())
}

fn without_colours(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

#[test]
fn every_help_has_examples_and_no_line_of_more_than_80_columns() {
    for subcommand in [""].into_iter().chain(SUBCOMMANDS) {
        let line = format!("{subcommand} --help");
        let ran = Ran::new(command(Path::new("/"), &line).env("COLUMNS", "80").output().unwrap());
        assert!(ran.code == Some(0) && ran.stderr.is_empty(), "{}", ran.stderr);
        let examples = ran.stdout.split("Examples:\n").nth(1).unwrap_or_else(|| panic!("{line}\n{}", ran.stdout));
        assert!(examples.starts_with("  ntm "), "{examples}");
        for text in ran.stdout.lines() {
            assert!(text.chars().count() <= 80, "ntm {line}: {text}");
        }
    }
}

#[test]
fn the_list_of_recipes_is_wrapped_to_the_terminal_and_a_line_a_recipe_in_a_pipe() {
    let piped = succeeds(Path::new("/"), "info").stdout;
    let recipes = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tasks")).unwrap().count();
    assert_eq!(piped.lines().count(), 1 + recipes, "{piped}");
    for columns in [80, 100] {
        let shown = without_colours(&on_a_terminal(columns, "info", "A=B"));
        assert!(shown.lines().all(|line| line.chars().count() <= columns), "{columns} columns\n{shown}");
        let words = |text: &str| text.split_whitespace().map(str::to_string).collect::<Vec<_>>();
        assert_eq!(words(&shown), words(&piped));
    }
}

#[test]
fn the_bar_of_a_run_keeps_to_the_line_of_its_terminal() {
    let directory = tempfile::tempdir().unwrap();
    for columns in [80, 100] {
        let run = directory.path().join(columns.to_string()).display().to_string();
        let shown = on_a_terminal(columns, &format!("train {TINY} --sequences 1000 --run-dir {run}"), "A=B");
        // a line above the bar fills the terminal's, and has no end of its own
        let bar =
            |part: &str| without_colours(part).trim_start_matches(|glyph| !['█', '░'].contains(&glyph)).to_string();
        let bars: Vec<String> = shown.split(['\r', '\n']).map(bar).filter(|bar| bar.contains("/1,000, ")).collect();
        let last = bars.last().expect("a bar").trim_end();
        assert!(last.ends_with("wrong bits") || last.ends_with("/s"), "{columns} columns: {last}");
        let long = bars.iter().find(|bar| bar.chars().count() > columns);
        assert!(long.is_none(), "{columns} columns, {long:?}");
    }
}

/// What a terminal shows of a study of three seeds of so many sequences, two at a time.
fn study_on_a_terminal(sequences: u32, before: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let study = directory.path().join("study").display().to_string();
    let line = format!("train {TINY} --seeds 1..3 --jobs 2 --sequences {sequences} --run-dir {study}");
    without_colours(&on_a_terminal(80, &line, before))
}

#[test]
fn an_evaluation_has_a_bar_which_is_gone_when_the_table_comes() {
    let machine = format!("{}/checkpoints/copy.safetensors", env!("CARGO_MANIFEST_DIR"));
    let line = format!("eval --checkpoint {machine} --lengths 20,120 --sequences 300 --threads 1");
    let shown = without_colours(&on_a_terminal(80, &line, "A=B"));
    assert!(shown.contains("/600, "), "{shown}");
    let (_, table) = shown.split_once("wrong bits").expect("a table");
    assert!(!table.contains(['░', '█']), "a bar stays behind\n{shown}");
}

#[test]
fn each_seed_of_a_study_that_trains_has_a_bar_and_each_that_has_ended_a_line_above() {
    let shown = study_on_a_terminal(1000, "A=B");
    for seed in 1..=3 {
        let label = format!("seed {seed}  ");
        let mut bars = shown.split(&label).skip(1).map(|rest| rest.split("seed ").next().unwrap());
        let drawn = |bar: &str| bar.starts_with(['░', '█']) && bar.contains("/1,000, ") && bar.contains(" left  loss ");
        assert!(bars.any(drawn), "seed {seed}\n{shown}");
        let ended = format!("seed {seed}: not solved in 1000 sequences, ");
        assert_eq!(shown.matches(&ended).count(), 1, "{shown}");
    }
    let (_, rest) = shown.rsplit_once(": not solved").unwrap();
    assert!(!rest.contains(['░', '█']), "a bar stays behind\n{rest}");
    assert!(!shown.contains("evaluation"), "its evaluations are in its logs\n{shown}");
}

#[test]
fn ctrl_c_in_a_study_is_answered_once_and_no_bar_is_drawn_after_its_end() {
    let shown = study_on_a_terminal(1_000_000_000, "A=B timeout --foreground -s INT 3");
    assert_eq!(
        shown.matches("stopping, and saving first; the same again ends it at once, unsaved").count(),
        1,
        "{shown}"
    );
    let (before, rest) = shown.rsplit_once("stopped and saved; go on with: ntm train --resume ").expect(&shown);
    assert!(before.contains('░') && !rest.contains(['░', '█']), "{rest}");
}

#[test]
fn colours_are_for_a_terminal_alone_unless_the_environment_says_otherwise() {
    let directory = tiny_run();
    let here = directory.path();
    let checkpoint = here.join("run/checkpoints/latest.safetensors").display().to_string();
    let table = format!("eval --checkpoint {checkpoint} --threads 1 --sequences 3");
    for line in [table.as_str(), "train copi", "info"] {
        let run = |variable: &str| {
            let mut command = command(here, line);
            command.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE");
            let (name, value) = variable.split_once('=').unwrap();
            let ran = Ran::new(command.env(name, value).output().unwrap());
            ran.stdout + &ran.stderr
        };
        let plain = run("A=B");
        assert!(!plain.contains('\x1b'), "{plain}");
        let forced = run("CLICOLOR_FORCE=1");
        assert!(forced.contains("\x1b[1"), "{line}: {forced}");
        assert_eq!(without_colours(&forced), plain);
        assert!(on_a_terminal(100, line, "A=B").contains("\x1b[1"), "{line}");
        assert!(!on_a_terminal(100, line, "NO_COLOR=1").contains('\x1b'), "{line}");
    }
    let error = on_a_terminal(80, "train copi", "A=B");
    assert!(error.contains("\x1b[1;31merror:\x1b[0m no recipe") && error.contains("\x1b[1;36mhint:\x1b[0m"), "{error}");
}

#[test]
fn tables_have_their_columns_aligned_and_their_units_in_80_columns() {
    let directory = tiny_run();
    let text = succeeds(directory.path(), &format!("{EVAL} --lengths 2,100")).stdout;
    assert_eq!(text.lines().next().unwrap(), "  length  sequences  loss (bits)  wrong bits     exact");
    let study = format!("train {TINY} --seeds 9..10 --sequences 20 --run-dir study");
    let study = succeeds(directory.path(), &study).stdout;
    let table: Vec<&str> = study.lines().skip(1).take(3).collect();
    assert_eq!(table[0], "    seed  sequences   seconds  length 2  length 4");
    for rows in [text.lines().collect::<Vec<_>>(), table] {
        let ends: Vec<usize> = rows.iter().map(|row| row.len()).collect();
        assert!(ends.iter().all(|end| *end == ends[0] && *end <= 80), "{rows:?}");
    }
    assert!(study.starts_with("sequences and seconds until solved, and wrong bits at the end\n"), "{study}");
    assert!(study.ends_with("\nsolved: 0 of 2\n"), "{study}");
}

#[test]
fn what_training_names_as_the_next_command_runs_as_it_is_pasted() {
    let directory = tempfile::tempdir().unwrap();
    let run = "my runs/it's the 1st";
    let mut train = command(directory.path(), &format!("train {TINY} --sequences 10"));
    let ran = Ran::new(train.args(["--run-dir", run]).output().unwrap());
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let next = ran.stderr.lines().find_map(|line| line.strip_prefix("next: ")).expect(&ran.stderr);
    assert!(next.starts_with("ntm eval --checkpoint "), "{next}");
    assert!(ran.stderr.contains(r"      tensorboard --logdir 'my runs/it'\''s the 1st'"), "{}", ran.stderr);
    let binary = Path::new(env!("CARGO_BIN_EXE_ntm")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap_or_default());
    let shell = Command::new("sh").args(["-c", next]).env("PATH", path).current_dir(directory.path()).output();
    let pasted = Ran::new(shell.unwrap());
    assert!(pasted.code == Some(0) && pasted.stdout.contains("wrong bits"), "{}", pasted.stderr);
}

#[test]
fn every_shell_has_its_completions_and_bash_completes_with_them() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = succeeds(Path::new("/"), &format!("completions {shell}")).stdout;
        assert!(script.contains("onnx-graph"), "{shell}\n{script}");
    }
    let script = r#"source <("$0" completions bash)
        for words in "ntm tra" "ntm export --format o" "ntm train --res"; do
            COMP_WORDS=($words) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            _ntm ntm "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
            echo "${COMPREPLY[@]}"
        done"#;
    let output = Command::new("bash").args(["-c", script, env!("CARGO_BIN_EXE_ntm")]).output().unwrap();
    assert_eq!(Ran::new(output).stdout, "train\nonnx\n--resume\n");
}

#[test]
fn every_command_has_a_man_page_whose_examples_keep_their_lines() {
    let directory = tempfile::tempdir().unwrap();
    succeeds(directory.path(), "man pages/man1");
    let page = |name: &str| fs::read_to_string(directory.path().join(format!("pages/man1/{name}.1"))).expect(name);
    assert!(page("ntm").contains("ntm\\-train(1)"), "{}", page("ntm"));
    for name in SUBCOMMANDS.map(|subcommand| format!("ntm-{subcommand}")).into_iter().chain(["ntm".to_string()]) {
        assert!(page(&name).contains("\n.SH EXAMPLES\n.nf\n  ntm "), "{}", page(&name));
    }
}
