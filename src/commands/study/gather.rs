//! A study under torchrun: every rank trains its seeds without the others, and the one that leads gathers how they went.

use crate::display::say;
use crate::distributed::{Board, Group};
use crate::study::{Outcome, Study};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const BEAT: &str = "beat";
const OUTCOMES: &str = "outcomes";
/// How often the rank that leads looks for outcomes and signs of life.
const LOOK: Duration = Duration::from_millis(100);

/// How the seeds of one rank ended.
#[derive(Serialize, Deserialize)]
enum Ended {
    Outcomes(Vec<Outcome>),
    Stopped(i32),
}

pub enum Gathered {
    /// The outcomes of all seeds.
    All(Vec<Outcome>),
    /// The rank that leads has them.
    Elsewhere,
    Stopped(i32),
}

/// Trains the seeds of this rank, and all the while gives signs of life: a study may take hours in which no rank needs another.
pub fn beating<T>(group: &Group, train: impl FnOnce() -> T) -> T {
    let Some(board) = group.board().filter(|_| !group.leads()) else { return train() };
    let (done, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut beats = 0u64;
            while let Err(mpsc::RecvTimeoutError::Timeout) = ended.recv_timeout(board.timeout / 8) {
                beats += 1;
                let _ = board.post(BEAT, &beats.to_le_bytes()); // who leads may be gone; the seeds train on
            }
        });
        let trained = train();
        drop(done);
        trained
    })
}

/// The outcomes of all ranks, on the one that leads. Seeds of a rank that is lost have failed.
pub fn outcomes(
    group: &Group,
    study: &Study,
    ended: Result<Vec<Outcome>, i32>,
    stop: impl Fn() -> Option<i32>,
) -> Result<Gathered> {
    let own = match ended {
        Ok(outcomes) => Ended::Outcomes(outcomes),
        Err(signal) => Ended::Stopped(signal),
    };
    let mut ranks = vec![own];
    if let Some(board) = group.board() {
        if !group.leads() {
            let posted = board.post(OUTCOMES, &serde_json::to_vec(&ranks[0])?);
            posted.context("rank 0 has no summary of this rank's seeds, which are trained and saved")?;
            return Ok(match ranks[0] {
                Ended::Outcomes(_) => Gathered::Elsewhere,
                Ended::Stopped(signal) => Gathered::Stopped(signal),
            });
        }
        for rank in 1..group.size {
            ranks.push(await_rank(board, rank, study.dealt(rank, group.size), &stop)?);
        }
    }
    let mut all = vec![];
    let mut stopped = None;
    for ended in ranks {
        match ended {
            Ended::Outcomes(outcomes) => all.extend(outcomes),
            Ended::Stopped(signal) => stopped = Some(signal),
        }
    }
    Ok(stopped.map_or(Gathered::All(all), Gathered::Stopped))
}

/// How the seeds of another rank ended: as it posts it, or all failed if it is lost, or stopped if this rank is asked to stop
/// waiting.
fn await_rank(board: &Board, rank: usize, seeds: Vec<u64>, stop: impl Fn() -> Option<i32>) -> Result<Ended> {
    let (mut beat, mut alive) = (vec![], Instant::now());
    loop {
        if board.posted(OUTCOMES, rank)? {
            let ended = serde_json::from_slice(&board.read(OUTCOMES, rank)?);
            return ended.with_context(|| format!("the outcomes of rank {rank}"));
        }
        if let Some(signal) = stop() {
            return Ok(Ended::Stopped(signal));
        }
        let now = if board.posted(BEAT, rank)? { board.read(BEAT, rank)? } else { vec![] };
        if now != beat {
            (beat, alive) = (now, Instant::now());
        }
        if alive.elapsed() > board.timeout {
            break;
        }
        thread::sleep(LOOK);
    }
    say(&format!("rank {rank} has given no sign of life for {} s", board.timeout.as_secs()));
    let error = format!("rank {rank}, which trained it, was lost");
    let failed = |seed| Outcome { error: Some(error.clone()), ..Outcome::of(seed) };
    Ok(Ended::Outcomes(seeds.into_iter().map(failed).collect()))
}
