//! The job's store, as a board on which every rank posts and reads.

use super::Place;
use super::lost::{lost, plain};
use crate::shim::Store;
use anyhow::{Result, anyhow, bail};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often a rank looks whether another has posted.
const LOOK: Duration = Duration::from_millis(20);
/// How long rank 0, with which the board goes, waits for the others to read why the job ends.
const LAST_WORDS: Duration = Duration::from_secs(10);

pub struct Board {
    pub store: Store,
    /// What the keys of this attempt start with.
    pub prefix: String,
    rank: usize,
    size: usize,
    /// The longest wait for another rank.
    pub timeout: Duration,
}

impl Board {
    /// Serves the board, or finds it.
    pub fn open(place: &Place, timeout: Duration) -> Result<Board> {
        let Place { rank, size, host, port, agent, .. } = place;
        let at = format!("{host}:{port} (MASTER_ADDR:MASTER_PORT)");
        let serves = *rank == 0 && !agent;
        let store = Store::open(host, *port, serves, timeout).map_err(|error| {
            if serves {
                anyhow!("cannot serve the ranks at {at}: {}\nhint: another port in MASTER_PORT", plain(&error))
            } else {
                anyhow!(
                    "nobody answers at {at} within {} s\n\
                     hint: is rank 0 running, and can this machine reach it? --peer-timeout waits longer",
                    timeout.as_secs()
                )
            }
        })?;
        let prefix = format!("ntm/attempt-{}", place.attempt);
        Ok(Board { store, prefix, rank: *rank, size: *size, timeout })
    }

    fn key(&self, key: &str, rank: usize) -> String {
        format!("{}/{key}/{rank}", self.prefix)
    }

    /// Notes that this job has a directory for its own: a later attempt of it may go on with what is there.
    pub fn claim(&self, directory: &Path) -> Result<()> {
        self.store.set(&claimed(directory), b"").map_err(|error| lost(&error))
    }

    /// Whether this job, in this attempt or an earlier one, has claimed a directory. torchrun's store lives as long as
    /// the job.
    pub fn has_claimed(&self, directory: &Path) -> Result<bool> {
        self.store.has(&[claimed(directory)]).map_err(|error| lost(&error))
    }

    /// Asks all ranks of this attempt to stop, if this one was; the signal that some rank was asked by.
    pub fn stop(&self, asked: Option<i32>) -> Result<Option<i32>> {
        let key = format!("{}/stop", self.prefix);
        let told = || -> Result<Option<i32>> {
            if let Some(signal) = asked {
                self.store.set(&key, &signal.to_le_bytes())?;
            } else if !self.store.has(std::slice::from_ref(&key))? {
                return Ok(None);
            }
            let signal = self.store.get(&key)?.try_into().map_err(|_| anyhow!("no signal in the store"))?;
            Ok(Some(i32::from_le_bytes(signal)))
        };
        told().map_err(|error| lost(&error))
    }

    /// Returns when the value is there: nothing answers a `set`, which succeeds for a moment after the store has gone.
    pub fn post(&self, key: &str, value: &[u8]) -> Result<()> {
        self.store.set(&self.key(key, self.rank), value).map_err(|error| lost(&error))?;
        self.posted(key, self.rank).map(|_| ())
    }

    pub fn posted(&self, key: &str, rank: usize) -> Result<bool> {
        self.all_posted(key, &[rank])
    }

    fn all_posted(&self, key: &str, ranks: &[usize]) -> Result<bool> {
        let keys: Vec<String> = ranks.iter().map(|&rank| self.key(key, rank)).collect();
        self.store.has(&keys).map_err(|error| lost(&error))
    }

    pub fn read(&self, key: &str, rank: usize) -> Result<Vec<u8>> {
        self.store.get(&self.key(key, rank)).map_err(|error| lost(&error))
    }

    /// Waits until all of these ranks have posted under a key; those that have not within `time`, or by the time that
    /// rank 0 gave them up.
    fn missing(&self, key: &str, ranks: &[usize], time: Duration) -> Result<Vec<usize>> {
        let deadline = Instant::now() + time;
        while !self.all_posted(key, ranks)? {
            if Instant::now() > deadline || self.rank != 0 && self.posted(&given_up(key), 0)? {
                let mut missing = vec![];
                for &rank in ranks {
                    if !self.posted(key, rank)? {
                        missing.push(rank);
                    }
                }
                return Ok(missing);
            }
            std::thread::sleep(LOOK);
        }
        Ok(vec![])
    }

    /// Posts, and reads what all ranks have posted under the key, in their order.
    pub fn exchange(&self, key: &str, value: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.post(key, value)?;
        let all: Vec<usize> = (0..self.size).collect();
        let missing = self.missing(key, &all, self.timeout)?;
        let values =
            if missing.is_empty() { all.iter().map(|&rank| self.read(key, rank)).collect() } else { Ok(vec![]) };
        let _ = self.post(&read(key), b""); // rank 0 may end, and the store with it, as soon as it sees this
        if missing.is_empty() {
            return values;
        }
        if self.rank == 0 {
            self.post(&given_up(key), b"")?;
            let here: Vec<usize> = all.into_iter().filter(|rank| !missing.contains(rank)).collect();
            let _ = self.missing(&read(key), &here, LAST_WORDS);
        }
        let names: Vec<String> = missing.iter().map(usize::to_string).collect();
        bail!(
            "{} of {} ranks came within {} s, missing: {}\n\
             hint: start all WORLD_SIZE of them; --peer-timeout waits longer",
            self.size - missing.len(),
            self.size,
            self.timeout.as_secs(),
            names.join(", ")
        );
    }

    /// Before this process ends over what was exchanged: waits until the others know it too.
    pub fn last_words(&self, key: &str) {
        if self.rank == 0 {
            let all: Vec<usize> = (0..self.size).collect();
            let _ = self.missing(&read(key), &all, LAST_WORDS); // the job ends anyhow
        }
    }
}

fn claimed(directory: &Path) -> String {
    format!("ntm/claimed/{}", directory.display())
}

/// Where a rank says that it has read what was posted under a key.
fn read(key: &str) -> String {
    format!("{key}-read")
}

/// Where rank 0 says that it waits no longer.
fn given_up(key: &str) -> String {
    format!("{key}-given-up")
}
