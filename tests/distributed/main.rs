//! Several processes that train together, started as torchrun starts them: by RANK, WORLD_SIZE, MASTER_ADDR and
//! MASTER_PORT.
#![allow(clippy::unwrap_used)] // helpers of tests are no tests to clippy

#[path = "../common/mod.rs"]
mod common;

mod faults;
mod namespaces;
mod same;
mod studies;
mod torchrun;

use common::{Ran, TINY, command};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A batch that four ranks share unevenly: 2, 2, 1 and 1 sequences. A rank waits for another 20 s, unless the flags
/// say.
pub fn train(flags: &str, run: &str) -> String {
    let timeout = if flags.contains("--peer-timeout") { "" } else { "--peer-timeout 20" };
    format!("train {TINY} --set training.batch_size=6 --run-dir {run} {flags} {timeout}")
}

/// A port where nobody listens.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub fn as_rank(mut command: Command, rank: usize, ranks: usize, port: u16) -> Command {
    command.envs([("RANK", rank.to_string()), ("WORLD_SIZE", ranks.to_string()), ("MASTER_PORT", port.to_string())]);
    command.env("MASTER_ADDR", "127.0.0.1").stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Starts a rank for each line.
pub fn start(directory: &Path, lines: &[String]) -> Vec<Child> {
    let port = free_port();
    let rank = |(rank, line): (usize, &String)| as_rank(command(directory, line), rank, lines.len(), port).spawn();
    lines.iter().enumerate().map(|line| rank(line).unwrap()).collect()
}

pub fn ended(ranks: Vec<Child>) -> Vec<Ran> {
    ranks.into_iter().map(|rank| Ran::new(rank.wait_with_output().unwrap())).collect()
}

/// So many ranks of the same line, all of which must succeed.
pub fn together(directory: &Path, ranks: usize, line: &str) -> Vec<Ran> {
    let all = ended(start(directory, &vec![line.to_string(); ranks]));
    for ran in &all {
        assert_eq!(ran.code, Some(0), "ntm {line}\n{}", ran.stderr);
    }
    all
}

/// Asserts that all have failed, and that each one's message has its part.
pub fn assert_failed(all: &[Ran], parts: &[&str]) {
    assert_eq!(all.len(), parts.len());
    for (rank, (ran, part)) in all.iter().zip(parts).enumerate() {
        println!("rank {rank}, exit code {:?}:\n{}", ran.code.unwrap(), ran.stderr);
        assert_eq!(ran.code, Some(1), "rank {rank}: {}", ran.stderr);
        assert!(ran.stderr.contains(&format!("error: rank {rank}: ")), "{}", ran.stderr);
        assert!(ran.stderr.contains(part), "rank {rank} does not say `{part}`:\n{}", ran.stderr);
    }
}
