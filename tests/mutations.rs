//! Files of others, damaged at random: an error or a valid load, never a panic, and memory in proportion to the file.
//! `fuzz/` does the same guided by coverage; this needs nothing but the tests' own tools.
#![allow(clippy::unwrap_used)] // helpers of tests are no tests to clippy

#[path = "common/resealed.rs"]
mod resealed;

use ntm::checkpoint::Checkpoint;
use ntm::config::{BUILT_IN, Recipe};
use ntm::tasks::{Sequences, Source, Task};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use resealed::resealed;
use std::fs;
use std::os::unix::fs::FileExt;

/// What stands in the way of careless readers.
const WORDS: [&str; 16] = [
    "0",
    "-1",
    "1e999",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "0.5",
    "null",
    "NaN",
    "{}",
    "[]",
    "\"\"",
    "\u{0}",
    "\\ud800",
    "[[[[[[[[",
];

/// One to four changes of a text or a file: bits, words, and pieces that are cut, moved or doubled.
fn mutate(data: &mut Vec<u8>, random: &mut ChaCha8Rng) {
    for _ in 0..random.random_range(1..=4) {
        let length = data.len().max(1);
        let at = random.random_range(0..length).min(data.len());
        let end = (at + random.random_range(0..=40)).min(data.len());
        match random.random_range(0..6) {
            0 if at < data.len() => data[at] ^= 1 << random.random_range(0..8),
            1 => data.truncate(at),
            2 => drop(data.drain(at..end)),
            3 => {
                let piece = data[at..end].to_vec();
                let to = random.random_range(0..=data.len());
                data.splice(to..to, piece);
            }
            4 => {
                // the digits that stand at or after this place become another number
                let start = at + data[at..].iter().position(u8::is_ascii_digit).unwrap_or(0);
                let digits = data[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                data.splice(start..start + digits, WORDS[random.random_range(0..8)].bytes());
            }
            _ => drop(data.splice(at..end, WORDS[random.random_range(0..WORDS.len())].bytes())),
        }
    }
}

/// The most memory this process has had, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

/// Gives `count` damaged copies of the seeds to `read`, which says whether it took one. How many it took.
fn damaged(seeds: &[Vec<u8>], count: usize, mut read: impl FnMut(Vec<u8>, &mut ChaCha8Rng) -> bool) -> usize {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let before = peak();
    let taken = (0..count).filter(|index| read(seeds[index % seeds.len()].clone(), &mut random)).count();
    let grown = peak() - before;
    assert!(grown < 64 << 20, "reading files of a few kB took {grown} bytes");
    assert!(taken > 0 && taken < count, "{taken} of {count} were taken: nothing was tested");
    taken
}

fn checkpoints(count: usize) -> usize {
    let seed = include_bytes!("../fuzz/seeds/checkpoint/tiny.safetensors").to_vec();
    damaged(&[seed], count, |mut data, random| {
        if random.random_range(0..4) == 0 {
            mutate(&mut data, random);
        } else {
            // the header alone, its length put right, or few would get past it
            let length = u64::from_le_bytes(*data.first_chunk().unwrap()) as usize;
            let mut header = data[8..8 + length].to_vec();
            mutate(&mut header, random);
            header = resealed(&header).unwrap_or(header);
            data.splice(..8 + length, [&(header.len() as u64).to_le_bytes()[..], &header].concat());
        }
        let read = Checkpoint::parse(&data);
        if let Ok(checkpoint) = &read {
            checkpoint.finished();
            checkpoint.progress.expected(&checkpoint.recipe);
        }
        read.is_ok_and(|checkpoint| {
            assert_eq!(checkpoint.theta.len(), checkpoint.recipe.layout().size());
            true
        })
    })
}

fn recipes(count: usize) -> usize {
    let seeds: Vec<Vec<u8>> = BUILT_IN.iter().map(|(_, text)| text.as_bytes().to_vec()).collect();
    damaged(&seeds, count, |mut data, random| {
        mutate(&mut data, random);
        let read = Recipe::parse(&String::from_utf8_lossy(&data), &[]);
        read.is_ok_and(|recipe| {
            let again = serde_json::to_string(&recipe).unwrap();
            assert_eq!(Recipe::parse(&again, &[]).unwrap(), recipe);
            let (batch, steps) = (recipe.training.batch_size, recipe.task.max_steps());
            let values = ntm::fused::activations(recipe.network(), steps, batch, 3) + recipe.model.activations();
            let _ = ntm::memory::check(&recipe, recipe.training.batch_size, 3, values); // says or refuses, and overflows nowhere
            true
        })
    })
}

fn data_files(count: usize) -> usize {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data.jsonl");
    let file = fs::File::create(&path).unwrap();
    let shown = path.display().to_string();
    let task = Task::Sequences(Sequences { train: shown.clone(), eval: shown, ..Sequences::default() });
    let seed = include_bytes!("../fuzz/seeds/data/bits.jsonl").to_vec();
    damaged(&[seed], count, |mut data, random| {
        mutate(&mut data, random);
        file.set_len(0).unwrap(); // not a new file each time, which disks are slow to close
        file.write_all_at(&data, 0).unwrap();
        Source::open(&task).is_ok_and(|mut source| {
            let batch = source.training_batch(1, 0, 3, 1.0).unwrap();
            assert!(batch.inputs.iter().chain(&batch.targets).all(|value| value.is_finite()));
            true
        })
    })
}

#[test]
fn damaged_files_are_refused_or_read_and_never_a_panic() {
    checkpoints(10_000);
    recipes(10_000);
    data_files(10_000);
}

#[test]
#[ignore = "a minute, with TMPDIR in memory: TMPDIR=/dev/shm cargo test --release --test mutations -- --ignored --nocapture"]
fn a_million_damaged_files_of_each_kind() {
    for (kind, read) in
        [("checkpoints", checkpoints as fn(usize) -> usize), ("recipes", recipes), ("data files", data_files)]
    {
        println!("{kind}: {} of 1,000,000 read, the others refused", read(1_000_000));
    }
}
