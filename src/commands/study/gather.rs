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
    let own = match (group.board(), ended) {
        (None, Ok(outcomes)) => return Ok(Gathered::All(outcomes)),
        (None, Err(signal)) => return Ok(Gathered::Stopped(signal)),
        (Some(_), Ok(outcomes)) => Ended::Outcomes(outcomes),
        (Some(_), Err(signal)) => Ended::Stopped(signal),
    };
    let board = group.board().context("a group of several has a board")?;
    if !group.leads() {
        let posted = board.post(OUTCOMES, &serde_json::to_vec(&own)?);
        posted.context("rank 0 has no summary of this rank's seeds, which are trained and saved")?;
        return Ok(match own {
            Ended::Outcomes(_) => Gathered::Elsewhere,
            Ended::Stopped(signal) => Gathered::Stopped(signal),
        });
    }
    let mut all = vec![];
    let mut stopped = None;
    for rank in 0..group.size {
        let ended = match rank {
            0 => None,
            _ => match await_rank(board, rank, &stop)? {
                Awaited::Ended(ended) => Some(ended),
                Awaited::Lost => {
                    let (seconds, mine) = (board.timeout.as_secs(), study.dealt(rank, group.size));
                    say(&format!("rank {rank} has given no sign of life for {seconds} s"));
                    let error = || Some(format!("rank {rank}, which trained it, was lost"));
                    Some(Ended::Outcomes(
                        mine.into_iter().map(|seed| Outcome { error: error(), ..Outcome::of(seed) }).collect(),
                    ))
                }
                Awaited::Asked(signal) => Some(Ended::Stopped(signal)),
            },
        };
        match ended.as_ref().unwrap_or(&own) {
            Ended::Outcomes(outcomes) => all.extend(outcomes.iter().cloned()),
            Ended::Stopped(signal) => stopped = Some(*signal),
        }
    }
    Ok(stopped.map_or(Gathered::All(all), Gathered::Stopped))
}

enum Awaited {
    Ended(Ended),
    Lost,
    /// This rank was asked to stop waiting.
    Asked(i32),
}

fn await_rank(board: &Board, rank: usize, stop: impl Fn() -> Option<i32>) -> Result<Awaited> {
    let (mut beat, mut alive) = (vec![], Instant::now());
    loop {
        if board.posted(OUTCOMES, rank)? {
            let ended = serde_json::from_slice(&board.read(OUTCOMES, rank)?);
            return Ok(Awaited::Ended(ended.with_context(|| format!("the outcomes of rank {rank}"))?));
        }
        if let Some(signal) = stop() {
            return Ok(Awaited::Asked(signal));
        }
        let now = if board.posted(BEAT, rank)? { board.read(BEAT, rank)? } else { vec![] };
        if now != beat {
            (beat, alive) = (now, Instant::now());
        }
        if alive.elapsed() > board.timeout {
            return Ok(Awaited::Lost);
        }
        thread::sleep(LOOK);
    }
}
