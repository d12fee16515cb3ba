//! Machines of their own: network namespaces with an address each on one bridge. Needs the rights to make them.

use crate::common::{command, succeeds, wait_for_reports};
use crate::{as_rank, assert_failed, ended, train};
use ntm::checkpoint::Checkpoint;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Three machines 10.77.0.1 to 10.77.0.3, taken down at the end.
struct Machines {
    name: String,
}

fn ip(line: &str) -> bool {
    Command::new("ip").args(line.split_whitespace()).output().is_ok_and(|output| output.status.success())
}

impl Machines {
    /// None where this process may not make any.
    fn new() -> Option<Machines> {
        let name = format!("ntm{}", std::process::id() % 10_000);
        let machines = Machines { name: name.clone() };
        if !ip(&format!("link add {name}b type bridge")) || !ip(&format!("link set {name}b up")) {
            return None;
        }
        for host in 1..=3 {
            let made = [
                format!("netns add {name}n{host}"),
                format!("link add {name}v{host} type veth peer name eth0 netns {name}n{host}"),
                format!("link set {name}v{host} master {name}b up"),
                format!("-n {name}n{host} addr add 10.77.0.{host}/24 dev eth0"),
                format!("-n {name}n{host} link set eth0 up"),
                format!("-n {name}n{host} link set lo up"),
            ];
            if !made.iter().all(|line| ip(line)) {
                return None;
            }
        }
        Some(machines)
    }

    /// Starts a rank on each machine.
    fn start(&self, directory: &Path, line: &str) -> Vec<Child> {
        let rank = |rank: usize| {
            let ntm = command(directory, line);
            let mut inside = Command::new("ip");
            inside.args(["netns", "exec", &format!("{}n{}", self.name, rank + 1)]).arg(ntm.get_program());
            inside.args(ntm.get_args()).current_dir(directory);
            let mut inside = as_rank(inside, rank, 3, 29500);
            inside.env("MASTER_ADDR", "10.77.0.1").spawn().unwrap()
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
        }
        ip(&format!("link del {name}b"));
    }
}

#[test]
fn machines_with_their_own_addresses_train_together_and_end_when_one_is_cut_off() {
    let Some(machines) = Machines::new() else {
        println!("skipped: no right to make network namespaces, or no `ip`");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    for ran in ended(machines.start(here, &train("--sequences 60", "short"))) {
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    }
    for cut in [2, 1] {
        let line = match cut {
            2 => train("--sequences 1000000000 --peer-timeout 3", "run"),
            _ => "train --resume run --threads 1 --peer-timeout 3".to_string(),
        };
        let reports = std::fs::read_to_string(here.join("run/metrics.jsonl")).map_or(0, |text| text.lines().count());
        let all = machines.start(here, &line);
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
