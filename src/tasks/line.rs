//! One line of a data file: what is expected where, and an error with its column.

use super::Loss;
use anyhow::{Result, bail};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::io::{BufRead, Read};

/// A sequence as it stands in a file.
#[derive(Debug, Default, PartialEq)]
pub struct Line {
    pub steps: usize,
    pub inputs: Vec<f32>,  // (T, X)
    pub targets: Vec<f32>, // (T, Y)
    pub mask: Vec<f32>,    // (T)
    /// X, Y
    pub widths: (usize, usize),
}

/// What is wrong with a line, and where.
#[derive(Debug)]
pub struct Wrong {
    pub column: usize,
    pub what: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "column {}: {}", self.column, self.what)
    }
}

impl Line {
    /// Reads a line whose widths, if they are known, must be these. `loss`: what the targets are for; none where the
    /// inputs alone are wanted, and what stands beside them is passed over.
    pub fn parse(text: &[u8], loss: Option<Loss>, widths: Option<(usize, usize)>) -> Result<Line, Wrong> {
        let mut json = serde_json::Deserializer::from_slice(text);
        let line = (&mut json).deserialize_any(Whole { loss, widths }).and_then(|line| json.end().map(|()| line));
        line.map_err(|error| {
            let what = error.to_string();
            let what = what.rsplit_once(" at line ").map_or(what.as_str(), |(what, _)| what);
            let column = error.column().max(1);
            Wrong { column, what: what.to_string() + cure(text, column) }
        })
    }
}

/// What to do about a line that is no JSON, where that is known.
fn cure(text: &[u8], column: usize) -> &'static str {
    let near = String::from_utf8_lossy(&text[column.saturating_sub(3).min(text.len())..(column + 8).min(text.len())]);
    if text.starts_with(&[0x1f, 0x8b]) {
        "\nhint: the file is compressed; run `gunzip` on it first"
    } else if near.contains("NaN") || near.contains("Infinity") {
        "\nhint: JSON has no such number; leave the sequence out, or put 0 there and 0 in `mask`"
    } else if ["{", "["].contains(&String::from_utf8_lossy(text).trim()) {
        "\nhint: an object stands on one line, not on several"
    } else {
        ""
    }
}

struct Whole {
    loss: Option<Loss>,
    widths: Option<(usize, usize)>,
}

impl<'de> Visitor<'de> for Whole {
    type Value = Line;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self.loss {
            Some(_) => "an object with `input`, `target` and perhaps `mask`",
            None => "an object with `input`",
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Line, A::Error> {
        let (mut input, mut target, mut mask) = (None, None, None);
        let binary = self.loss == Some(Loss::CrossEntropy);
        while let Some(key) = map.next_key::<String>()? {
            let repeated = match key.as_str() {
                "input" => {
                    let table = Table { key: "input", width: self.widths.map(|widths| widths.0), binary: false };
                    input.replace(map.next_value_seed(table)?).is_some()
                }
                "target" | "mask" if self.loss.is_none() => {
                    map.next_value::<IgnoredAny>()?;
                    false
                }
                "target" => {
                    let table = Table { key: "target", width: self.widths.map(|widths| widths.1), binary };
                    target.replace(map.next_value_seed(table)?).is_some()
                }
                "mask" => mask.replace(map.next_value_seed(Row { key: "mask", binary: true })?).is_some(),
                other => {
                    let message = format!("unknown key `{other}`, expected `input`, `target` or `mask`");
                    map.next_value::<IgnoredAny>()?;
                    return Err(A::Error::custom(message));
                }
            };
            if repeated {
                return Err(A::Error::custom(format!("`{key}` appears twice")));
            }
        }
        let missing = |key| A::Error::custom(format!("there is no `{key}`"));
        let input: Values = input.ok_or_else(|| missing("input"))?;
        if self.loss.is_none() {
            return Ok(Line { steps: input.steps, inputs: input.values, widths: (input.width, 0), ..Line::default() });
        }
        let target: Values = target.ok_or_else(|| missing("target"))?;
        let (steps, answers) = (input.steps, target.steps);
        if steps != answers {
            let message = format!("`input` has {steps} steps, `target` {answers}, expected as many");
            return Err(A::Error::custom(message));
        }
        let mask = mask.unwrap_or_else(|| vec![1.0; steps]);
        if mask.len() != steps {
            let message = format!("`mask` has {} values, expected one for each of the {steps} steps", mask.len());
            return Err(A::Error::custom(message));
        }
        if !mask.contains(&1.0) {
            return Err(A::Error::custom("`mask` is 0 at every step, expected a 1"));
        }
        let widths = (input.width, target.width);
        Ok(Line { steps, inputs: input.values, targets: target.values, mask, widths })
    }
}

/// T rows of one width.
struct Values {
    steps: usize,
    width: usize,
    values: Vec<f32>,
}

struct Table {
    key: &'static str,
    width: Option<usize>,
    binary: bool,
}

impl<'de> DeserializeSeed<'de> for Table {
    type Value = Values;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Values, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Table {
    type Value = Values;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "`{}` to be a list of steps, each a list of numbers", self.key)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<Values, A::Error> {
        let Table { key, mut width, binary } = self;
        let (mut steps, mut values) = (0, vec![]);
        while let Some(row) = rows.next_element_seed(Row { key, binary })? {
            let expected = *width.get_or_insert(row.len());
            if row.len() != expected {
                let values = if row.len() == 1 { "value" } else { "values" };
                let message = format!("step {steps} of `{key}` has {} {values}, expected {expected}", row.len());
                return Err(A::Error::custom(message));
            }
            if expected == 0 {
                return Err(A::Error::custom(format!("step {steps} of `{key}` is empty, expected numbers")));
            }
            steps += 1;
            values.extend(row);
        }
        match width {
            Some(width) if steps > 0 => Ok(Values { steps, width, values }),
            _ => Err(A::Error::custom(format!("`{key}` is empty, expected 1 step or more"))),
        }
    }
}

struct Row {
    key: &'static str,
    binary: bool,
}

impl<'de> DeserializeSeed<'de> for Row {
    type Value = Vec<f32>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<f32>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Row {
    type Value = Vec<f32>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let what = if self.key == "mask" { "`mask`" } else { "a step" };
        write!(f, "{what} to be a list of numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut row: A) -> Result<Vec<f32>, A::Error> {
        let mut values = vec![];
        while let Some(value) = row.next_element_seed(Value { key: self.key, binary: self.binary })? {
            values.push(value);
        }
        Ok(values)
    }
}

struct Value {
    key: &'static str,
    binary: bool,
}

impl<'de> DeserializeSeed<'de> for Value {
    type Value = f32;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<f32, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Value {
    type Value = f32;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<f32, E> {
        if self.binary && value != 0.0 && value != 1.0 {
            let why = if self.key == "target" { " (or `\"loss\": \"squared\"` in the recipe)" } else { "" };
            return Err(E::custom(format!("`{}` has a {value}, expected 0 or 1{why}", self.key)));
        }
        if value.abs() > f32::MAX as f64 {
            return Err(E::custom(format!("`{}` has {value:e}, expected a number that fits in 32 bits", self.key)));
        }
        Ok(value as f32)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<f32, E> {
        self.visit_f64(value as f64)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<f32, E> {
        self.visit_f64(value as f64)
    }
}

/// The bytes of the longest line that is read.
const LONGEST: u64 = 1 << 28;

/// Reads line `number`, with its end, in place of what `text` holds; nothing at the end of a file. An error where it is
/// so long that no sequence can be meant.
pub fn read_line(reader: &mut dyn BufRead, number: usize, text: &mut Vec<u8>) -> Result<usize> {
    text.clear();
    let read = reader.take(LONGEST).read_until(b'\n', text)?;
    if read as u64 == LONGEST && text.last() != Some(&b'\n') {
        bail!("line {number} is longer than {} MB", LONGEST >> 20);
    }
    Ok(read)
}

/// A line of a file, by its number from 1, without the byte order mark that some editors begin a file of UTF-8 with.
pub fn unmarked(line: &[u8], number: usize) -> &[u8] {
    line.strip_prefix(b"\xef\xbb\xbf").filter(|_| number == 1).unwrap_or(line)
}
