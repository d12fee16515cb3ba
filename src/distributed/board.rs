//! The job's store, as a board on which every rank posts and reads.

use super::{Place, lost, plain};
use crate::shim::Store;
use anyhow::{Result, anyhow, bail};
use std::time::{Duration, Instant};

/// How often a rank looks whether another has posted.
const LOOK: Duration = Duration::from_millis(20);
/// How long rank 0, with which the board goes, waits for the others to read why the job ends.
const LAST_WORDS: Duration = Duration::from_secs(10);

pub struct Board {
    pub store: Store,
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
        let store = Store::open(host, *port, serves, timeout).map_err(|error| match serves {
            true => anyhow!("cannot serve the ranks at {at}: {}\nhint: another port in MASTER_PORT", plain(&error)),
            false => anyhow!(
                "nobody answers at {at} within {} s\n\
                 hint: is rank 0 running, and can this machine reach it? --peer-timeout waits longer",
                timeout.as_secs()
            ),
        })?;
        Ok(Board { store, rank: *rank, size: *size, timeout })
    }

    pub fn post(&self, key: &str, value: &[u8]) -> Result<()> {
        self.store.set(&format!("{key}/{}", self.rank), value).map_err(|error| lost(&error))
    }

    pub fn posted(&self, key: &str, rank: usize) -> Result<bool> {
        self.store.has(&format!("{key}/{rank}")).map_err(|error| lost(&error))
    }

    pub fn read(&self, key: &str, rank: usize) -> Result<Vec<u8>> {
        self.store.get(&format!("{key}/{rank}")).map_err(|error| lost(&error))
    }

    /// Waits until all have posted under a key; the ranks that have not within `time`.
    fn missing(&self, key: &str, time: Duration) -> Result<Vec<usize>> {
        let deadline = Instant::now() + time;
        let mut missing: Vec<usize> = (0..self.size).collect();
        loop {
            let mut left = vec![];
            for rank in missing {
                if !self.posted(key, rank)? {
                    left.push(rank);
                }
            }
            if left.is_empty() || Instant::now() > deadline {
                return Ok(left);
            }
            missing = left;
            std::thread::sleep(LOOK);
        }
    }

    /// Posts, and reads what all ranks have posted under the key, in their order.
    pub fn exchange(&self, key: &str, value: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.post(key, value)?;
        let missing = self.missing(key, self.timeout)?;
        if !missing.is_empty() {
            let (here, seconds) = (self.size - missing.len(), self.timeout.as_secs());
            let names: Vec<String> = missing.iter().map(usize::to_string).collect();
            bail!(
                "{here} of {} ranks came within {seconds} s, missing: {}\n\
                 hint: start all WORLD_SIZE of them; --peer-timeout waits longer",
                self.size,
                names.join(", ")
            );
        }
        let values = (0..self.size).map(|rank| self.read(key, rank)).collect::<Result<_>>()?;
        self.post(&format!("{key}-read"), b"")?;
        Ok(values)
    }

    /// Before this process ends over what was exchanged: waits until the others know it too.
    pub fn last_words(&self, key: &str) {
        if self.rank == 0 {
            let _ = self.missing(&format!("{key}-read"), LAST_WORDS); // the job ends anyhow
        }
    }
}
