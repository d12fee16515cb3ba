//! To the terminal: lines, data, tables, and words that can be pasted there.

use anstream::adapter::strip_str;
use anstream::{AutoStream, ColorChoice};
use anyhow::{Context, Result};
use std::ffi::OsStr;
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::Path;

const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[1;31m";
const CYAN: &str = "\x1b[1;36m";
const PLAIN: &str = "\x1b[0m";

/// Lines to stderr, with `error:`, `hint:` and `next:` at the start of one in colour. A closed stderr is no reason to
/// end a run, and `eprintln!` would panic.
pub fn say(text: &str) {
    let painted = |line: &str| {
        let colour = |word: &&(&str, &str)| line.starts_with(word.0);
        match [("error:", RED), ("hint:", CYAN), ("next:", BOLD)].iter().find(colour) {
            Some((word, colour)) => format!("{colour}{word}{PLAIN}{}", &line[word.len()..]),
            None => line.to_string(),
        }
    };
    let text = text.split('\n').map(painted).collect::<Vec<_>>().join("\n") + "\n";
    let stderr = std::io::stderr();
    let text = match AutoStream::choice(&stderr) {
        ColorChoice::Never => strip_str(&text).to_string(),
        _ => text,
    };
    // in one write: several ranks may share a pipe
    let _ = stderr.lock().write_all(text.as_bytes());
}

/// Data to stdout. Fails, rather than panics, where stdout cannot be written. A reader that has left wants no more of
/// it.
pub fn print(text: &str) -> Result<()> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to stdout"),
    }
}

/// Rows of text with their columns aligned to the right, the first `headings` rows in bold.
pub fn table(rows: &[Vec<String>], headings: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cells = |column: usize| rows.iter().filter_map(move |row| row.get(column));
    let widths: Vec<usize> =
        (0..columns).map(|column| cells(column).map(|cell| cell.chars().count()).max().unwrap_or(0).max(8)).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:>width$}")).collect();
        cells.join("  ")
    };
    let lines = rows.iter().enumerate().map(
        |(index, row)| {
            if index < headings { heading(&line(row)) } else { line(row) + "\n" }
        },
    );
    lines.collect()
}

/// A line in bold.
pub fn heading(line: &str) -> String {
    format!("{BOLD}{line}{PLAIN}\n")
}

/// The columns of the terminal that a stream is, if it is one.
pub fn terminal_columns(stream: impl AsFd) -> Option<usize> {
    let (width, _) = terminal_size::terminal_size_of(stream)?;
    Some(width.0 as usize)
}

/// Words as a shell takes them.
pub fn shell_words<Word: AsRef<OsStr>>(words: impl IntoIterator<Item = Word>) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_-./=,:@%+".contains(letter);
    let quoted = |word: Word| match word.as_ref().to_string_lossy() {
        word if !word.is_empty() && word.chars().all(plain) => word.into_owned(),
        word => format!("'{}'", word.replace('\'', r"'\''")),
    };
    words.into_iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// A path as a shell takes it.
pub fn shell_path(path: &Path) -> String {
    shell_words([path])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_take_them_apart() {
        let words = ["--set", "a.b=1e-3", "my runs/1", "it's", "", "$x"];
        assert_eq!(shell_words(words), r"--set a.b=1e-3 'my runs/1' 'it'\''s' '' '$x'");
    }

    #[test]
    fn columns_of_a_table_are_as_wide_as_their_longest_cell() {
        let row = |cells: [&str; 2]| cells.map(str::to_string).to_vec();
        let text = table(&[row(["a", "wrong bits"]), row(["123456789", "0.5"])], 1);
        assert_eq!(text, "\x1b[1m        a  wrong bits\x1b[0m\n123456789         0.5\n");
    }
}
