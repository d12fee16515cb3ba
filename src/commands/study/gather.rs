//! A study under torchrun: every rank trains its seeds without the others, and the one that leads gathers how they
//! went.

use crate::distributed::{Board, Group};
use crate::study::{Outcome, Study};
use crate::terminal::say;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const BEAT: &str = "beat";
const OUTCOMES: &str = "outcomes";
/// How often a rank gives a sign of life and looks whether all are to stop, and the rank that leads looks for outcomes.
const LOOK: Duration = Duration::from_millis(500);

/// How long a rank may take to answer that it has stopped.
const ANSWER: Duration = Duration::from_secs(10);

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

/// Does this rank's work, and all the while gives signs of life and passes on what asks one rank to stop: a study may
/// take hours in which no rank needs another. The work sees the signal that stops all.
pub fn beating<T>(
    group: &Group,
    stop: impl Fn() -> Option<i32> + Sync,
    work: impl FnOnce(&(dyn Fn() -> Option<i32> + Sync)) -> T,
) -> T {
    let Some(board) = group.board() else { return work(&stop) };
    let (done, ended) = mpsc::channel::<()>();
    let passed_on = AtomicI32::new(0);
    thread::scope(|scope| {
        let (stop, passed_on) = (&stop, &passed_on);
        scope.spawn(move || {
            let mut beats = 0u64;
            let mut working = true;
            while working {
                working = ended.recv_timeout(LOOK.min(board.timeout / 8)) == Err(mpsc::RecvTimeoutError::Timeout);
                beats += 1;
                // who leads may be gone; the seeds train on
                let _ = board.post(BEAT, &beats.to_le_bytes());
                let _ = board.stop(stop()).map(|signal| passed_on.store(signal.unwrap_or(0), Ordering::Relaxed));
            }
        });
        let all_stop = || stop().or(Some(passed_on.load(Ordering::Relaxed)).filter(|&signal| signal != 0));
        let worked = work(&all_stop);
        drop(done);
        worked
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

/// How the seeds of another rank ended: as it posts it, or all failed if it is lost. One that has not answered soon
/// after all were asked to stop counts as stopped.
fn await_rank(board: &Board, rank: usize, seeds: Vec<u64>, stop: impl Fn() -> Option<i32>) -> Result<Ended> {
    let (mut beat, mut alive, mut asked) = (vec![], Instant::now(), None);
    loop {
        if board.posted(OUTCOMES, rank)? {
            let ended = serde_json::from_slice(&board.read(OUTCOMES, rank)?);
            return ended.with_context(|| format!("the outcomes of rank {rank}"));
        }
        if let Some(signal) = stop()
            && asked.get_or_insert_with(Instant::now).elapsed() > ANSWER
        {
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
