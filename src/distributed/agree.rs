//! What ranks decide together: all alike, or as the one that leads has it.

use super::Board;
use super::group::{Group, Joined};
use super::lost::{lost, plain};
use crate::json::{Difference, first_difference};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tch::Tensor;

impl Group {
    /// What each rank has come to, which all must describe alike; else all end with an error that says who differs in
    /// what, or what failed where. `about`: a name of its own for each agreement.
    pub fn agree<T>(&self, about: &str, come_to: Result<T>, describe: impl Fn(&T) -> Value) -> Result<T> {
        match &self.joined {
            Some(Joined { board, .. }) => agree(board, about, come_to, describe),
            None => come_to,
        }
    }

    /// What the rank that leads makes; if it fails there, it fails everywhere.
    pub fn on_leader<T>(&self, make: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
        let mut made = None;
        self.share(|| {
            made = Some(make()?);
            Ok(vec![])
        })?;
        Ok(made)
    }

    /// How something went that the rank that leads has done; no rank goes on before it is done. The others say that all
    /// is well.
    pub fn wait_for_leader(&self, done: Result<()>) -> Result<()> {
        self.on_leader(|| done).map(|_| ())
    }

    /// What the rank that leads finds.
    pub fn leader_finds(&self, find: impl FnOnce() -> Result<bool>) -> Result<bool> {
        Ok(self.share(|| Ok(vec![find()? as u8]))? == [1])
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
}

/// See `Group::agree`.
pub fn agree<T>(board: &Board, about: &str, come_to: Result<T>, describe: impl Fn(&T) -> Value) -> Result<T> {
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
            if let Some(Difference { path, first, second }) = first_difference(&own["value"], &said["value"]) {
                bail!(
                    "the ranks differ in `{path}`: {first} here, {second} on rank {rank}\n\
                     hint: give all ranks the same command line and files"
                );
            }
        }
        Ok(value)
    });
    agreed.inspect_err(|_| board.last_words(about))
}

/// What this rank has come to where all have come to something; else, on all, what failed on the first of those that
/// have not.
pub fn everywhere<T>(board: &Board, about: &str, come_to: Result<T>) -> Result<Result<T, String>> {
    let failed = come_to.as_ref().err().map(plain).unwrap_or_default();
    let said = board.exchange(about, failed.as_bytes())?;
    let first = said.iter().enumerate().find(|(_, failed)| !failed.is_empty());
    let failure = first.map(|(rank, failed)| format!("rank {rank}: {}", String::from_utf8_lossy(failed)));
    Ok(failure.map_or_else(|| come_to.map_err(|error| plain(&error)), Err))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distributed::testing::{joined, ranks};
    use std::time::Duration;

    #[test]
    fn bytes_and_errors_of_rank_0_come_to_all() {
        let all = ranks(3, |place| {
            let group = joined(&place);
            let shared = group.share(|| Ok(vec![place.rank as u8; 5])).unwrap();
            let nothing = group.share(|| Ok(vec![])).unwrap();
            let failed = group.share(|| bail!("a full disk")).unwrap_err().to_string();
            (shared, nothing, failed)
        });
        for (rank, (shared, nothing, failed)) in all.into_iter().enumerate() {
            assert_eq!((shared, nothing), (vec![0; 5], vec![]));
            assert_eq!(failed, if rank == 0 { "a full disk" } else { "rank 0 failed: a full disk" });
        }
    }

    #[test]
    fn what_fails_on_one_rank_is_gone_on_with_by_none() {
        let all = ranks(3, |place| {
            let board = Board::open(&place, Duration::from_secs(20)).unwrap();
            let here = everywhere(&board, "library", Ok(place.rank)).unwrap();
            let group = if place.rank == 0 { Ok(()) } else { Err(anyhow::anyhow!("no card {}", place.rank)) };
            let there = everywhere(&board, "group", group).unwrap();
            board.last_words("group");
            (here, there)
        });
        for (rank, (here, there)) in all.into_iter().enumerate() {
            assert_eq!((here, there), (Ok(rank), Err("rank 1: no card 1".to_string())));
        }
    }
}
