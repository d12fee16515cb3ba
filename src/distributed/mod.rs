//! Several processes that train together, as torch.distributed has them: a job has K ranks, a process each, which find each
//! other by the environment that torchrun sets. Rank 0 leads: it writes, and says what there is to say.

mod board;
mod place;

pub use board::Board;
pub use place::{Place, launched};

use crate::shim::{Nccl, ProcessGroup};
use crate::terminal::say;
use anyhow::{Context, Error, Result, bail};
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;
use tch::{Device, Kind, Tensor};

/// The signals that ask a run to stop.
pub const STOPS: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

/// The ranks of a job. One process alone is a group too, for which every call here changes nothing.
pub struct Group {
    pub rank: usize,
    /// K, the number of ranks.
    pub size: usize,
    joined: Option<Joined>,
}

struct Joined {
    gloo: ProcessGroup,
    /// Where all ranks train on cards.
    nccl: Option<ProcessGroup>,
    board: Board,
}

/// The others cannot be reached any more.
#[derive(Debug)]
pub struct Lost(String);

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Lost {}

fn lost(error: &Error) -> Error {
    Lost(format!("lost touch with the other ranks: {}", plain(error))).into()
}

/// What c10d says, without the places in its sources.
fn plain(error: &Error) -> String {
    let text = error.to_string();
    let mut line = text.lines().next().unwrap_or_default().to_string();
    while let Some((before, after)) = line.split_once("[/") {
        let Some((_, words)) = after.split_once("] ") else { break };
        line = format!("{before}{words}");
    }
    line.trim_end_matches('.').to_string()
}

/// What a step has come to on all ranks together.
#[derive(Clone, Copy)]
pub struct Step {
    /// Not finite if the loss of any rank is not; of no other use.
    pub loss: f64,
    /// The signal that asked a rank to stop, the first of `STOPS` if several did.
    pub stopped: Option<i32>,
}

impl Group {
    /// A process of its own.
    pub fn alone() -> Group {
        Group { rank: 0, size: 1, joined: None }
    }

    /// Waits until all ranks of the job are there, at most `timeout`, which holds for every later wait too.
    pub fn join(place: &Place, timeout: Duration) -> Result<Group> {
        Group::join_as(env!("CARGO_PKG_VERSION"), place, timeout)
    }

    fn join_as(version: &str, place: &Place, timeout: Duration) -> Result<Group> {
        let Place { rank, size, .. } = *place;
        let board = Board::open(place, timeout)?;
        let versions = board.exchange("version", version.as_bytes())?;
        if let Some(other) = (1..size).find(|&other| versions[other] != versions[0]) {
            board.last_words("version");
            let [first, second] = [0, other].map(|rank| String::from_utf8_lossy(&versions[rank]).into_owned());
            bail!("rank 0 is ntm {first}, rank {other} is ntm {second}\nhint: the same binary everywhere");
        }
        let interfaces = std::env::var("GLOO_SOCKET_IFNAME").unwrap_or_default();
        let gloo =
            ProcessGroup::gloo(&board.store, &board.prefix, (rank, size), &interfaces, &place.own_address()?, timeout)
                .map_err(|error| lost(&error))?;
        Ok(Group { rank, size, joined: Some(Joined { gloo, nccl: None, board }) })
    }

    /// From now on steps are summed on the cards that the ranks train on, by NCCL; through the host where it fails on some rank.
    pub fn use_cards(&mut self, card: Device) -> Result<()> {
        let Some(Joined { nccl, board, .. }) = &mut self.joined else { return Ok(()) };
        let library = Nccl::load();
        // first what a rank knows by itself: those that have NCCL would wait for those that have not
        let mut failure = first_failure(board, "nccl here", &library)?;
        if failure.is_none() {
            let tried = library.and_then(|library| {
                let group = library.group(&board.store, &board.prefix, (self.rank, self.size), board.timeout)?;
                group.sum(&mut Tensor::ones([1], (Kind::Float, card)))?; // connects the cards
                Ok(group)
            });
            failure = first_failure(board, "nccl", &tried)?;
            *nccl = tried.ok().filter(|_| failure.is_none());
        }
        if let Some(why) = failure {
            self.say(&format!("gradients are summed on the host, not by NCCL: {why}"));
        }
        Ok(())
    }

    pub fn leads(&self) -> bool {
        self.rank == 0
    }

    pub fn is_alone(&self) -> bool {
        self.joined.is_none()
    }

    /// None for a process alone.
    pub fn board(&self) -> Option<&Board> {
        self.joined.as_ref().map(|joined| &joined.board)
    }

    /// Words of the rank that leads.
    pub fn say(&self, text: &str) {
        if self.leads() {
            say(text);
        }
    }

    /// What each rank has come to, which all must describe alike; else all end with an error that says who differs in what, or
    /// what failed where. `about`: a name of its own for each agreement.
    pub fn agree<T>(&self, about: &str, come_to: Result<T>, describe: impl Fn(&T) -> Value) -> Result<T> {
        let Some(Joined { board, .. }) = &self.joined else { return come_to };
        let own = match &come_to {
            Ok(value) => json!({ "value": describe(value) }),
            Err(error) => json!({ "failed": format!("{error:#}") }),
        };
        let said = board.exchange(about, own.to_string().as_bytes());
        let agreed = come_to.and_then(|value| {
            for (rank, text) in said?.iter().enumerate() {
                let said: Value = serde_json::from_slice(text).context("from a rank")?;
                if let Some(failed) = said["failed"].as_str() {
                    bail!("rank {rank} failed: {failed}");
                }
                if let Some((path, here, there)) = first_difference("", &own["value"], &said["value"]) {
                    bail!(
                        "the ranks differ in `{path}`: {here} here, {there} on rank {rank}\n\
                         hint: give all ranks the same command line and files"
                    );
                }
            }
            Ok(value)
        });
        agreed.inspect_err(|_| board.last_words(about))
    }

    /// What the rank that leads makes; if it fails there, it fails everywhere.
    pub fn lead<T>(&self, make: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
        let mut made = None;
        self.share(|| {
            made = Some(make()?);
            Ok(vec![])
        })?;
        Ok(made)
    }

    /// How something went that the rank that leads has done; no rank goes on before it is done. The others say that all is well.
    pub fn led(&self, done: Result<()>) -> Result<()> {
        self.lead(|| done).map(|_| ())
    }

    /// What the rank that leads finds.
    pub fn finds(&self, find: impl FnOnce() -> Result<bool>) -> Result<bool> {
        Ok(self.share(|| Ok(vec![find()? as u8]))? == [1])
    }

    /// Of the rank that leads: notes that this job has a directory for its own.
    pub fn claim(&self, directory: &Path) -> Result<()> {
        self.board().map_or(Ok(()), |board| board.claim(directory))
    }

    /// Of the rank that leads: whether torchrun has started this job again, and the directory was its own before. Of a process
    /// alone nobody knows the latter, and it is taken for granted.
    pub fn goes_on_with(&self, directory: &Path) -> Result<bool> {
        Ok(place::restarted() && self.board().map_or(Ok(true), |board| board.has_claimed(directory))?)
    }

    /// What rank 0 makes, on all ranks. If it fails there, it fails on all.
    pub fn share(&self, make: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
        let Some(Joined { gloo, .. }) = &self.joined else { return make() };
        let made = if self.leads() { make() } else { Ok(vec![]) };
        let (failed, mut bytes) = match &made {
            Ok(bytes) => (0, bytes.clone()),
            Err(error) => (1, format!("{error:#}").into_bytes()),
        };
        let mut head = Tensor::from_slice(&[failed, bytes.len() as i64]);
        let mut tell = || -> Result<Vec<u8>> {
            gloo.broadcast(&mut head)?;
            bytes.resize(head.int64_value(&[1]) as usize, 0);
            if bytes.is_empty() {
                return Ok(vec![]);
            }
            let mut all = Tensor::from_slice(&bytes);
            gloo.broadcast(&mut all)?;
            Ok(Vec::try_from(all)?)
        };
        let told = tell();
        made?; // first: the others may have gone at once over it, which is not what went wrong
        let bytes = told.map_err(|error| lost(&error))?;
        match head.int64_value(&[0]) {
            0 => Ok(bytes),
            _ => bail!("rank 0 failed: {}", String::from_utf8_lossy(&bytes)),
        }
    }

    /// The sequences of a batch that are this rank's: as even as can be, the first ranks one more.
    pub fn slice(&self, batch: usize) -> Range<usize> {
        let start = |rank: usize| rank * (batch / self.size) + rank.min(batch % self.size);
        start(self.rank)..start(self.rank + 1)
    }

    /// The one all-reduce of a step: each rank's gradient of the mean over its slice becomes that of the mean over the
    /// batch, of which the slice is `part`; `loss` is a scalar of the rank, `stop` the signal that asks it to stop. On cards
    /// NCCL does it, once `use_cards` has been called; else a gradient on a card goes through the host, where Gloo's network is.
    pub fn step(&self, gradient: &mut Tensor, part: f64, loss: &Tensor, stop: Option<i32>) -> Result<Step> {
        let Some(Joined { gloo, nccl, .. }) = &self.joined else { bail!("a process alone has nothing to reduce") };
        let (by, device) = match nccl {
            Some(nccl) => (nccl, gradient.device()),
            None => (gloo, Device::Cpu),
        };
        let size = gradient.numel() as i64;
        let there = |tensor: &Tensor| tensor.to_device(device).to_kind(Kind::Float);
        let asked = Tensor::from_slice(&STOPS.map(|signal| (stop == Some(signal)) as u8 as f32));
        let mut all = Tensor::f_cat(&[&there(&(&*gradient * part)), &there(&loss.reshape([1])), &there(&asked)], 0)?;
        by.sum(&mut all).map_err(|error| lost(&error))?;
        gradient.copy_(&all.narrow(0, 0, size));
        let beside: Vec<f64> = Vec::try_from(all.slice(0, size, None, 1).to_kind(Kind::Double))?;
        let asked = STOPS.into_iter().zip(&beside[1..]).find(|(_, ranks)| **ranks > 0.0);
        Ok(Step { loss: beside[0], stopped: asked.map(|(signal, _)| signal) })
    }

    /// Makes each row the sum of that row on all ranks, the values that a rank has none of being 0. All have as many rows.
    pub fn sum(&self, rows: &mut [Vec<f64>]) -> Result<()> {
        let Some(Joined { gloo, .. }) = &self.joined else { return Ok(()) };
        if rows.is_empty() {
            return Ok(());
        }
        let mut lengths = Tensor::from_slice(&rows.iter().map(|row| row.len() as i64).collect::<Vec<_>>());
        gloo.largest(&mut lengths).map_err(|error| lost(&error))?;
        let lengths: Vec<i64> = Vec::try_from(lengths).context("lengths of all ranks")?;
        rows.iter_mut().zip(&lengths).for_each(|(row, &length)| row.resize(length as usize, 0.0));
        let mut all = Tensor::from_slice(&rows.concat());
        if all.numel() > 0 {
            gloo.sum(&mut all).map_err(|error| lost(&error))?;
        }
        let sums: Vec<f64> = Vec::try_from(all).context("sums of all ranks")?;
        let mut sums = sums.into_iter();
        rows.iter_mut().flatten().zip(&mut sums).for_each(|(value, sum)| *value = sum);
        Ok(())
    }
}

/// What has failed on the first of the ranks on which it did.
fn first_failure<T>(board: &Board, about: &str, come_to: &Result<T>) -> Result<Option<String>> {
    let failed = come_to.as_ref().err().map(plain).unwrap_or_default();
    let said = board.exchange(about, failed.as_bytes())?;
    let first = said.iter().enumerate().find(|(_, failed)| !failed.is_empty());
    Ok(first.map(|(rank, failed)| format!("rank {rank}: {}", String::from_utf8_lossy(failed))))
}

/// The first place where two values differ, and what they have there.
fn first_difference(path: &str, first: &Value, other: &Value) -> Option<(String, String, String)> {
    let nothing = Value::Null;
    match (first, other) {
        (Value::Object(left), Value::Object(right)) => {
            let keys = left.keys().chain(right.keys().filter(|key| !left.contains_key(*key)));
            keys.into_iter().find_map(|key| {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                first_difference(&path, left.get(key).unwrap_or(&nothing), right.get(key).unwrap_or(&nothing))
            })
        }
        _ if first == other => None,
        _ => Some((path.to_string(), first.to_string(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    /// What each of so many ranks comes to, in threads of this process.
    fn ranks<T: Send>(size: usize, run: impl Fn(Place) -> T + Sync) -> Vec<T> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = "127.0.0.1".to_string();
        let place = |rank| Place {
            rank,
            size,
            local_rank: 0,
            local_size: 1,
            host: host.clone(),
            port,
            agent: false,
            attempt: 0,
        };
        thread::scope(|scope| {
            let run = &run;
            let started: Vec<_> = (0..size).map(place).map(|place| scope.spawn(move || run(place))).collect();
            started.into_iter().map(|rank| rank.join().unwrap()).collect()
        })
    }

    fn joined(place: &Place) -> Group {
        Group::join(place, Duration::from_secs(20)).unwrap()
    }

    #[test]
    fn ranks_of_other_versions_are_refused_by_all() {
        let messages = ranks(3, |place| {
            let version = if place.rank == 2 { "9.9.9" } else { "0.1.0" };
            Group::join_as(version, &place, Duration::from_secs(20)).err().unwrap().to_string()
        });
        for message in messages {
            assert_eq!(message, "rank 0 is ntm 0.1.0, rank 2 is ntm 9.9.9\nhint: the same binary everywhere");
        }
    }

    #[test]
    fn a_step_makes_gradients_of_slices_that_of_the_batch_and_tells_all_who_was_asked_to_stop() {
        let steps = ranks(3, |place| {
            let group = joined(&place);
            let part = group.slice(4).len() as f64 / 4.0;
            let mut gradient = Tensor::from_slice(&[1.0 + place.rank as f32, 8.0]);
            let stop = [None, Some(SIGTERM), Some(SIGINT)][place.rank];
            let step = group.step(&mut gradient, part, &Tensor::from(2.5f32), stop).unwrap();
            let gradient: Vec<f32> = Vec::try_from(&gradient).unwrap();
            let quiet =
                group.step(&mut Tensor::zeros([1], (Kind::Float, Device::Cpu)), part, &Tensor::from(0f32), None);
            (gradient, step.loss, step.stopped, quiet.unwrap().stopped)
        });
        for step in steps {
            assert_eq!(step, (vec![0.5 * 1.0 + 0.25 * 2.0 + 0.25 * 3.0, 8.0], 7.5, Some(SIGINT), None));
        }
    }

    #[test]
    fn rows_of_different_lengths_are_summed_and_bytes_and_errors_of_rank_0_come_to_all() {
        let all = ranks(3, |place| {
            let group = joined(&place);
            let mut rows = vec![vec![1.0; place.rank + 1], vec![], vec![place.rank as f64]];
            group.sum(&mut rows).unwrap();
            let shared = group.share(|| Ok(vec![place.rank as u8; 5])).unwrap();
            let nothing = group.share(|| Ok(vec![])).unwrap();
            let failed = group.share(|| bail!("a full disk")).unwrap_err().to_string();
            (rows, shared, nothing, failed)
        });
        for (rank, (rows, shared, nothing, failed)) in all.into_iter().enumerate() {
            assert_eq!(rows, [vec![3.0, 2.0, 1.0], vec![], vec![3.0]]);
            assert_eq!((shared, nothing), (vec![0; 5], vec![]));
            assert_eq!(failed, if rank == 0 { "a full disk" } else { "rank 0 failed: a full disk" });
        }
    }

    #[test]
    fn slices_cover_a_batch_once_and_as_evenly_as_can_be() {
        for (size, batch) in [(1, 5), (3, 3), (4, 6), (5, 64)] {
            let slices: Vec<_> = (0..size).map(|rank| Group { rank, size, joined: None }.slice(batch)).collect();
            assert_eq!(slices.iter().cloned().flatten().collect::<Vec<_>>(), (0..batch).collect::<Vec<_>>());
            assert!(slices.iter().all(|slice| slice.len() == batch / size || slice.len() == batch / size + 1));
        }
    }

    #[test]
    fn places_in_libtorchs_sources_are_taken_out_of_its_messages() {
        let said = "Gloo failed with [/pytorch/gloo/pair.cc:152] timed out: refused, remote=[127.0.0.1]:3.\nmore";
        assert_eq!(plain(&anyhow::anyhow!(said)), "Gloo failed with timed out: refused, remote=[127.0.0.1]:3");
    }
}
