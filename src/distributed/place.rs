//! Where a process stands in its job: the environment of torch.distributed, which torchrun sets.

use anyhow::{Context, Result, bail};
use std::env::var;
use std::net::{IpAddr, UdpSocket};

/// What the environment says of this process.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// RANK, below `size`.
    pub rank: usize,
    /// WORLD_SIZE, the processes of the job.
    pub size: usize,
    /// LOCAL_RANK, the same among the processes of this machine.
    pub local_rank: Option<usize>,
    /// LOCAL_WORLD_SIZE, the processes of this machine; where it is not set, all of the job may be.
    pub local_size: usize,
    /// MASTER_ADDR and MASTER_PORT: where the store is served.
    pub host: String,
    pub port: u16,
    /// Whether torchrun serves the store, rather than rank 0.
    pub agent: bool,
    /// TORCHELASTIC_RESTART_COUNT: how often torchrun has started the job again. Its store keeps what the last attempt
    /// said.
    pub attempt: u32,
}

/// Whether torchrun or the like has started this process, perhaps as the only one of its job.
pub fn launched() -> bool {
    var("WORLD_SIZE").is_ok()
}

/// Whether torchrun has started this job again after a failure.
pub fn restarted() -> bool {
    attempt(|name| var(name).ok()) > 0
}

fn attempt(variable: impl Fn(&str) -> Option<String>) -> u32 {
    variable("TORCHELASTIC_RESTART_COUNT").and_then(|count| count.parse().ok()).unwrap_or(0)
}

impl Place {
    /// None for a process of its own: without WORLD_SIZE, or with one of 1.
    pub fn from_environment() -> Result<Option<Place>> {
        Place::read(|name| var(name).ok())
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Place>> {
        let number = |name: &str, least: usize, most: usize| -> Result<Option<usize>> {
            let Some(text) = variable(name) else { return Ok(None) };
            match text.parse() {
                Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
                _ => bail!(
                    "{name} is `{text}`, allowed: {least} to {most}\n\
                     hint: torchrun sets it; without WORLD_SIZE in the environment `ntm` trains in one process"
                ),
            }
        };
        let needed = |name: &str| {
            format!(
                "WORLD_SIZE is set, but {name} is not\nhint: torchrun sets both; unset WORLD_SIZE to train in one process"
            )
        };
        let size = match number("WORLD_SIZE", 1, 1 << 16)? {
            None | Some(1) => return Ok(None),
            Some(size) => size,
        };
        let rank = number("RANK", 0, size - 1)?.with_context(|| needed("RANK"))?;
        let local_size = number("LOCAL_WORLD_SIZE", 1, size)?.unwrap_or(size);
        Ok(Some(Place {
            rank,
            size,
            local_rank: number("LOCAL_RANK", 0, size - 1)?,
            local_size,
            host: variable("MASTER_ADDR").with_context(|| needed("MASTER_ADDR"))?,
            port: number("MASTER_PORT", 1, u16::MAX.into())?.with_context(|| needed("MASTER_PORT"))? as u16,
            agent: variable("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|value| value == "True"),
            attempt: attempt(&variable),
        }))
    }

    /// The address by which this machine reaches the store.
    pub fn own_address(&self) -> Result<IpAddr> {
        towards(&self.host, self.port)
            .with_context(|| format!("this machine has no way to {} (MASTER_ADDR)", self.host))
    }
}

/// The address by which the other ranks reach this machine, of all own addresses. Where MASTER_ADDR means the loopback
/// here, as on rank 0's machine if its /etc/hosts says `127.0.1.1 name`, it is that towards a rank which has come over
/// a network.
pub fn reachable(own: IpAddr, all: impl IntoIterator<Item = IpAddr>) -> Result<IpAddr> {
    match all.into_iter().find(|other| own.is_loopback() && !other.is_loopback()) {
        None => Ok(own),
        Some(other) => towards(&other.to_string(), 1).with_context(|| format!("this machine has no way to {other}")),
    }
}

/// The address of the interface that leads to a host.
fn towards(host: &str, port: u16) -> std::io::Result<IpAddr> {
    let any = if host.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect((host.trim_matches(['[', ']']), port))?; // sends nothing
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Place>> {
        let find = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string());
        Place::read(find)
    }

    const PLAIN: [(&str, &str); 4] =
        [("RANK", "1"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29500")];

    #[test]
    fn without_a_world_or_in_one_of_a_single_process_nothing_is_shared() {
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&[("RANK", "3")]).unwrap(), None);
        assert_eq!(read(&[("WORLD_SIZE", "1"), ("RANK", "0")]).unwrap(), None);
    }

    #[test]
    fn four_variables_are_enough_and_torchruns_others_are_read() {
        let (host, port) = ("127.0.0.1".to_string(), 29500);
        let plain = Place { rank: 1, size: 2, local_rank: None, local_size: 2, host, port, agent: false, attempt: 0 };
        assert_eq!(read(&PLAIN).unwrap(), Some(plain.clone()));
        let own = [("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1"), ("TORCHELASTIC_USE_AGENT_STORE", "True")];
        let all = [&PLAIN[..], &own, &[("TORCHELASTIC_RESTART_COUNT", "3")]].concat();
        let place = Place { local_rank: Some(0), local_size: 1, agent: true, attempt: 3, ..plain };
        assert_eq!(read(&all).unwrap(), Some(place));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for missing in ["RANK", "MASTER_ADDR", "MASTER_PORT"] {
            let rest: Vec<_> = PLAIN.into_iter().filter(|(name, _)| *name != missing).collect();
            let message = read(&rest).unwrap_err().to_string();
            assert!(message.starts_with(&format!("WORLD_SIZE is set, but {missing} is not\nhint: ")), "{message}");
        }
        for (name, value, allowed) in [
            ("WORLD_SIZE", "two", "1 to 65536"),
            ("RANK", "2", "0 to 1"),
            ("RANK", "-1", "0 to 1"),
            ("MASTER_PORT", "99999", "1 to 65535"),
            ("LOCAL_RANK", "x", "0 to 1"),
        ] {
            let with: Vec<_> = PLAIN.into_iter().filter(|(known, _)| *known != name).chain([(name, value)]).collect();
            let message = read(&with).unwrap_err().to_string();
            assert!(message.starts_with(&format!("{name} is `{value}`, allowed: {allowed}\n")), "{message}");
        }
    }

    #[test]
    fn the_own_address_is_the_one_towards_the_store() {
        let place = read(&PLAIN).unwrap().unwrap();
        assert_eq!(place.own_address().unwrap(), Ipv4Addr::LOCALHOST);
        let nowhere = Place { host: "no-such-host.invalid".to_string(), ..place };
        let message = nowhere.own_address().unwrap_err().to_string();
        assert_eq!(message, "this machine has no way to no-such-host.invalid (MASTER_ADDR)");
    }

    #[test]
    fn a_loopback_is_given_up_only_where_another_rank_has_come_over_a_network() {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        for (all, reached) in [(["127.0.0.1", "127.0.0.1"], "127.0.0.1"), (["10.0.0.1", "10.0.0.2"], "10.0.0.1")] {
            let all = addresses(&all);
            assert_eq!(reachable(all[0], all.clone()).unwrap().to_string(), reached);
        }
        let all = addresses(&["127.0.0.1", "192.0.2.1"]); // an address of no machine
        match reachable(all[0], all.clone()) {
            Ok(reached) => assert!(!reached.is_loopback(), "{reached}"),
            Err(error) => println!("this machine has no network: {error:#}"),
        }
    }
}
