//! The ranks of a job: how they meet, and which of them leads.

use super::agree::{agree, everywhere};
use super::lost::{lost, plain};
use super::place::{self, reachable};
use super::{Board, Place};
use crate::shim::{Interfaces, Nccl, ProcessGroup};
use crate::terminal::say;
use anyhow::{Result, anyhow, bail};
use serde_json::Value;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;
use tch::{Device, Kind, Tensor};

/// The ranks of a job. One process alone is a group too, for which every call here changes nothing.
pub struct Group {
    pub rank: usize,
    /// K, the number of ranks.
    pub size: usize,
    pub(super) joined: Option<Joined>,
}

pub(super) struct Joined {
    pub gloo: ProcessGroup,
    /// Where all ranks train on cards.
    pub nccl: Option<ProcessGroup>,
    pub board: Board,
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
        let own = place.own_address();
        let posted = board.exchange("address", own.as_ref().map_or(String::new(), IpAddr::to_string).as_bytes())?;
        let all = posted.iter().filter_map(|text| str::from_utf8(text).ok()?.parse().ok());
        // before Gloo looks for the others, what a rank can know by itself: they would wait for it
        let interfaces = own.and_then(|own| interfaces(reachable(own, all)?));
        let interfaces = agree(&board, "interfaces", interfaces, |_| Value::Null)?;
        let gloo =
            ProcessGroup::gloo(&board.store, &board.prefix, (rank, size), interfaces).map_err(|error| lost(&error))?;
        Ok(Group { rank, size, joined: Some(Joined { gloo, nccl: None, board }) })
    }

    /// From now on steps are summed on the cards that the ranks train on, by NCCL; through the host where it fails on
    /// some rank.
    pub fn use_cards(&mut self, card: Device) -> Result<()> {
        let Some(Joined { nccl, board, .. }) = &mut self.joined else { return Ok(()) };
        // all take a step or none: those that got further would wait for those that did not
        let library = everywhere(board, "nccl's library", Nccl::load())?;
        let made = match library {
            Ok(library) => {
                let group = library.group(&board.store, &board.prefix, (self.rank, self.size));
                everywhere(board, "nccl's group", group)?
            }
            Err(why) => Err(why),
        };
        let connected = match made {
            Ok(group) => {
                match everywhere(board, "a card", Tensor::f_ones([1], (Kind::Float, card)).map_err(Into::into))? {
                    Ok(mut one) => everywhere(board, "nccl", group.sum(&mut one).map(|()| group))?, // connects the cards
                    Err(why) => Err(why),
                }
            }
            Err(why) => Err(why),
        };
        match connected {
            Ok(group) => *nccl = Some(group),
            Err(why) => self.say(&format!("gradients are summed on the host, not by NCCL: {why}")),
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

    /// Of the rank that leads: notes that this job has a directory for its own.
    pub fn claim(&self, directory: &Path) -> Result<()> {
        self.board().map_or(Ok(()), |board| board.claim(directory))
    }

    /// Of the rank that leads: whether torchrun has started this job again, and the directory was its own before. Of a
    /// process alone nobody knows the latter, and it is taken for granted.
    pub fn goes_on_with(&self, directory: &Path) -> Result<bool> {
        Ok(place::restarted() && self.board().map_or(Ok(true), |board| board.has_claimed(directory))?)
    }
}

/// The network interfaces for Gloo: those that GLOO_SOCKET_IFNAME names, or the one with this address.
fn interfaces(address: IpAddr) -> Result<Interfaces> {
    let names = std::env::var("GLOO_SOCKET_IFNAME").unwrap_or_default();
    Interfaces::open(&names, &address.to_string()).map_err(|error| match names.as_str() {
        "" => anyhow!("no network for Gloo: {}\nhint: name an interface in GLOO_SOCKET_IFNAME", plain(&error)),
        names => anyhow!(
            "no network for Gloo at GLOO_SOCKET_IFNAME, which is `{names}`: {}\n\
             hint: `ip -brief address` lists the interfaces; without it the one that leads to MASTER_ADDR is used",
            plain(&error)
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distributed::testing::ranks;

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
}
