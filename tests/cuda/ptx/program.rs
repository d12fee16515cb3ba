//! PTX, as NVRTC writes it for the kernels, decoded: the instructions that it has today, and an error for any other.

use super::operations::{Operation, operation};
use anyhow::{Context, Result, bail};
use std::collections::HashMap;
use std::ops::Range;

/// A register of a thread, by its place. Numbers in the text and symbols are registers, too, that nothing writes.
pub type Register = u16;

/// Where shared memory and the parameters, each in `PARAMETER` bytes, begin in their address spaces.
pub const SHARED: u64 = 1024;
pub const PARAMETER: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Space {
    Parameter,
    Shared,
    Global,
}

#[derive(Clone, Copy)]
pub enum Kind {
    /// to[0] <- operation(from)
    Compute(Operation),
    /// to[0..count] <- count values of `size` bytes at from[0] + offset
    Load(Space, usize, usize),
    /// count values of `size` bytes at from[0] + offset <- from[1..]
    Store(Space, usize, usize),
    /// So many bytes from global memory at from[1] to shared memory at from[0], later.
    Copy(usize),
    /// Until all copies of the thread have arrived.
    Arrived,
    /// to[0] <- from[0] of the lane whose number differs by from[1]; from[2..4] say that it is of all lanes. to[1] <- 1
    Shuffle,
    WarpBarrier,
    /// Of barrier from[0], for from[1] threads: 0 for all of the block.
    Barrier,
    Branch(usize),
    Return,
}

pub struct Instruction {
    pub kind: Kind,
    /// A predicate, and what it has to be.
    pub guard: Option<(Register, bool)>,
    pub to: [Register; 4],
    pub from: [Register; 5],
    pub offset: i64,
    /// File and line of the source.
    pub place: (usize, usize),
}

/// The registers that come first: 0, and what tells a thread where it is.
pub const FIRST: [&str; 5] = ["0", "%tid.x", "%ctaid.x", "%ntid.x", "%nctaid.x"];

/// A kernel.
pub struct Program {
    pub code: Vec<Instruction>,
    /// What registers are at the start, but for the `FIRST`.
    pub registers: Vec<u64>,
    files: HashMap<usize, String>,
}

impl Program {
    /// The kernel of a name.
    pub fn parse(text: &str, kernel: &str) -> Result<Program> {
        let begin = text.find(&format!(".entry {kernel}(")).with_context(|| format!("there is no {kernel}"))?;
        let (head, body) = text[begin..].split_once("\n{\n").context("a kernel has a body")?;
        let body = body.split_once("\n}\n").context("it ends")?.0;
        let mut names = Names::default();
        FIRST.iter().for_each(|name| _ = names.give(name, 0));
        names.give("shared_memory", SHARED);
        for (index, parameter) in head.lines().filter(|line| line.contains(".param")).enumerate() {
            let name = parameter.split(' ').next_back().and_then(|last| last.split('[').next());
            names.give(name.context("a parameter has a name")?, (index * PARAMETER) as u64);
        }
        let lines = body.lines().map(|line| line.split("//").next().unwrap_or_default().trim());
        let (mut place, mut code, mut labels) = ((0, 0), vec![], HashMap::new());
        let mut instructions = vec![];
        for line in lines.filter(|line| !line.is_empty()) {
            if let Some(loc) = line.strip_prefix(".loc") {
                let mut numbers = loc.split_whitespace().map_while(|number| number.parse().ok());
                place = numbers.next().zip(numbers.next()).context("file and line")?;
            } else if let Some(label) = line.strip_suffix(':') {
                labels.insert(label, instructions.len());
            } else if !line.starts_with('.') {
                instructions.push((line.trim_end_matches(';'), place));
            }
        }
        for (line, place) in instructions {
            code.push(names.instruction(line, place, &labels).with_context(|| format!("`{line}`"))?);
        }
        let file = |line: &str| {
            let (number, path) = line.trim().strip_prefix(".file")?.trim().split_once(' ')?;
            Some((number.parse().ok()?, path.trim_matches('"').rsplit('/').next()?.to_string()))
        };
        Ok(Program { code, registers: names.values, files: text.lines().filter_map(file).collect() })
    }

    /// Its barriers, by their places in the code.
    pub fn barriers(&self) -> impl Iterator<Item = usize> {
        let barrier = |at: &usize| matches!(self.code[*at].kind, Kind::Barrier | Kind::WarpBarrier);
        (0..self.code.len()).filter(barrier)
    }

    /// Where in the source an instruction comes from.
    pub fn place(&self, at: usize) -> String {
        let (file, line) = self.code[at].place;
        format!("{}:{line}", self.files.get(&file).map_or("?", |name| name))
    }
}

/// The registers by their names, and what each is at the start.
#[derive(Default)]
struct Names {
    places: HashMap<String, Register>,
    values: Vec<u64>,
}

impl Names {
    fn give(&mut self, name: &str, value: u64) -> Register {
        *self.places.entry(name.to_string()).or_insert_with(|| {
            self.values.push(value);
            Register::try_from(self.values.len() - 1).expect("no kernel has so many registers")
        })
    }

    fn operand(&mut self, text: &str) -> Result<Register> {
        if let Some(&place) = self.places.get(text) {
            return Ok(place);
        }
        if let Some(name) = text.strip_prefix('%') {
            let kind = name.trim_end_matches(|digit: char| digit.is_ascii_digit());
            if !["p", "r", "f", "rd", "rs"].contains(&kind) {
                bail!("a register of another kind");
            }
            return Ok(self.give(text, u64::MAX)); // NaN, if it is read before it is written
        }
        let hexadecimal = text.strip_prefix("0f").or(text.strip_prefix("0x"));
        let value = match hexadecimal {
            Some(bits) => u64::from_str_radix(bits.trim_end_matches('U'), 16)?,
            None => text.parse::<i64>().map(|number| number as u64).or_else(|_| text.parse())?,
        };
        Ok(self.give(text, value))
    }

    fn instruction(&mut self, line: &str, place: (usize, usize), labels: &HashMap<&str, usize>) -> Result<Instruction> {
        let (guard, line) = match line.strip_prefix('@') {
            Some(guarded) => {
                let (guard, rest) = guarded.split_once(char::is_whitespace).context("a guarded instruction")?;
                let name = guard.trim_start_matches('!');
                (Some((self.operand(name)?, name == guard)), rest.trim())
            }
            None => (None, line),
        };
        // the upper half of a register, as the compiler writes it
        let upper = line.strip_prefix("{ .reg .b32 tmp; mov.b64 {tmp, ").and_then(|rest| rest.split_once("}, "));
        let shifted = upper.map(|(to, from)| format!("shr.u64 {to}, {}, 32", from.trim_end_matches("; }")));
        let line = shifted.as_deref().unwrap_or(line);
        let (name, text) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let text = text.trim();
        let operands: Vec<&str> = text.split([',', '{', '}', '|']).map(str::trim).filter(|o| !o.is_empty()).collect();
        let (kind, to, from) = decode(name, text, &operands, labels)?;
        let mut made = Instruction { kind, guard, to: [0; 4], from: [0; 5], offset: 0, place };
        for (place, operand) in made.to.iter_mut().zip(&operands[to]) {
            *place = self.operand(operand)?;
        }
        for (place, operand) in made.from.iter_mut().zip(&operands[from]) {
            let operand = operand.trim_matches(['[', ']']);
            let (base, offset) = operand.split_once('+').unwrap_or((operand, "0"));
            *place = self.operand(base)?;
            made.offset += offset.parse::<i64>()?; // one operand is an address, or those of a copy, which have none
        }
        Ok(made)
    }
}

/// What an instruction is, and which of its operands it writes and reads.
fn decode(
    name: &str,
    text: &str,
    operands: &[&str],
    labels: &HashMap<&str, usize>,
) -> Result<(Kind, Range<usize>, Range<usize>)> {
    let (parts, all): (Vec<&str>, usize) = (name.split('.').collect(), operands.len());
    let space = || match parts[1] {
        "param" => Ok(Space::Parameter),
        "shared" => Ok(Space::Shared),
        "global" => Ok(Space::Global),
        other => bail!("memory of another kind, {other}"),
    };
    let count = parts.iter().find_map(|part| part.strip_prefix('v')?.parse().ok()).unwrap_or(1);
    let size = || match parts.last().map(|last| &last[1..]) {
        Some("32") => Ok(4),
        Some("64") => Ok(8),
        _ => bail!("values of another size"),
    };
    Ok(match parts[..] {
        ["ld", ..] => (Kind::Load(space()?, size()?, count), 0..count, count..all),
        ["st", ..] => (Kind::Store(space()?, size()?, count), 0..0, 0..all),
        ["bra", ..] => (Kind::Branch(*labels.get(operands[0]).context("a label")?), 0..0, 0..0),
        ["ret"] => (Kind::Return, 0..0, 0..0),
        ["bar", "sync"] => (Kind::Barrier, 0..0, 0..all),
        ["bar", "warp", "sync"] => (Kind::WarpBarrier, 0..0, 0..all),
        ["shfl", "sync", "bfly", "b32"] => (Kind::Shuffle, 0..2, 2..all),
        ["cp", "async", "wait_all"] => (Kind::Arrived, 0..0, 0..0),
        ["cp", "async", _, "shared", "global"] if !text.contains('+') => (Kind::Copy(operands[2].parse()?), 0..0, 0..2),
        _ => {
            let name = match text.find('{').filter(|_| parts[0] == "mov") {
                None => name.to_string(),
                Some(0) => format!("{name} apart"),
                Some(_) => format!("{name} together"),
            };
            (Kind::Compute(operation(&name).context("an instruction that is not known here")?), 0..1, 1..all)
        }
    })
}
