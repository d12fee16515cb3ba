//! Machines of their own: network namespaces with an address each on one bridge. Needs the rights to make them.

use crate::common::{command, succeeds, wait_for_reports};
use crate::{as_rank, assert_failed, ended, train};
use ntm::checkpoint::Checkpoint;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Above 127.0.0.1: of two ranks Gloo lets that of the higher address call the other, so that a loopback among them
/// does harm.
const FIRST: &str = "192.168.77.1";

/// Three machines 192.168.77.1 to 192.168.77.3, taken down at the end.
struct Machines {
    name: String,
}

fn ip(line: &str) -> bool {
    Command::new("ip").args(line.split_whitespace()).output().is_ok_and(|output| output.status.success())
}

impl Machines {
    /// None where this process may not make any. `set`: a letter of its own for each set of machines.
    fn new(set: char) -> Option<Machines> {
        let name = format!("ntm{}{set}", std::process::id() % 10_000);
        let machines = Machines { name: name.clone() };
        if !ip(&format!("link add {name}b type bridge")) || !ip(&format!("link set {name}b up")) {
            return None;
        }
        for host in 1..=3 {
            let made = [
                format!("netns add {name}n{host}"),
                format!("link add {name}v{host} type veth peer name eth0 netns {name}n{host}"),
                format!("link set {name}v{host} master {name}b up"),
                format!("-n {name}n{host} addr add 192.168.77.{host}/24 dev eth0"),
                format!("-n {name}n{host} link set eth0 up"),
                format!("-n {name}n{host} link set lo up"),
            ];
            if !made.iter().all(|line| ip(line)) {
                return None;
            }
        }
        Some(machines)
    }

    /// What the machines call the first one: each has an /etc/hosts of its own.
    fn name_the_first(&self, name: &str, addresses: [&str; 3]) {
        for (host, address) in (1..).zip(addresses) {
            // `ip netns exec` mounts what is in this folder over /etc
            let etc = self.etc(host);
            std::fs::create_dir_all(&etc).unwrap();
            std::fs::write(etc.join("hosts"), format!("127.0.0.1 localhost\n{address} {name}\n")).unwrap();
        }
    }

    fn etc(&self, host: usize) -> PathBuf {
        PathBuf::from(format!("/etc/netns/{}n{host}", self.name))
    }

    /// Starts a rank on each machine; `first`: what they call the first one.
    fn start(&self, directory: &Path, first: &str, line: &str) -> Vec<Child> {
        let rank = |rank: usize| {
            let ntm = command(directory, line);
            let mut inside = Command::new("ip");
            inside.args(["netns", "exec", &format!("{}n{}", self.name, rank + 1)]).arg(ntm.get_program());
            inside.args(ntm.get_args()).current_dir(directory).env("CUDA_VISIBLE_DEVICES", "");
            let mut inside = as_rank(inside, rank, 3, 29500);
            inside.env("MASTER_ADDR", first).spawn().unwrap()
        };
        (0..3).map(rank).collect()
    }

    /// Pulls the cable of a machine.
    fn cut(&self, host: usize) {
        assert!(ip(&format!("link set {}v{host} down", self.name)));
    }

    fn mend(&self, host: usize) {
        assert!(ip(&format!("link set {}v{host} up", self.name)));
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        let name = &self.name;
        for host in 1..=3 {
            ip(&format!("link del {name}v{host}"));
            ip(&format!("netns del {name}n{host}"));
            let _ = std::fs::remove_dir_all(self.etc(host)); // most tests give it none
        }
        ip(&format!("link del {name}b"));
    }
}

#[test]
fn machines_train_together_where_the_first_ones_name_means_its_loopback_to_itself() {
    let Some(machines) = Machines::new('a') else {
        println!("skipped: no right to make network namespaces, or no `ip`");
        return;
    };
    machines.name_the_first("first", ["127.0.1.1", FIRST, FIRST]);
    let directory = tempfile::tempdir().unwrap();
    for ran in ended(machines.start(directory.path(), "first", &train("--sequences 60", "run"))) {
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    }
}

#[test]
fn machines_with_their_own_addresses_train_together_and_end_when_one_is_cut_off() {
    let Some(machines) = Machines::new('b') else {
        println!("skipped: no right to make network namespaces, or no `ip`");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    for ran in ended(machines.start(here, FIRST, &train("--sequences 60", "short"))) {
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    }
    for cut in [2, 1] {
        let line = match cut {
            2 => train("--sequences 1000000000 --peer-timeout 3", "run"),
            _ => "train --resume run --threads 1 --peer-timeout 3".to_string(),
        };
        let reports = std::fs::read_to_string(here.join("run/metrics.jsonl")).map_or(0, |text| text.lines().count());
        let all = machines.start(here, FIRST, &line);
        wait_for_reports(&here.join("run"), reports + 3);
        machines.cut(cut);
        let since = Instant::now();
        let all = ended(all);
        println!("machine {cut} cut off, all ended after {:.1} s", since.elapsed().as_secs_f64());
        assert_failed(&all, &["training stopped: lost touch with the other ranks: "; 3]);
        assert!(since.elapsed() < Duration::from_secs(15));
        machines.mend(cut);
    }
    let seen = Checkpoint::load(&here.join("run/checkpoints/latest.safetensors")).unwrap().progress.sequences;
    succeeds(here, &format!("train --resume run --threads 1 --sequences {}", seen + 60));
}
