//! A data file: read through once, when every line is checked and its place noted; then sequences are read where they
//! stand, so the file may be larger than memory.

use super::line::{Line, Wrong, read_line, unmarked};
use super::{Batch, Loss};
use anyhow::{Context, Result, anyhow, bail};
use std::fs;
use std::io::{BufReader, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Clones share what they have read of it.
#[derive(Clone)]
pub struct File {
    /// Absolute.
    pub path: String,
    /// Bytes and checksum, in words.
    pub content: String,
    /// X, Y
    pub widths: (usize, usize),
    pub max_steps: usize,
    loss: Loss,
    file: Arc<fs::File>,
    /// Where each sequence's line starts and how long it is, in bytes.
    places: Arc<[(u64, u32)]>,
}

impl File {
    /// Reads a file through. Its widths must be those given, if any.
    pub fn open(path: &str, loss: Loss, widths: Option<(usize, usize)>) -> Result<File> {
        let file = fs::File::open(path).map_err(|error| {
            let missing = error.kind() == ErrorKind::NotFound && Path::new(path).is_relative();
            let hint = if missing { "\nhint: a path counts from the directory you are in" } else { "" };
            anyhow!("cannot read data file `{path}`: {error}{hint}")
        })?;
        if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            bail!(
                "`{path}` is not a file that can be read again\nhint: a pipe or a device cannot be shuffled; write it to a file"
            );
        }
        let absolute = fs::canonicalize(path).with_context(|| format!("cannot find `{path}`"))?;
        let absolute = absolute.to_str().with_context(|| format!("the path of `{path}` is not UTF-8"))?.to_string();
        let mut reader = BufReader::with_capacity(1 << 20, &file);
        let (mut text, mut places, mut at, mut number) = (vec![], vec![], 0, 0);
        let (mut checksum, mut widths, mut max_steps) = (FNV_START, widths, 0);
        loop {
            number += 1;
            let read = read_line(&mut reader, number, &mut text);
            if read.with_context(|| format!("cannot read data file `{path}`"))? == 0 {
                break;
            }
            checksum = text.iter().fold(checksum, |sum, byte| (sum ^ *byte as u64).wrapping_mul(FNV_PRIME));
            let unmarked = unmarked(&text, number);
            if !unmarked.trim_ascii().is_empty() {
                let line = Line::parse(unmarked.trim_ascii_end(), Some(loss), widths)
                    .map_err(|wrong| anyhow!("`{path}`, line {number}, {wrong}"))?;
                widths = Some(line.widths);
                max_steps = max_steps.max(line.steps);
                places.push((at + (text.len() - unmarked.len()) as u64, unmarked.len() as u32));
            }
            at += text.len() as u64;
        }
        let Some(widths) = widths.filter(|_| !places.is_empty()) else {
            bail!("`{path}` holds no sequence\nhint: one JSON object a line, with `input` and `target`")
        };
        let content = format!("{at} bytes, checksum {checksum:016x}");
        Ok(File { path: absolute, content, widths, max_steps, loss, file: Arc::new(file), places: places.into() })
    }

    /// The number of sequences.
    pub fn count(&self) -> usize {
        self.places.len()
    }

    /// The sequences of these indices.
    pub fn batch(&self, indices: &[usize]) -> Result<Batch> {
        let lines = indices.iter().map(|&index| self.read(index)).collect::<Result<Vec<Line>>>()?;
        let steps = lines.iter().map(|line| line.steps).collect();
        let mut batch = Batch { loss: self.loss, ..Batch::zeros(steps, self.widths.0, self.widths.1) };
        for (b, line) in lines.iter().enumerate() {
            let mut column = batch.column(b);
            for (t, mask) in line.mask.iter().enumerate() {
                column.input(t).copy_from_slice(&line.inputs[t * self.widths.0..][..self.widths.0]);
                if *mask == 1.0 {
                    column.answer(t).copy_from_slice(&line.targets[t * self.widths.1..][..self.widths.1]);
                }
            }
        }
        Ok(batch)
    }

    fn read(&self, index: usize) -> Result<Line> {
        let (start, length) = self.places[index];
        let mut text = vec![0; length as usize];
        let read = self.file.read_exact_at(&mut text, start);
        read.with_context(|| format!("cannot read sequence {} of `{}`", index + 1, self.path))?;
        Line::parse(text.trim_ascii_end(), Some(self.loss), Some(self.widths)).map_err(|Wrong { what, .. }| {
            anyhow!("sequence {} of `{}` changed after it was checked: {what}", index + 1, self.path)
        })
    }
}

/// FNV-1a, 64 bits: against a changed file, not against malice.
const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

#[cfg(test)]
mod tests {
    use super::*;

    fn open(text: &[u8], loss: Loss) -> Result<File> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data.jsonl");
        fs::write(&path, text).unwrap();
        File::open(path.to_str().unwrap(), loss, None)
    }

    #[test]
    fn sequences_are_padded_at_their_end_and_masked_steps_have_no_target() {
        let text = concat!(
            r#"{"input": [[1, 2], [3, 4]], "target": [[1], [1]], "mask": [0, 1]}"#,
            "\n\n",
            r#" {"target": [[0.0]], "input": [[-5e-1, 6]]} "#,
            "\r\n"
        );
        let batch = open(text.as_bytes(), Loss::CrossEntropy).unwrap().batch(&[1, 0]).unwrap();
        let expected = Batch {
            steps: 2,
            lengths: vec![1, 2],
            inputs: vec![-0.5, 6.0, 1.0, 2.0, 0.0, 0.0, 3.0, 4.0],
            targets: vec![0.0, 0.0, 0.0, 1.0],
            mask: vec![1.0, 0.0, 0.0, 1.0],
            loss: Loss::CrossEntropy,
            blur: 0.0,
        };
        assert_eq!(batch, expected);
    }

    #[test]
    fn a_byte_order_mark_at_the_begin_is_passed_over() {
        let line = br#"{"input": [[1]], "target": [[1]]}"#;
        let marked = [&b"\xef\xbb\xbf"[..], line, b"\n", line].concat();
        let batch = open(&marked, Loss::CrossEntropy).unwrap().batch(&[0, 1]).unwrap();
        assert_eq!(batch.inputs, [1.0, 1.0]);
        let message = format!("{:#}", open(&[line, &b"\n"[..], &marked].concat(), Loss::CrossEntropy).err().unwrap());
        assert!(message.contains("line 2, column 1: expected value"), "{message}");
    }

    #[test]
    fn squared_loss_takes_any_number_as_target() {
        let file = open(br#"{"input": [[1]], "target": [[-2.5]]}"#, Loss::Squared).unwrap();
        let batch = file.batch(&[0]).unwrap();
        assert_eq!((batch.targets, batch.loss), (vec![-2.5], Loss::Squared));
    }

    /// A file's second line, and what is said of it.
    const BROKEN: &[(&str, &str)] = &[
        (r#"{"input": [[1, 0]], "target": [[1]]"#, "column 35: EOF while parsing an object"),
        (r#"{"input": [[1, 0]] "target": [[1]]}"#, "column 20: expected `,` or `}`"),
        (r#"{"input": [[1, NaN]], "target": [[1]]}"#, "column 16: expected value"),
        (r#"{"input": [[1, 1e999]], "target": [[1]]}"#, "column 20: number out of range"),
        (r#"{"input": [[1, 1e99]], "target": [[1]]}"#, "column 19: `input` has 1e99, expected a number that fits"),
        (r#"{"input": [[1, "0"]], "target": [[1]]}"#, "column 18: invalid type: string \"0\", expected a number"),
        (r#"{"input": [[1, null]], "target": [[1]]}"#, "column 19: invalid type: null, expected a number"),
        (r#"{"input": [1, 0], "target": [[1]]}"#, "column 12: invalid type: integer `1`, expected a step to be a list"),
        (r#"{"input": 3, "target": [[1]]}"#, "column 11: invalid type: integer `3`, expected `input` to be a list of"),
        (r#"{"input": [], "target": []}"#, "column 12: `input` is empty, expected 1 step or more"),
        (r#"{"input": [[]], "target": [[1]]}"#, "column 14: step 0 of `input` has 0 values, expected 2"),
        (r#"{"input": [[1, 0], [1]], "target": [[1], [1]]}"#, "column 23: step 1 of `input` has 1 value, expected 2"),
        (r#"{"input": [[1, 0, 0]], "target": [[1]]}"#, "column 21: step 0 of `input` has 3 values, expected 2"),
        (r#"{"input": [[1, 0]], "target": [[1, 1]]}"#, "column 38: step 0 of `target` has 2 values, expected 1"),
        (r#"{"input": [[1, 0]], "target": [[0.5]]}"#, "column 35: `target` has a 0.5, expected 0 or 1 (or `\"loss\""),
        (
            r#"{"input": [[1, 0]], "target": [[1], [0]]}"#,
            "column 41: `input` has 1 steps, `target` 2, expected as many",
        ),
        (
            r#"{"input": [[1]], "target": [[1]], "mask": [1, 0]}"#,
            "column 15: step 0 of `input` has 1 value, expected 2",
        ),
        (r#"{"input": [[1, 0]], "target": [[1]], "mask": [1, 0]}"#, "column 52: `mask` has 2 values, expected one for"),
        (r#"{"input": [[1, 0]], "target": [[1]], "mask": [0]}"#, "column 49: `mask` is 0 at every step, expected a 1"),
        (r#"{"input": [[1, 0]], "target": [[1]], "mask": [2]}"#, "column 47: `mask` has a 2, expected 0 or 1"),
        (
            r#"{"input": [[1, 0]], "target": [[1]], "mask": [[1]]}"#,
            "column 47: invalid type: sequence, expected a number",
        ),
        (r#"{"input": [[1, 0]], "target": [[1]], "maks": [1]}"#, "column 49: unknown key `maks`, expected `input`,"),
        (r#"{"input": [[1, 0]]}"#, "column 19: there is no `target`"),
        (r#"{"input": [[1, 0]], "target": [[1]], "input": [[1, 0]]}"#, "column 55: `input` appears twice"),
        (
            r#"[[1, 0]]"#,
            "column 1: invalid type: sequence, expected an object with `input`, `target` and perhaps `mask`",
        ),
        (r#"{"input": [[1, 0]], "target": [[1]]} {}"#, "column 38: trailing characters"),
        ("input,target", "column 1: expected value"),
        (
            r#"{"input": [[1, NaN]], "target": [[1]]}"#,
            "column 16: expected value\nhint: JSON has no such number; leave",
        ),
        (r#"{"input": [[-Infinity, 1]]}"#, "column 14: invalid number\nhint: JSON has no such number"),
        ("{", "column 1: EOF while parsing an object\nhint: an object stands on one line, not on several"),
    ];

    #[test]
    fn a_broken_line_is_refused_with_file_line_column_and_what_was_expected() {
        for (line, expected) in BROKEN {
            let text = format!("{}\n{line}\n", r#"{"input": [[0, 1]], "target": [[1]]}"#);
            let message = format!("{:#}", open(text.as_bytes(), Loss::CrossEntropy).err().expect(line));
            let found = message.split_once("data.jsonl`, line 2, ").map(|(_, found)| found);
            assert!(found.is_some_and(|found| found.starts_with(expected)), "{line}\n{message}\nexpected: {expected}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_or_holds_nothing_is_refused() {
        for (text, expected) in [
            (&b""[..], "holds no sequence\nhint: one JSON object a line"),
            (b"\n \n", "holds no sequence"),
            (b"\xff\xfe{\0}\0", "line 1, column 1: expected value"),
        ] {
            let message = format!("{:#}", open(text, Loss::CrossEntropy).err().expect(expected));
            assert!(message.contains(expected), "{message}");
        }
        let message = format!("{:#}", File::open("nowhere.jsonl", Loss::Squared, None).err().expect("no file"));
        assert!(message.contains("cannot read data file `nowhere.jsonl`"), "{message}");
    }
}
