//! Ranks in threads of one process, for the tests.

use super::{Group, Place};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

/// The result of each of so many ranks, in threads of this process.
pub fn ranks<T: Send>(size: usize, run: impl Fn(Place) -> T + Sync) -> Vec<T> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let host = "127.0.0.1".to_string();
    let place = |rank| Place {
        rank,
        size,
        local_rank: None,
        local_size: size,
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

pub fn joined(place: &Place) -> Group {
    Group::join(place, Duration::from_secs(20)).unwrap()
}
